//! The whole way of a request, on one page:
//!
//! ```text
//! intake -> analysis -> ledger.charge (policy inside) -> keystore -> ledger.record -> reply
//! ```
//!
//! [`crate::intake`] made the [`SignRequest`]; the analysis makes the plan out of it, only the ledger makes a
//! [`Charged`] out of the plan, and only what is charged is signed. A crash after the charge costs budget, never money:
//! the same transaction is charged once for ever, so the retry is free.

mod pool;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bitcoin::{Txid, hashes::Hash};
use postern_protocol::{
    refusal::{Refusal, RefusalCode},
    reply::{InputSignature, Signed},
    request::SignRequest,
};

pub use self::pool::PoolRoom;
use crate::{
    analysis::{self, SpendPlan},
    clock::Clock,
    keystore::{Keystore, KeystoreError, answers},
    lane::Lane,
    ledger::{Charged, Ledger},
    policy::rules::SpendRules,
    wallet::Wallet,
};

/// A PSBT of up to this many bytes is analysed in some microseconds.
const QUICK_MAX: usize = 16 * 1024;

/// So many requests at most are charged and not answered yet; a stop waits for them, and for no others.
pub(crate) const UNDER_WAY_MAX: usize = 128;

/// A wallet with what it takes to spend from it.
pub struct WalletRoom {
    /// Its scripts.
    pub wallet: Arc<Wallet>,
    /// What its analysis accepts.
    pub rules: SpendRules,
    /// Where its keys are.
    pub keystore: Arc<dyn Keystore>,
    /// Most addresses that are handed out on each branch.
    pub addresses_max: u32,
    /// For a wallet of numbered keys.
    pub pool: Option<PoolRoom>,
}

/// Signs within the limits.
pub struct SigningRoom {
    wallets: BTreeMap<String, WalletRoom>,
    ledger: Arc<Ledger>,
    clock: Clock,
    turns: Turns<Work>,
}

impl SigningRoom {
    /// From wallets by name, and the ledger that charges them.
    #[must_use]
    pub fn new(wallets: BTreeMap<String, WalletRoom>, ledger: Arc<Ledger>, clock: Clock) -> Self {
        Self { wallets, ledger, clock, turns: Turns::new() }
    }

    /// All wallets.
    #[must_use]
    pub fn wallets(&self) -> &BTreeMap<String, WalletRoom> {
        &self.wallets
    }

    /// A wallet by its name.
    ///
    /// # Errors
    /// `wallet_unknown`.
    pub fn wallet(&self, name: &str) -> Result<&WalletRoom, Refusal> {
        self.wallets.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.wallets.keys().map(String::as_str).collect();
            let name: String = name.chars().take(64).collect();
            Refusal::new(RefusalCode::WalletUnknown, format!("no wallet {name:?}; there is {}", known.join(", ")))
        })
    }

    /// Whether a request takes this room so little time that whoever reads it may bring it here, to [`Self::sign`].
    pub(crate) fn is_quick(&self, request: &SignRequest) -> bool {
        let known = self.wallets.get(&request.wallet).is_some_and(|room| room.pool.as_ref().is_none_or(PoolRoom::is_loaded));
        known && request.psbt.len() <= QUICK_MAX
    }

    /// From a request to its signatures, or to the refusal of whichever room said no. Up to and including the charge nothing was
    /// signed; after it the charge stands. The request is analysed here and now; what follows waits on no thread. What may take long
    /// is left to `lane`.
    pub(crate) fn sign(self: &Arc<Self>, request: &SignRequest, lane: &Arc<Lane>, answer: Answer) {
        match self.plan(request) {
            Ok(plan) => {
                let work = Work { signing: Arc::clone(self), lane: Arc::clone(lane), plan: Arc::new(plan), answer };
                // The same request on another connection waits here, and finds the signatures when it is charged: nothing.
                match self.turns.take(work.plan.unsigned_txid(), work) {
                    Taken::Now(work) => work.charge(),
                    Taken::Later => {}
                    Taken::Never(work) => work.refuse_stopping(),
                }
            }
            Err(refusal) => answer(Err(refusal)),
        }
    }

    /// Charges nothing more: what waits for its turn is refused, and so is whatever comes later. What is charged goes on.
    pub(crate) fn stop(&self) {
        self.turns.stop().into_iter().for_each(Work::refuse_stopping);
    }

    fn plan(&self, request: &SignRequest) -> Result<SpendPlan, Refusal> {
        let room = self.wallet(&request.wallet)?;
        if let Some(pool) = &room.pool {
            pool.load(room)?;
        }
        analysis::analyze(&room.wallet, &room.rules, &request.psbt)
    }

    /// Moves the wallet's window of recognised scripts past what was just spent and what returns.
    fn note_used(&self, room: &WalletRoom, charged: &Charged) {
        let plan = charged.plan();
        let change = plan.change().iter().map(|change| change.position);
        for position in plan.inputs().iter().map(|input| input.position).chain(change) {
            room.wallet.note_used(position);
        }
    }
}

/// Called once with what came of a request.
pub(crate) type Answer = Box<dyn FnOnce(Result<Signed, Refusal>) + Send>;

/// A request whose plan is made.
struct Work {
    signing: Arc<SigningRoom>,
    lane: Arc<Lane>,
    plan: Arc<SpendPlan>,
    answer: Answer,
}

impl Work {
    /// It is its turn.
    fn charge(self) {
        let (signing, plan) = (Arc::clone(&self.signing), Arc::clone(&self.plan));
        let turn = Turn { signing: Arc::clone(&signing), txid: plan.unsigned_txid() };
        signing.ledger.charge_then(plan, signing.clock.now(), move |outcome| self.charged(turn, outcome));
    }

    /// On the ledger's thread, for which everybody waits.
    fn charged(self, turn: Turn, outcome: Result<Charged, Refusal>) {
        match (outcome, self.signing.wallet(self.plan.wallet()).map(|room| Arc::clone(&room.keystore))) {
            (Ok(charged), Ok(keystore)) if charged.signatures().is_none() => {
                let then = move |charged, outcome| match outcome {
                    Some(Ok(fresh)) => self.signed(turn, charged, fresh),
                    // It may have to wait for the token, or to write to the log.
                    outcome => self.later(move |work| work.sign(turn, charged, outcome)),
                };
                keystore.sign_soon(charged, Box::new(then));
            }
            (Ok(charged), Ok(_)) => self.later(move |work| work.repeat(turn, charged)),
            (Err(refusal), _) | (_, Err(refusal)) => self.later(move |work| work.refuse(turn, refusal)),
        }
    }

    fn later(self, task: impl FnOnce(Self) + Send + 'static) {
        let lane = Arc::clone(&self.lane);
        lane.push(Box::new(move || task(self)));
    }

    /// Gives out the signatures of an earlier time, or makes them again.
    fn repeat(self, turn: Turn, charged: Charged) {
        match charged.signatures() {
            Some(earlier) if answers(charged.plan().tasks(), earlier) => {
                let earlier = earlier.to_vec();
                self.done(turn, charged, earlier);
            }
            _ => self.sign(turn, charged, None),
        }
    }

    /// Signs on this thread, if nothing was tried yet.
    fn sign(self, turn: Turn, charged: Charged, tried: Option<Result<Vec<InputSignature>, KeystoreError>>) {
        let outcome = match (tried, self.signing.wallet(charged.plan().wallet())) {
            (Some(outcome), _) => outcome.map_err(Refusal::from),
            (None, Ok(room)) => room.keystore.sign(&charged).map_err(Refusal::from),
            (None, Err(refusal)) => Err(refusal),
        };
        match outcome {
            Ok(fresh) => self.signed(turn, charged, fresh),
            Err(refusal) => self.refuse(turn, refusal),
        }
    }

    fn signed(self, turn: Turn, charged: Charged, fresh: Vec<InputSignature>) {
        if charged.signatures().is_none() {
            self.signing.ledger.record(&charged, fresh.clone());
        }
        self.done(turn, charged, fresh);
    }

    fn done(self, turn: Turn, charged: Charged, signatures: Vec<InputSignature>) {
        let unsigned_txid = charged.plan().unsigned_txid().to_byte_array();
        if let Ok(room) = self.signing.wallet(charged.plan().wallet()) {
            self.signing.note_used(room, &charged);
        }
        drop((charged, turn));
        (self.answer)(Ok(Signed { unsigned_txid, signatures }));
    }

    fn refuse_stopping(self) {
        let refusal = Refusal::new(RefusalCode::ShuttingDown, "the signer is stopping; nothing was charged, ask again when it runs");
        (self.answer)(Err(refusal));
    }

    fn refuse(self, turn: Turn, refusal: Refusal) {
        drop(turn);
        (self.answer)(Err(refusal));
    }
}

/// One at a time for each transaction, and not more than [`UNDER_WAY_MAX`] at once.
struct Turns<W> {
    order: Mutex<Order<W>>,
}

struct Order<W> {
    /// Those whose turn it is, and who waits for each to end.
    taken: BTreeMap<Txid, VecDeque<W>>,
    /// Who waits for any of them to end.
    queue: VecDeque<(Txid, W)>,
    stopping: bool,
}

/// What becomes of whoever asks for a turn.
#[derive(Debug, PartialEq, Eq)]
enum Taken<W> {
    Now(W),
    /// It is kept until then.
    Later,
    /// There are no turns any more.
    Never(W),
}

impl<W> Turns<W> {
    fn new() -> Self {
        Self { order: Mutex::new(Order { taken: BTreeMap::new(), queue: VecDeque::new(), stopping: false }) }
    }

    fn lock(&self) -> MutexGuard<'_, Order<W>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, txid: Txid, work: W) -> Taken<W> {
        let mut order = self.lock();
        if order.stopping {
            return Taken::Never(work);
        }
        let full = order.taken.len() >= UNDER_WAY_MAX;
        match order.taken.get_mut(&txid) {
            Some(waiting) => waiting.push_back(work),
            None if full => order.queue.push_back((txid, work)),
            None => {
                order.taken.insert(txid, VecDeque::new());
                return Taken::Now(work);
            }
        }
        Taken::Later
    }

    /// A turn ends; the work whose turn is now.
    fn next(&self, txid: Txid) -> Option<(Txid, W)> {
        let mut order = self.lock();
        if let Some(work) = order.taken.get_mut(&txid)?.pop_front() {
            return Some((txid, work));
        }
        order.taken.remove(&txid);
        while let Some((txid, work)) = order.queue.pop_front() {
            match order.taken.get_mut(&txid) {
                // The same transaction was asked for twice while it waited.
                Some(waiting) => waiting.push_back(work),
                None => {
                    order.taken.insert(txid, VecDeque::new());
                    return Some((txid, work));
                }
            }
        }
        None
    }

    /// No more turns; whoever waited for one.
    fn stop(&self) -> Vec<W> {
        let mut order = self.lock();
        order.stopping = true;
        let same = order.taken.values_mut().flat_map(std::mem::take).collect::<Vec<_>>();
        same.into_iter().chain(std::mem::take(&mut order.queue).into_iter().map(|(_, work)| work)).collect()
    }
}

/// A turn. When it ends, the next one begins.
struct Turn {
    signing: Arc<SigningRoom>,
    txid: Txid,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((_, next)) = self.signing.turns.next(self.txid) {
            next.charge();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txid(n: u8) -> Txid {
        Txid::from_byte_array([n; 32])
    }

    #[test]
    fn the_same_transaction_is_worked_on_by_one_at_a_time_and_others_do_not_wait() {
        let turns = Turns::new();
        let (one, two) = (txid(1), txid(2));
        assert_eq!(turns.take(one, 1), Taken::Now(1));
        assert_eq!(turns.take(one, 2), Taken::Later);
        assert_eq!(turns.take(two, 3), Taken::Now(3));
        assert_eq!(turns.take(one, 4), Taken::Later);
        assert_eq!(turns.next(one), Some((one, 2)), "in the order in which they came");
        assert_eq!(turns.take(one, 5), Taken::Later, "the second has its turn");
        assert_eq!((turns.next(one), turns.next(one), turns.next(one)), (Some((one, 4)), Some((one, 5)), None));
        assert_eq!(turns.next(two), None);
        assert!(turns.lock().taken.is_empty());
        assert_eq!(turns.take(one, 6), Taken::Now(6));
    }

    #[test]
    fn no_more_are_charged_than_a_stop_can_wait_for_and_it_refuses_those_that_wait() {
        let turns = Turns::new();
        let many = u8::try_from(UNDER_WAY_MAX).unwrap();
        (0..many).for_each(|n| assert_eq!(turns.take(txid(n), n), Taken::Now(n)));
        // Two of one transaction, one of another, and one more of a transaction that has its turn.
        for (n, work) in [(200, 200), (200, 201), (202, 202), (0, 203)] {
            assert_eq!(turns.take(txid(n), work), Taken::Later);
        }
        assert_eq!(turns.next(txid(0)), Some((txid(0), 203)));
        assert_eq!(turns.next(txid(0)), Some((txid(200), 200)));
        assert_eq!(turns.next(txid(1)), Some((txid(202), 202)), "the same transaction waits for itself");
        assert_eq!(turns.lock().taken.len(), UNDER_WAY_MAX);
        assert_eq!(turns.take(txid(204), 204), Taken::Later);
        assert_eq!(turns.stop(), [201, 204]);
        assert_eq!(turns.take(txid(205), 205), Taken::Never(205));
        assert_eq!(turns.next(txid(2)), None);
    }
}
