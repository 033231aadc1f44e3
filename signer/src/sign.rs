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
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, PoisonError},
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
    keystore::{Keystore, answers},
    ledger::{Charged, Ledger},
    policy::rules::SpendRules,
    wallet::Wallet,
};

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
    turns: Turns,
}

impl SigningRoom {
    /// From wallets by name, and the ledger that charges them.
    #[must_use]
    pub fn new(wallets: BTreeMap<String, WalletRoom>, ledger: Arc<Ledger>, clock: Clock) -> Self {
        Self { wallets, ledger, clock, turns: Turns::default() }
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

    /// From a request to its signatures.
    ///
    /// # Errors
    /// The refusal of whichever room said no. Up to and including the charge nothing was signed; after it the charge stands.
    pub fn sign(&self, request: &SignRequest) -> Result<Signed, Refusal> {
        let room = self.wallet(&request.wallet)?;
        if let Some(pool) = &room.pool {
            pool.load(room)?;
        }
        let plan: SpendPlan = analysis::analyze(&room.wallet, &room.rules, &request.psbt)?;
        let unsigned_txid = plan.unsigned_txid();
        // The same request on another connection waits here, and finds the signatures when it is charged: nothing.
        let _turn = self.turns.take(unsigned_txid);
        let charged: Charged = self.ledger.charge(Arc::new(plan), self.clock.now())?;
        let signatures: Vec<InputSignature> = match charged.signatures() {
            Some(of_an_earlier_time) if answers(charged.plan().tasks(), of_an_earlier_time) => of_an_earlier_time.to_vec(),
            earlier => {
                let fresh = room.keystore.sign(&charged)?;
                if earlier.is_none() {
                    self.ledger.record(&charged, fresh.clone());
                }
                fresh
            }
        };
        self.note_used(room, &charged);
        Ok(Signed { unsigned_txid: unsigned_txid.to_byte_array(), signatures })
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

/// One at a time for each transaction, all transactions at once.
#[derive(Default)]
struct Turns {
    taken: Mutex<Taken>,
    free: Condvar,
}

#[derive(Default)]
struct Taken {
    by: BTreeSet<Txid>,
    waiting: usize,
}

impl Turns {
    fn take(&self, txid: Txid) -> Turn<'_> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while !taken.by.insert(txid) {
            taken.waiting = taken.waiting.saturating_add(1);
            taken = self.free.wait(taken).unwrap_or_else(PoisonError::into_inner);
            taken.waiting = taken.waiting.saturating_sub(1);
        }
        Turn { turns: self, txid }
    }
}

struct Turn<'t> {
    turns: &'t Turns,
    txid: Txid,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self.turns.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.by.remove(&self.txid);
        let wake = taken.waiting > 0;
        drop(taken);
        if wake {
            self.turns.free.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    #[test]
    fn the_same_transaction_is_worked_on_by_one_at_a_time_and_others_do_not_wait() {
        let turns = Turns::default();
        let (one, two) = (Txid::from_byte_array([1; 32]), Txid::from_byte_array([2; 32]));
        let held = turns.take(one);
        drop(turns.take(two));
        drop(held);
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _turn = turns.take(one);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(turns.taken.lock().unwrap().by.is_empty());
    }
}
