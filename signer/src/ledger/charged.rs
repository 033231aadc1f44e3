//! Proof that a plan is charged, durably.

use std::sync::Arc;

use postern_protocol::reply::InputSignature;

use super::inbox::UnderWay;
use crate::analysis::SpendPlan;

/// A plan whose charge is on disk. Only the ledger makes one; the keystore signs nothing else.
#[derive(Debug, Clone)]
pub struct Charged {
    plan: Arc<SpendPlan>,
    number: u64,
    increase_sat: u64,
    repeat: bool,
    signatures: Option<Vec<InputSignature>>,
    /// While there is one, the ledger knows that signatures may follow.
    _under_way: UnderWay,
}

impl Charged {
    pub(super) fn new(plan: Arc<SpendPlan>, number: u64, increase_sat: u64, under_way: UnderWay) -> Self {
        Self { plan, number, increase_sat, repeat: false, signatures: None, _under_way: under_way }
    }

    pub(super) fn repeated(plan: Arc<SpendPlan>, number: u64, signatures: Option<Vec<InputSignature>>, under_way: UnderWay) -> Self {
        Self { plan, number, increase_sat: 0, repeat: true, signatures, _under_way: under_way }
    }

    /// For unit tests of the rooms behind the ledger.
    #[cfg(test)]
    #[must_use]
    pub fn for_tests(plan: Arc<SpendPlan>) -> Self {
        Self::new(plan, 0, 0, UnderWay::default())
    }

    /// What to sign.
    #[must_use]
    pub fn plan(&self) -> &Arc<SpendPlan> {
        &self.plan
    }

    /// The charge's number in the journal.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What it took out of the limits just now; 0 for a repeat.
    #[must_use]
    pub fn increase_sat(&self) -> u64 {
        self.increase_sat
    }

    /// Whether the transaction was charged before.
    #[must_use]
    pub fn is_repeat(&self) -> bool {
        self.repeat
    }

    /// The signatures of an earlier time, when there are any: give those out instead of signing again.
    #[must_use]
    pub fn signatures(&self) -> Option<&[InputSignature]> {
        self.signatures.as_deref()
    }
}
