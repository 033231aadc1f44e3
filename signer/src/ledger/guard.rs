//! What the ledger does with its anchor: compares at the start, raises the bound before a charge passes it, counts commands,
//! marks a clean stop.

use super::{
    Head, LedgerError, LedgerOptions,
    entry::{Entry, StartEntry},
    state::State,
    store::Store,
    tables,
};
use crate::{
    anchor::{Anchor, AnchorState},
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
}

impl Guard {
    /// Compares, takes over the configuration, and notes the start in the journal.
    pub(super) fn start(
        store: &mut Store,
        options: &LedgerOptions,
        mut anchor: Box<dyn Anchor>,
    ) -> Result<(Self, Vec<String>), LedgerError> {
        check_limits(&options.rules)?;
        let first = store.state.fresh;
        let found = compare(store, anchor.as_mut())?;
        let burnt_sat = found.map_or(0, |a| a.bound_sat.saturating_sub(store.state.charged_sat));
        let missing_commands = found.map_or(0, |a| a.commands.saturating_sub(store.state.commands));
        let half = half(&store.head);
        let proven = found.is_some_and(|a| burnt_sat == 0 && a.commands == store.state.commands && a.clean == Some(half));

        let mut wanted = store.state.clone();
        wanted.burn(burnt_sat);
        let warnings = wanted.scopes.adopt(&options.rules);
        let entry = Entry::Started(StartEntry {
            anchor: anchor.kind().into(),
            anchored: anchor.remembers(),
            proven,
            burnt_sat,
            policy_hash: options.policy_hash.clone(),
            raise_by_command: wanted.scopes.raise == Raise::Command,
            limits: wanted.changed_limits(&store.state),
        });
        let lease_sat = options.lease_sat.unwrap_or_else(|| lease(&options.rules)).max(1);
        let mut guard = Self { anchor, held: found, missing_commands, lease_sat, proven, first };
        // Before the journal goes on: a crash after it would leave a ledger that says it is anchored, or that no longer ends with the
        // command that the anchor was not told of, and either looks like a lost anchor.
        if guard.anchor.remembers() && guard.held.is_none_or(|a| a.commands < store.state.commands) {
            guard.write(AnchorState { clean: None, ..guard.due(&store.state) })?;
        }
        store.commit_one(&entry)?;
        Ok((guard, warnings))
    }

    /// Kind, and what it proved.
    pub(super) fn describe(&self) -> String {
        let kind = self.anchor.kind();
        match (self.anchor.remembers(), self.is_stale(), self.proven) {
            (false, ..) if self.first => format!("{kind}: the first start; an old ledger put back later would not be noticed"),
            (true, false, _) if self.first => format!("{kind}: the first start"),
            (false, ..) => format!("{kind}: an old ledger would not be noticed; the buckets started empty"),
            (_, true, _) => format!("{kind}: the ledger is an old copy, {} commands are missing", self.missing_commands),
            (.., true) => format!("{kind}: proved the ledger to be the latest"),
            (.., false) => format!("{kind}: the last stop was not clean; the buckets started empty"),
        }
    }

    pub(super) fn is_stale(&self) -> bool {
        self.missing_commands > 0
    }

    /// What the anchor must hold at least.
    fn due(&self, state: &State) -> AnchorState {
        AnchorState {
            ledger: state.identity,
            bound_sat: state.charged_sat.max(self.held.map_or(0, |a| a.bound_sat)),
            commands: state.commands.saturating_add(self.missing_commands),
            clean: None,
        }
    }

    /// Before charges are committed: the mark is gone, all commands are known, and the bound is not passed.
    pub(super) fn before_charge(&mut self, state: &State) -> Result<(), LedgerError> {
        let due = self.due(state);
        let Some(held) = self.held else { return Ok(()) };
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
        if !self.anchor.remembers() {
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

/// What the anchor holds, if that fits the ledger.
fn compare(store: &Store, anchor: &mut dyn Anchor) -> Result<Option<AnchorState>, LedgerError> {
    let state = &store.state;
    let found = if anchor.remembers() { anchor.read()? } else { None };
    let Some(found) = found else {
        return match &state.anchored {
            Some(kind) => Err(LedgerError::AnchorLost { kind: kind.clone() }),
            None => Ok(None),
        };
    };
    if found.ledger != state.identity {
        return Err(LedgerError::AnchorForeign { anchor: hex::encode(found.ledger), ledger: hex::encode(state.identity) });
    }
    // A start is committed before the anchor hears of the ledger. One that never started would take any configuration as its first.
    if state.fresh {
        return Err(LedgerError::Untouched);
    }
    if found.bound_sat < state.charged_sat {
        return Err(LedgerError::AnchorBehind { what: format!("{} sat of {} sat charged", found.bound_sat, state.charged_sat) });
    }
    // A command is committed first and the anchor told next. If the journal ends with a command, a crash came between.
    let last = tables::entry(&store.db, store.head.seq)?;
    let just_commanded = matches!(last, Some(Entry::Commanded(..) | Entry::Locked(..)));
    let known = found.commands.saturating_add(u64::from(just_commanded));
    if known < state.commands {
        return Err(LedgerError::AnchorBehind { what: format!("{} of {} commands", found.commands, state.commands) });
    }
    Ok(Some(found))
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
