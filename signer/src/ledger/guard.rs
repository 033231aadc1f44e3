//! What the ledger does with its anchor: compares at the start, raises the bound before a charge passes it, counts commands,
//! marks a clean stop.

use super::{
    Head, LedgerError, LedgerOptions,
    entry::{Entry, StartEntry},
    hold::Hold,
    state::State,
    store::Store,
    tables,
};
use crate::{
    anchor::{Anchor, AnchorError, AnchorState},
    policy::{
        check_rates,
        rules::{PolicyRules, Raise},
    },
};

/// The anchor of an open ledger.
pub(super) struct Guard {
    anchor: Box<dyn Anchor>,
    /// What the anchor is known to hold. None: it remembers nothing.
    held: Option<AnchorState>,
    /// Commands that the anchor knows and this ledger does not.
    missing_commands: u64,
    lease_sat: u64,
    proven: bool,
    /// The ledger never ran before: nothing to prove, and the buckets are full.
    first: bool,
    /// The managers said what counts, in this run.
    rebased: bool,
    /// Ledger and anchor do not agree.
    hold: Option<Hold>,
    rules: PolicyRules,
    policy_hash: String,
}

impl Guard {
    /// Compares, takes over the configuration, and notes the start in the journal.
    pub(super) fn start(
        store: &mut Store,
        options: &LedgerOptions,
        mut anchor: Box<dyn Anchor>,
    ) -> Result<(Self, Vec<String>), LedgerError> {
        check_limits(&options.rules)?;
        let (found, alarm) = compare(store, anchor.as_mut())?;
        let state = &store.state;
        let missing_commands = if alarm.is_some() { 0 } else { found.map_or(0, |a| a.commands.saturating_sub(state.commands)) };
        let least_sat = found.map_or(0, |a| a.bound_sat).max(state.charged_sat);
        let commands = found.map_or(0, |a| a.commands).max(state.commands);
        let hold = match alarm {
            Some(alarm) => Some(Hold::alarmed(alarm, least_sat, commands)?),
            None if missing_commands > 0 => Some(Hold::stale(missing_commands, least_sat, commands)?),
            None => None,
        };
        let half = half(&store.head);
        let latest = |a: AnchorState| a.bound_sat == state.charged_sat && a.commands == state.commands && a.clean == Some(half);
        let mut guard = Self {
            anchor,
            held: found,
            missing_commands,
            lease_sat: options.lease_sat.unwrap_or_else(|| lease(&options.rules)).max(1),
            proven: hold.is_none() && found.is_some_and(latest),
            first: state.fresh,
            rebased: false,
            hold,
            rules: options.rules.clone(),
            policy_hash: options.policy_hash.clone(),
        };
        // An alarm leaves everything as it was found, until managers say what it means.
        if guard.alarm().is_some() {
            return Ok((guard, Vec::new()));
        }
        let (entry, warnings) = guard.start_entry(&store.state, least_sat);
        // Before the journal goes on: a crash after it would leave a ledger that says it is anchored, or that no longer ends with the
        // command that the anchor was not told of, and either looks like a lost anchor.
        if guard.anchor.remembers() && guard.held.is_none_or(|a| a.commands < store.state.commands) {
            guard.write(AnchorState { clean: store.state.fresh.then_some(half), ..guard.due(&store.state) })?;
        }
        store.commit_one(&entry)?;
        if guard.first && guard.anchor.remembers() {
            // From here on a copy from before the first start is an old one.
            guard.write(guard.due(&store.state))?;
        }
        Ok((guard, warnings))
    }

    /// What a start with this much spent changes, and what the operator should know.
    fn start_entry(&self, state: &State, spent_sat: u64) -> (Entry, Vec<String>) {
        let burnt_sat = spent_sat.saturating_sub(state.charged_sat);
        let mut wanted = state.clone();
        wanted.burn(burnt_sat);
        let warnings = wanted.scopes.adopt(&self.rules);
        let entry = Entry::Started(StartEntry {
            anchor: self.anchor.kind().into(),
            anchored: self.anchor.remembers(),
            proven: self.proven,
            burnt_sat,
            policy_hash: self.policy_hash.clone(),
            raise_by_command: wanted.scopes.raise == Raise::Command,
            limits: wanted.changed_limits(state),
        });
        (entry, warnings)
    }

    /// The start that comes with a re-base: proves nothing, and counts what the managers say.
    pub(super) fn restart_entry(&self, state: &State, spent_sat: u64) -> Entry {
        self.start_entry(state, spent_sat).0
    }

    /// Why nothing is charged.
    pub(super) fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// Why the anchor gives alarm.
    pub(super) fn alarm(&self) -> Option<&LedgerError> {
        self.hold.as_ref().and_then(|hold| hold.alarm.as_ref())
    }

    /// The alarm itself, for whoever gives up.
    pub(super) fn take_alarm(&mut self) -> Option<LedgerError> {
        self.hold.as_mut().and_then(|hold| hold.alarm.take())
    }

    /// After a re-base is committed: whatever the anchor holds is to be replaced.
    pub(super) fn rebased(&mut self) {
        self.hold = None;
        self.held = None;
        self.missing_commands = 0;
        self.first = false;
        self.rebased = true;
    }

    /// Kind, and what it proved.
    pub(super) fn describe(&self) -> String {
        let kind = self.anchor.kind();
        if let Some(hold) = &self.hold {
            return format!("{kind}: {}", hold.why);
        }
        if self.rebased {
            return format!("{kind}: re-based; the buckets started empty");
        }
        match (self.anchor.remembers(), self.proven) {
            (false, _) if self.first => format!("{kind}: the first start; an old ledger put back later would not be noticed"),
            (true, _) if self.first => format!("{kind}: the first start"),
            (false, _) => format!("{kind}: an old ledger would not be noticed; the buckets started empty"),
            (true, true) => format!("{kind}: proved the ledger to be the latest"),
            (true, false) => format!("{kind}: the last stop was not clean; the buckets started empty"),
        }
    }

    /// What the anchor must hold at least.
    pub(super) fn due(&self, state: &State) -> AnchorState {
        AnchorState {
            ledger: state.known_as(),
            bound_sat: state.charged_sat.max(self.held.map_or(0, |a| a.bound_sat)),
            commands: state.commands.saturating_add(self.missing_commands),
            clean: None,
        }
    }

    /// Before charges are committed: the mark is gone, all commands are known, and the bound is not passed.
    pub(super) fn before_charge(&mut self, state: &State) -> Result<(), LedgerError> {
        let due = self.due(state);
        let Some(held) = self.held else {
            // Nothing is known of it: it was told of a re-base and did not answer.
            return if self.anchor.remembers() {
                self.write(AnchorState { bound_sat: due.bound_sat.saturating_add(self.lease_sat), ..due })
            } else {
                Ok(())
            };
        };
        if state.charged_sat > held.bound_sat {
            let leased = held.bound_sat.saturating_add(self.lease_sat);
            self.write(AnchorState { bound_sat: due.bound_sat.max(leased), ..due })
        } else if held != due {
            self.write(due)
        } else {
            Ok(())
        }
    }

    /// After a command is committed.
    pub(super) fn after_command(&mut self, state: &State) -> Result<(), LedgerError> {
        if self.anchor.remembers() { self.write(self.due(state)) } else { Ok(()) }
    }

    /// After a clean stop: the bound is exact, and only this ledger fits the mark.
    pub(super) fn stopped(&mut self, state: &State, head: Head) -> Result<(), LedgerError> {
        if !self.anchor.remembers() || self.alarm().is_some() {
            return Ok(());
        }
        self.write(AnchorState { bound_sat: state.charged_sat, clean: Some(half(&head)), ..self.due(state) })
    }

    fn write(&mut self, state: AnchorState) -> Result<(), LedgerError> {
        self.anchor.write(&state)?;
        self.held = Some(state);
        Ok(())
    }
}

/// What the anchor holds, and why that cannot be, if it cannot.
fn compare(store: &Store, anchor: &mut dyn Anchor) -> Result<(Option<AnchorState>, Option<LedgerError>), LedgerError> {
    let state = &store.state;
    let found = match if anchor.remembers() { anchor.read() } else { Ok(None) } {
        Err(e @ AnchorError::Damaged(_)) => return Ok((None, Some(e.into()))),
        found => found?,
    };
    let Some(held) = found else {
        let lost = state.anchored.clone().map(|kind| LedgerError::AnchorLost { kind });
        return Ok((None, lost));
    };
    if held.ledger != state.known_as() {
        let foreign = LedgerError::AnchorForeign { anchor: hex::encode(held.ledger), ledger: hex::encode(state.known_as()) };
        return Ok((found, Some(foreign)));
    }
    // The anchor is told just before the first start is committed. A ledger that never started would take any configuration as its first.
    if state.fresh && held.clean != Some(half(&store.head)) {
        return Ok((found, Some(LedgerError::Untouched)));
    }
    if held.bound_sat < state.charged_sat {
        let behind = LedgerError::AnchorBehind { what: format!("{} sat of {} sat charged", held.bound_sat, state.charged_sat) };
        return Ok((found, Some(behind)));
    }
    // A command is committed first and the anchor told next. If the journal ends with a command, a crash came between.
    let last = tables::entry(&store.db, store.head.seq)?;
    let just_commanded = matches!(last, Some(Entry::Commanded(..) | Entry::Locked(..) | Entry::Rebased(_)));
    let known = held.commands.saturating_add(u64::from(just_commanded));
    if known < state.commands {
        let behind = LedgerError::AnchorBehind { what: format!("{} of {} commands", held.commands, state.commands) };
        return Ok((found, Some(behind)));
    }
    Ok((found, None))
}

fn half(head: &Head) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(head.hash).for_each(|(to, from)| *to = from);
    half
}

fn check_limits(rules: &PolicyRules) -> Result<(), LedgerError> {
    let wallets = rules.wallets.iter().map(|(name, wallet)| (format!("wallet {name}"), &wallet.limits));
    for (scope, limits) in std::iter::once(("signer".to_owned(), &rules.signer)).chain(wallets) {
        check_rates(&limits.rates).map_err(|e| LedgerError::Limits { scope, what: e.to_string() })?;
    }
    Ok(())
}

/// 1 % of the smallest total, else the largest burst, else 1 BTC: small enough that a crash burns little of any total.
fn lease(rules: &PolicyRules) -> u64 {
    let limits = || std::iter::once(&rules.signer).chain(rules.wallets.values().map(|w| &w.limits));
    let percent = limits().filter_map(|l| l.total_sat).filter(|t| *t > 0).min().map(|t| t / 100);
    let burst = || limits().flat_map(|l| &l.rates).map(|r| r.burst_sat).max();
    percent.or_else(burst).unwrap_or(postern_protocol::units::SAT_PER_BTC)
}
