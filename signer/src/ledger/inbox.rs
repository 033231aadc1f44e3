//! What waits for the writer, and when it is worth its while to look.
//!
//! A sync costs more processor time than verifying a signature or two, and as much for one charge as for many. So while earlier
//! charges are still being signed, a charge waits until as many wait as are being signed: the token has enough to do meanwhile, and
//! would not have come to the new ones anyway. A charge that comes alone never waits.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::SyncSender},
    time::{Duration, Instant},
};

use postern_protocol::{
    command::Scope,
    refusal::{Refusal, RefusalCode},
    reply::{Applied, InputSignature},
};

use super::{Charged, LedgerError, VerifiedCommand};
use crate::{analysis::SpendPlan, clock::Uptime};

/// Most charges in one transaction.
const BATCH_MAX: usize = 512;
/// A charge waits no longer than this while more are being signed than wait: the token may hang, or its askers may be gone.
const COMPANY_PATIENCE: Duration = Duration::from_millis(5);
/// Signatures wait this long for a charge to share its sync with.
const RECORD_PATIENCE: Duration = Duration::from_millis(50);

/// A charge that is asked for.
pub(super) struct Asked {
    pub(super) plan: Arc<SpendPlan>,
    pub(super) now: Uptime,
    pub(super) reply: Reply,
}

/// Whoever asked hears of it once: what was decided, or, when this is dropped, that nobody will decide.
pub(super) struct Reply(Option<Answer>);

type Answer = Box<dyn FnOnce(Result<Charged, Refusal>) + Send>;

impl Reply {
    pub(super) fn new(answer: impl FnOnce(Result<Charged, Refusal>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    pub(super) fn give(mut self, outcome: Result<Charged, Refusal>) {
        if let Some(answer) = self.0.take() {
            answer(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(closed()));
        }
    }
}

/// What is asked of a ledger that is closed.
pub(super) fn closed() -> Refusal {
    Refusal::new(RefusalCode::ShuttingDown, "the ledger is closed")
}

/// Signatures to remember, and the number of their charge.
pub(super) type Record = (u64, Vec<InputSignature>);

/// What else the writer does; none of it waits for charges.
pub(super) enum Order {
    Apply {
        command: VerifiedCommand,
        now: Uptime,
        reply: SyncSender<Result<Applied, Refusal>>,
    },
    Lock {
        scope: Scope,
        why: String,
        now: Uptime,
        reply: SyncSender<Result<(), Refusal>>,
    },
    Stop {
        now: Uptime,
        reply: SyncSender<Result<(), LedgerError>>,
    },
    /// The ledger was dropped: no clean stop.
    Abandon,
    #[cfg(test)]
    Test(Box<dyn FnOnce(&mut super::writer::Writer) + Send>),
}

/// What the writer does next.
pub(super) enum Next {
    /// With one sync, together with the records that wait; no charges: the records alone.
    Charges(Vec<Asked>),
    Order(Order),
}

/// Held by whoever has a charge that is not signed yet.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(#[allow(dead_code, reason = "it is counted, not read")] Arc<()>);

/// The writer has ended.
#[derive(Debug)]
pub(super) struct Closed;

pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    under_way: UnderWay,
    patience: Duration,
}

#[derive(Default)]
struct Waiting {
    charges: Vec<Asked>,
    records: Vec<Record>,
    orders: VecDeque<Order>,
    /// How many charges wake the writer.
    enough: usize,
    closed: bool,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { waiting: Mutex::default(), filled: Condvar::new(), under_way: UnderWay::default(), patience: COMPANY_PATIENCE }
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues it; one that comes too late hears so.
    pub(super) fn charge(&self, asked: Asked) {
        let mut waiting = self.lock();
        if waiting.closed {
            drop(waiting);
            return drop(asked);
        }
        waiting.charges.push(asked);
        let wake = waiting.charges.len() == waiting.enough;
        drop(waiting);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Wakes nobody: while a charge is under way, the writer looks after its records by itself.
    pub(super) fn record(&self, record: Record) {
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.records.push(record);
        }
    }

    pub(super) fn order(&self, order: Order) -> Result<(), Closed> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Closed);
        }
        waiting.orders.push_back(order);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Nobody is answered any more. What waits is dropped, and whoever waits for an answer sees that.
    pub(super) fn close(&self) {
        let dropped = std::mem::replace(&mut *self.lock(), Waiting { closed: true, ..Waiting::default() });
        // They are told without the lock.
        drop(dropped);
    }

    /// For a charge that is answered.
    pub(super) fn under_way(&self) -> UnderWay {
        self.under_way.clone()
    }

    fn count_under_way(&self) -> usize {
        Arc::strong_count(&self.under_way.0).saturating_sub(1)
    }

    pub(super) fn take_records(&self) -> Vec<Record> {
        std::mem::take(&mut self.lock().records)
    }

    /// All charges that wait, however few.
    pub(super) fn take_charges(&self) -> Vec<Asked> {
        std::mem::take(&mut self.lock().charges)
    }

    /// Waits for something to do.
    pub(super) fn next(&self) -> Next {
        let mut waiting = self.lock();
        loop {
            if let Some(order) = waiting.orders.pop_front() {
                return Next::Order(order);
            }
            if !waiting.charges.is_empty() {
                return self.gather(waiting);
            }
            waiting.enough = 1;
            if waiting.records.is_empty() && self.count_under_way() == 0 {
                waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (again, time) = self.filled.wait_timeout(waiting, RECORD_PATIENCE).unwrap_or_else(PoisonError::into_inner);
            waiting = again;
            if time.timed_out() && waiting.charges.is_empty() && waiting.orders.is_empty() && !waiting.records.is_empty() {
                return Next::Charges(Vec::new());
            }
        }
    }

    /// The first charge is here: waits while more are being signed than wait.
    fn gather(&self, mut waiting: MutexGuard<'_, Waiting>) -> Next {
        let started = Instant::now();
        loop {
            let (charges, under_way) = (waiting.charges.len(), self.count_under_way());
            let left = self.patience.saturating_sub(started.elapsed());
            if charges >= under_way.min(BATCH_MAX) || left.is_zero() || !waiting.orders.is_empty() {
                waiting.enough = 0;
                return Next::Charges(waiting.charges.drain(..charges.min(BATCH_MAX)).collect());
            }
            // Each that comes is most often one that was being signed.
            waiting.enough = charges.saturating_add(under_way).div_ceil(2).min(BATCH_MAX);
            waiting = self.filled.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{sync::mpsc::sync_channel, thread};

    use super::*;

    /// As patient as a test needs.
    fn inbox() -> Inbox {
        Inbox { patience: Duration::from_secs(600), ..Inbox::default() }
    }

    fn ask(inbox: &Inbox) {
        let plan = Arc::new(SpendPlan::for_tests("hot", &[], &[], 1, 0));
        inbox.charge(Asked { plan, now: Uptime::default(), reply: Reply::new(drop) });
    }

    fn charges(next: Next) -> usize {
        match next {
            Next::Charges(charges) => charges.len(),
            Next::Order(_) => panic!("an order"),
        }
    }

    #[test]
    fn a_charge_that_comes_alone_does_not_wait() {
        let inbox = inbox();
        ask(&inbox);
        assert_eq!(charges(inbox.next()), 1);
    }

    #[test]
    fn a_charge_waits_while_more_are_being_signed_than_wait() {
        let inbox = inbox();
        let signing: Vec<UnderWay> = (0..3).map(|_| inbox.under_way()).collect();
        thread::scope(|scope| {
            let writer = scope.spawn(|| charges(inbox.next()));
            (0..3).for_each(|_| ask(&inbox));
            assert_eq!(writer.join().unwrap(), 3);
        });
        drop(signing);
    }

    #[test]
    fn an_order_waits_for_no_charges() {
        let inbox = inbox();
        let _signing = [inbox.under_way(), inbox.under_way()];
        thread::scope(|scope| {
            let writer = scope.spawn(|| while !matches!(inbox.next(), Next::Order(Order::Abandon)) {});
            ask(&inbox);
            inbox.order(Order::Abandon).unwrap();
            writer.join().unwrap();
        });
    }

    #[test]
    fn records_are_written_although_no_charge_comes() {
        let inbox = inbox();
        let signing = inbox.under_way();
        thread::scope(|scope| {
            let writer = scope.spawn(|| charges(inbox.next()));
            inbox.record((1, Vec::new()));
            drop(signing);
            assert_eq!(writer.join().unwrap(), 0);
        });
        assert_eq!(inbox.take_records().len(), 1);
    }

    #[test]
    fn whoever_waits_hears_that_nobody_will_answer() {
        let inbox = inbox();
        let (reply, answer) = sync_channel(1);
        let plan = Arc::new(SpendPlan::for_tests("hot", &[], &[], 1, 0));
        let ask = || {
            let reply = reply.clone();
            inbox.charge(Asked { plan: Arc::clone(&plan), now: Uptime::default(), reply: Reply::new(move |o| reply.send(o).unwrap()) });
        };
        ask();
        inbox.close();
        assert_eq!(answer.recv().unwrap().unwrap_err().code, RefusalCode::ShuttingDown);
        ask();
        assert_eq!(answer.recv().unwrap().unwrap_err().code, RefusalCode::ShuttingDown);
        assert!(inbox.order(Order::Abandon).is_err());
    }
}
