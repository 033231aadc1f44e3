//! How many bytes of requests the daemon holds at once. Peers can announce more than there is memory; they get what
//! they really sent, up to a bound, and gates never take what operators need to freeze the signer.

use std::sync::{Arc, Mutex, PoisonError};

use crate::intake::Role;

/// The bound, and what is taken of it.
pub(super) struct Budget {
    total: usize,
    for_gates: usize,
    taken: Mutex<usize>,
}

impl Budget {
    /// Bytes for everybody, and how many of them gates may take.
    pub(super) fn new(total: usize, for_gates: usize) -> Arc<Self> {
        Arc::new(Self { total, for_gates, taken: Mutex::new(0) })
    }

    /// Nothing yet, to grow.
    pub(super) fn hold(self: &Arc<Self>, role: Role) -> Held {
        Held { budget: Arc::clone(self), role, bytes: 0 }
    }
}

/// Bytes taken from the budget; given back when dropped.
pub(super) struct Held {
    budget: Arc<Budget>,
    role: Role,
    bytes: usize,
}

impl Held {
    /// Takes more, until `bytes` are held; false when they are not there. Never gives back.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let cap = if self.role == Role::Operator { self.budget.total } else { self.budget.for_gates };
        let mut taken = self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = taken.saturating_add(more);
        if more > 0 && sum > cap {
            return false;
        }
        *taken = sum;
        self.bytes = self.bytes.saturating_add(more);
        true
    }

    /// How many bytes are held.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner);
        *taken = taken.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_leave_room_for_operators_and_what_is_dropped_comes_back() {
        let budget = Budget::new(100, 80);
        let mut gate = budget.hold(Role::Gate);
        assert!(gate.grow(80));
        assert!(!gate.grow(81));
        assert!(!budget.hold(Role::Gate).grow(1));
        let mut operator = budget.hold(Role::Operator);
        assert!(operator.grow(20));
        assert!(!operator.grow(21));
        drop(gate);
        assert!(operator.grow(100));
        drop(operator);
        assert!(budget.hold(Role::Operator).grow(100));
    }
}
