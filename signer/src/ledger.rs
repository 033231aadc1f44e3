//! The signer's durable memory: a hash-chained journal, and the charge that is on disk before any key is used.
//!
//! One thread writes. Requests that wait together share one transaction and one sync ([`Ledger::charge`] returns after it).
//! The decision is made inside that transaction, with the state as it is then, so two requests can never spend the same
//! allowance. Everything but the journal is derived from it: [`verify`] computes it again and compares.
//!
//! No clock is read here: [`Uptime`] is an argument, and one earlier than the last seen counts as the last seen.

mod charged;
mod entry;
mod error;
mod guard;
mod hold;
mod inbox;
mod lock_file;
mod recent;
mod state;
mod store;
mod tables;
mod upgrade;
mod verify;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use postern_protocol::{
    command::{Action, Challenge, Scope},
    refusal::Refusal,
    reply::{Applied, InputSignature, LimitLevel, RebaseNeeded},
};

pub use charged::Charged;
pub use entry::{ChargeEntry, Entry, FamilyEntry, Hash, LimitsEntry, RebaseEntry, StartEntry};
pub use error::LedgerError;
pub use state::Totals;
pub use verify::{Line, Report, show, verify};

use crate::{analysis::SpendPlan, anchor::Anchor, clock::Uptime, policy::rules::PolicyRules, wallet::Position};
use inbox::{Asked, Closed, Inbox, Order, Reply, closed};
use writer::{Published, Writer};

/// What [`Ledger::open`] needs to know.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    /// The state folder.
    pub folder: PathBuf,
    /// The limits as configured.
    pub rules: PolicyRules,
    /// By how much the anchor's bound is raised at a time. None: 1 % of the smallest total, else the largest burst, else 1 BTC.
    pub lease_sat: Option<u64>,
    /// SHA-256 of the policy in hex, as `check` prints it: noted in the journal at each start.
    pub policy_hash: String,
}

/// A manager's command whose signatures, signer, network and expiry are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCommand {
    /// Used once, ever.
    pub serial: u64,
    /// What to do.
    pub action: Action,
    /// Names of the managers who signed.
    pub managers: Vec<String>,
    /// The re-base after which it was made.
    pub base: Option<Challenge>,
}

/// The journal's last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

/// The ledger of a running signer.
#[derive(Debug)]
pub struct Ledger {
    inbox: Arc<Inbox>,
    published: Arc<Mutex<Published>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    rules: Arc<PolicyRules>,
    warnings: Vec<String>,
}

impl Ledger {
    /// Makes a new, empty ledger in a folder (`postern init`). Full buckets and whole totals at its first start.
    ///
    /// # Errors
    /// [`LedgerError::Exists`]; [`LedgerError`] when it cannot be written.
    pub fn create(folder: &Path) -> Result<(), LedgerError> {
        store::create(folder)
    }

    /// Opens the ledger of a folder for this process alone, compares it with its anchor and takes over the configuration as
    /// far as it is allowed to ([`Self::warnings`]).
    ///
    /// # Errors
    /// [`LedgerError::Missing`] (never made here: a missing ledger would mean fresh limits), [`LedgerError::InUse`],
    /// [`LedgerError::AnchorForeign`], [`LedgerError::AnchorBehind`], [`LedgerError::AnchorLost`], …
    pub fn open(options: LedgerOptions, anchor: Box<dyn Anchor>) -> Result<Self, LedgerError> {
        Self::start(options, anchor, false)
    }

    /// [`Self::open`], but where the anchor gives alarm the ledger is opened all the same. It charges nothing and accepts nothing but
    /// the managers' re-base ([`Self::rebase_needed`]): a signer that does not run could be told nothing.
    ///
    /// # Errors
    /// As [`Self::open`], without the alarms.
    pub fn open_or_hold(options: LedgerOptions, anchor: Box<dyn Anchor>) -> Result<Self, LedgerError> {
        Self::start(options, anchor, true)
    }

    fn start(options: LedgerOptions, anchor: Box<dyn Anchor>, hold: bool) -> Result<Self, LedgerError> {
        let rules = Arc::new(options.rules.clone());
        let (writer, warnings) = Writer::open(options, Arc::clone(&rules), anchor)?;
        let writer = if hold { writer } else { writer.unless_alarmed()? };
        let published = writer.published();
        let inbox = writer.inbox();
        let thread = std::thread::Builder::new().name("ledger".into()).spawn(move || writer.run())?;
        Ok(Self { inbox, published, writer: Mutex::new(Some(thread)), rules, warnings })
    }

    /// What an operator should know about the configuration that was opened with.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Decides, charges, and returns when the charge is on disk. A transaction that was charged before is charged nothing
    /// and comes with its signatures, if they were made.
    ///
    /// # Errors
    /// What [`crate::policy::decide`] refuses; `LedgerUnavailable` (nothing was charged) or `ShuttingDown`.
    pub fn charge(&self, plan: Arc<SpendPlan>, now: Uptime) -> Result<Charged, Refusal> {
        let (reply, answer) = sync_channel(1);
        self.charge_then(plan, now, move |outcome| {
            let _ = reply.send(outcome);
        });
        answer.recv().unwrap_or_else(|_| Err(closed()))
    }

    /// The same without waiting: `then` is called once, by the thread that writes. It must be quick, since everybody waits for that
    /// thread.
    pub fn charge_then(&self, plan: Arc<SpendPlan>, now: Uptime, then: impl FnOnce(Result<Charged, Refusal>) + Send + 'static) {
        self.inbox.charge(Asked { plan, now, reply: Reply::new(then) });
    }

    /// Keeps the signatures of a charged transaction for its retries. Returns at once; they are synced with the next commit, or
    /// soon. A crash before that only means to sign again, free of charge.
    pub fn record(&self, charged: &Charged, signatures: Vec<InputSignature>) {
        self.inbox.record((charged.number(), signatures));
    }

    /// Applies a manager's command; returns when its serial and its effect are on disk.
    ///
    /// # Errors
    /// `CommandSerialUsed`, `CommandBase`, `CommandRebase`, `CommandScope`, `CommandMalformed`, `LedgerStale`, `LedgerUnavailable`,
    /// `ShuttingDown`.
    pub fn apply(&self, command: VerifiedCommand, now: Uptime) -> Result<Applied, Refusal> {
        self.ask(|reply| self.inbox.order(Order::Apply { command, now, reply }))?
    }

    /// Locks a scope after a forgery; returns when that is on disk. A locked one stays as it is.
    ///
    /// # Errors
    /// `CommandScope`, `LedgerUnavailable`, `ShuttingDown`.
    pub fn lock(&self, scope: Scope, why: &str, now: Uptime) -> Result<(), Refusal> {
        let why = why.chars().take(writer::WHY_MAX).collect();
        self.ask(|reply| self.inbox.order(Order::Lock { scope, why, now, reply }))?
    }

    /// Gauges of all limits, the signer's first.
    #[must_use]
    pub fn levels(&self, now: Uptime) -> Vec<LimitLevel> {
        self.published().state.scopes.levels(&self.rules, now.as_millis())
    }

    /// The journal's last entry.
    #[must_use]
    pub fn head(&self) -> Head {
        self.published().head
    }

    /// Sums over all time.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.published().state.totals()
    }

    /// What charges nothing, with the reason: the signer when a re-base is needed, frozen and locked scopes.
    #[must_use]
    pub fn frozen(&self) -> Vec<String> {
        let published = self.published();
        let held = published.rebase.iter().map(|needed| format!("signer: {}", needed.why));
        held.chain(published.state.frozen()).collect()
    }

    /// The anchor's kind and what it proved, for people.
    #[must_use]
    pub fn anchor(&self) -> String {
        self.published().anchor.clone()
    }

    /// Whether nothing is charged because ledger and anchor do not agree.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.published().rebase.is_some()
    }

    /// What a re-base must answer, when one is needed.
    #[must_use]
    pub fn rebase_needed(&self) -> Option<RebaseNeeded> {
        self.published().rebase.clone()
    }

    /// The challenge of the last re-base, which commands must name.
    #[must_use]
    pub fn base(&self) -> Option<Challenge> {
        self.published().state.base
    }

    /// The highest index of each branch of a wallet that any charged transaction used.
    #[must_use]
    pub fn last_used(&self, wallet: &str) -> Vec<Position> {
        let published = self.published();
        let branches: Option<&BTreeMap<u32, u32>> = published.state.last_used.get(wallet);
        branches.into_iter().flatten().map(|(branch, index)| Position { branch: *branch, index: *index }).collect()
    }

    /// Finishes what was asked before, notes the buckets' levels, trims the anchor's bound and marks it clean.
    /// Whatever is asked later is refused with `ShuttingDown`. Dropping a ledger without this is a crash.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger or the anchor cannot be written; the next start then counts as one after a crash.
    pub fn stop(&self, now: Uptime) -> Result<(), LedgerError> {
        let stopped = self.ask(|reply| self.inbox.order(Order::Stop { now, reply }));
        self.join();
        stopped.unwrap_or(Ok(()))
    }

    fn join(&self) {
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last who held the ledger may be the writer itself, with an answer that it gave.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }

    fn ask<T>(&self, put: impl FnOnce(SyncSender<T>) -> Result<(), Closed>) -> Result<T, Refusal> {
        let (reply, answer) = sync_channel(1);
        put(reply).map_err(|Closed| closed())?;
        answer.recv().map_err(|_| closed())
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = self.inbox.order(Order::Abandon);
        self.join();
    }
}

#[cfg(test)]
mod tests;
