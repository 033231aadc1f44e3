//! The one thread that writes. Takes what waits, decides, writes it in one transaction, syncs once, answers.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use bitcoin::hashes::Hash as _;
use postern_protocol::{
    command::{Action, Scope},
    refusal::{Refusal, RefusalCode},
    reply::{Applied, InputSignature, RebaseNeeded},
};

use super::{
    Charged, Head, LedgerError, LedgerOptions, VerifiedCommand,
    entry::{ChargeEntry, Entry, FamilyEntry, to_bytes},
    guard::Guard,
    hold::{Hold, check_base},
    inbox::{Asked, Inbox, Next, Order},
    state::{Objection, State},
    store::Store,
    tables,
};
use crate::{
    analysis::SpendPlan,
    anchor::Anchor,
    clock::Uptime,
    lane::guarded,
    policy::{Authorized, Membership, PolicyState, decide, rules::PolicyRules},
};

/// Longest reason of a lock, in characters.
pub(super) const WHY_MAX: usize = 200;

/// What everybody may read, as of the last commit.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) state: State,
    pub(super) head: Head,
    pub(super) anchor: String,
    pub(super) rebase: Option<RebaseNeeded>,
}

pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) guard: Guard,
    rules: Arc<PolicyRules>,
    published: Arc<Mutex<Published>>,
    inbox: Arc<Inbox>,
    /// The latest time that anybody passed in.
    seen_ms: u64,
    /// False after an error, until everything was read from the disk again.
    sound: bool,
}

impl Writer {
    pub(super) fn open(
        options: LedgerOptions,
        rules: Arc<PolicyRules>,
        anchor: Box<dyn Anchor>,
    ) -> Result<(Self, Vec<String>), LedgerError> {
        let mut store = Store::open(&options.folder)?;
        let (guard, warnings) = Guard::start(&mut store, &options, anchor)?;
        let rebase = guard.hold().map(Hold::needed);
        let published = Published { state: store.state.clone(), head: store.head, anchor: guard.describe(), rebase };
        let published = Arc::new(Mutex::new(published));
        Ok((Self { store, guard, rules, published, inbox: Arc::default(), seen_ms: 0, sound: true }, warnings))
    }

    /// Itself, unless the anchor gives alarm.
    pub(super) fn unless_alarmed(mut self) -> Result<Self, LedgerError> {
        match self.guard.take_alarm() {
            Some(alarm) => Err(alarm),
            None => Ok(self),
        }
    }

    pub(super) fn published(&self) -> Arc<Mutex<Published>> {
        Arc::clone(&self.published)
    }

    pub(super) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Until [`Order::Stop`], or until nobody can ask any more (a crash, as far as the ledger is concerned).
    pub(super) fn run(mut self) {
        loop {
            match self.inbox.next() {
                Next::Charges(asked) => self.charge_all(asked),
                Next::Order(Order::Apply { command, now, reply }) => {
                    let outcome = self.apply(command, now);
                    let _ = reply.send(outcome);
                }
                Next::Order(Order::Lock { scope, why, now, reply }) => {
                    let outcome = self.lock(scope, why, now);
                    let _ = reply.send(outcome);
                }
                Next::Order(Order::Stop { now, reply }) => {
                    let outcome = self.stop(now);
                    // The lock on the folder is gone before the answer comes.
                    drop(self);
                    let _ = reply.send(outcome);
                    return;
                }
                Next::Order(Order::Abandon) => return,
                #[cfg(test)]
                Next::Order(Order::Test(work)) => work(&mut self),
            }
        }
    }

    /// Decides and charges all that wait, with one sync, and answers.
    fn charge_all(&mut self, asked: Vec<Asked>) {
        match self.transact(&asked) {
            Ok(outcomes) => asked.into_iter().zip(outcomes).for_each(|(asked, outcome)| guarded(|| asked.reply.give(outcome))),
            Err(error) => {
                let refusal = self.failed(&error);
                asked.into_iter().for_each(|asked| guarded(|| asked.reply.give(Err(refusal.clone()))));
            }
        }
    }

    fn transact(&mut self, asked: &[Asked]) -> Result<Vec<Result<Charged, Refusal>>, LedgerError> {
        self.mend()?;
        let before = self.store.head.seq;
        let mut touched = BTreeSet::new();
        self.store.begin()?;
        for (charge, signatures) in self.inbox.take_records() {
            if tables::signatures(&self.store.db, &self.store.recent, charge)?.is_none() {
                self.store.append(&Entry::Signed(charge, signatures))?;
            }
        }
        let mut outcomes = Vec::with_capacity(asked.len());
        for Asked { plan, now, .. } in asked {
            let outcome = self.charge(plan, *now)?;
            if outcome.as_ref().is_ok_and(|charged| !charged.is_repeat()) {
                touched.insert(plan.wallet().to_owned());
            }
            outcomes.push(outcome);
        }
        if self.store.head.seq == before {
            self.store.abandon()?;
            return Ok(outcomes);
        }
        if !touched.is_empty() {
            self.guard.before_charge(&self.store.state)?;
        }
        self.store.commit()?;
        self.publish(&touched);
        Ok(outcomes)
    }

    /// Decides one charge and writes it; it counts once the transaction is synced.
    fn charge(&mut self, plan: &Arc<SpendPlan>, now: Uptime) -> Result<Result<Charged, Refusal>, LedgerError> {
        let now = self.clamp(now);
        if let Some(hold) = self.guard.hold() {
            return Ok(Err(hold.refusal()));
        }
        let kin = tables::kin(&self.store.db, &self.store.recent, plan)?;
        let state = PolicyState { rules: &self.rules, scopes: &self.store.state.scopes, kin: &kin };
        let authorized = match decide(&state, plan, now) {
            Ok(authorized) => authorized,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Membership::Repeat(charge) = authorized.membership() {
            return Ok(Ok(Charged::repeated(Arc::clone(plan), charge, self.signatures(charge)?, self.inbox.under_way())));
        }
        let Some(entry) = charge_entry(plan, &authorized) else {
            return Ok(Err(Refusal::new(RefusalCode::NothingToSign, "no input of the transaction is this wallet's")));
        };
        self.store.append(&Entry::Charged(entry))?;
        Ok(Ok(Charged::new(Arc::clone(plan), self.store.head.seq, authorized.increase_sat(), self.inbox.under_way())))
    }

    fn signatures(&self, charge: u64) -> Result<Option<Vec<InputSignature>>, LedgerError> {
        let Some(seq) = tables::signatures(&self.store.db, &self.store.recent, charge)? else { return Ok(None) };
        match tables::entry(&self.store.db, seq)? {
            Some(Entry::Signed(of, signatures)) if of == charge => Ok(Some(signatures)),
            _ => Err(LedgerError::Damaged { seq, what: format!("it should be the signatures of charge {charge}") }),
        }
    }

    fn apply(&mut self, command: VerifiedCommand, now: Uptime) -> Result<Applied, Refusal> {
        let VerifiedCommand { serial, action, managers, base } = command;
        let now = self.clamp(now);
        match self.prepare(serial) {
            Ok(false) => {}
            Ok(true) => {
                return Err(Refusal::new(RefusalCode::CommandSerialUsed, format!("serial {serial} was used before; make a new command")));
            }
            Err(error) => return Err(self.failed(&error)),
        }
        if let Action::Rebase { .. } = action {
            return self.rebase(serial, &action, managers);
        }
        if let Some(hold) = self.guard.hold()
            && (hold.alarm.is_some() || !matches!(action, Action::Freeze(_)))
        {
            return Err(hold.refusal());
        }
        check_base(&self.store.state, &action, base)?;
        match self.store.state.objection(&action) {
            None => {}
            Some(Objection::Scope(what)) => return Err(Refusal::new(RefusalCode::CommandScope, what)),
            Some(Objection::Malformed(what)) => return Err(Refusal::new(RefusalCode::CommandMalformed, what)),
        }
        let entry = Entry::Commanded(serial, action.clone(), managers, now.as_millis());
        self.order(&entry)?;
        Ok(Applied { serial, effect: self.store.state.effect(&action) })
    }

    fn lock(&mut self, scope: Scope, why: String, now: Uptime) -> Result<(), Refusal> {
        self.clamp(now);
        if let Some(hold) = self.guard.hold().filter(|hold| hold.alarm.is_some()) {
            return Err(hold.refusal());
        }
        match self.store.state.scopes.get(&scope) {
            None => return Err(Refusal::new(RefusalCode::CommandScope, format!("{scope} is not of this signer"))),
            Some(held) if held.locked().is_some() => return Ok(()),
            Some(_) => {}
        }
        self.order(&Entry::Locked(scope, why))
    }

    /// Makes the ledger usable, and says whether a serial was used.
    fn prepare(&mut self, serial: u64) -> Result<bool, LedgerError> {
        self.mend()?;
        tables::is_used(&self.store.db, serial)
    }

    /// Commits what counts as a command, then tells the anchor. When the anchor does not answer the command still holds: nothing
    /// is charged before the anchor knows of it.
    fn order(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if let Err(error) = self.mend().and_then(|()| self.store.commit_one(entry)) {
            return Err(self.failed(&error));
        }
        if let Err(error) = self.guard.after_command(&self.store.state) {
            log::error!("the command is applied; {error}; nothing is charged until the anchor answers");
        }
        let all = self.store.state.scopes.wallets.keys().cloned().collect();
        self.publish(&all);
        Ok(())
    }

    fn stop(&mut self, now: Uptime) -> Result<(), LedgerError> {
        if self.guard.alarm().is_some() {
            return Ok(());
        }
        let last = self.inbox.take_charges();
        self.charge_all(last);
        let now = self.clamp(now);
        self.mend()?;
        self.store.commit_one(&Entry::Stopped(now.as_millis()))?;
        let all = self.store.state.scopes.wallets.keys().cloned().collect();
        self.publish(&all);
        self.guard.stopped(&self.store.state, self.store.head)?;
        // Only tidies: what is committed is durable in the log already.
        if let Err(error) = self.store.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            log::warn!("the ledger's log was not folded in: {error}");
        }
        Ok(())
    }

    /// After an error: believes only the disk.
    pub(super) fn mend(&mut self) -> Result<(), LedgerError> {
        if !self.sound {
            self.store.reopen()?;
            self.sound = true;
        }
        Ok(())
    }

    pub(super) fn failed(&mut self, error: &LedgerError) -> Refusal {
        log::error!("{error}");
        self.sound = false;
        // Opened again now, so that no lock on the file is left; if that fails, at the next request.
        let _ = self.mend();
        unavailable(&format!("{error}; nothing was charged"))
    }

    fn clamp(&mut self, now: Uptime) -> Uptime {
        self.seen_ms = self.seen_ms.max(now.as_millis());
        Uptime::from_millis(self.seen_ms)
    }

    /// After a re-base: everything may have changed.
    pub(super) fn publish_all(&self) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        *published = Published {
            state: self.store.state.clone(),
            head: self.store.head,
            anchor: self.guard.describe(),
            rebase: self.guard.hold().map(Hold::needed),
        };
    }

    fn publish(&self, wallets: &BTreeSet<String>) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.head = self.store.head;
        published.state.take_over(&self.store.state, wallets);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

fn unavailable(message: &str) -> Refusal {
    Refusal::new(RefusalCode::LedgerUnavailable, message)
}

/// None when no input is ours, which the analysis lets nobody get to.
fn charge_entry(plan: &SpendPlan, authorized: &Authorized) -> Option<ChargeEntry> {
    let inputs = &plan.transaction().input;
    let index = |outpoint| inputs.iter().position(|i| i.previous_output == outpoint).and_then(|n| u32::try_from(n).ok());
    let family = match authorized.membership() {
        Membership::Founds(outpoint) => FamilyEntry::Founds(index(outpoint)?),
        Membership::Joins(founder, outpoint) => FamilyEntry::Joins(founder, index(outpoint)?),
        Membership::Repeat(_) => return None,
    };
    let positions = plan.inputs().iter().map(|i| i.position).chain(plan.change().iter().map(|c| c.position));
    let mut used = std::collections::BTreeMap::new();
    for position in positions {
        let last = used.entry(position.branch).or_insert(position.index);
        *last = position.index.max(*last);
    }
    Some(ChargeEntry {
        wallet: plan.wallet().into(),
        txid: plan.unsigned_txid().to_byte_array(),
        outpoints: inputs.iter().flat_map(|i| to_bytes(&i.previous_output)).collect(),
        outflow_sat: plan.outflow_sat(),
        fee_sat: plan.fee_sat(),
        increase_sat: authorized.increase_sat(),
        family,
        at_ms: authorized.at_ms(),
        used: used.into_iter().collect(),
    })
}
