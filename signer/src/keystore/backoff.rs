//! Waiting longer after each failure, up to a cap, never in step with others.

use std::time::Duration;

use rand::Rng as _;

/// Exponential back-off with jitter: each delay is between half and all of twice the one before.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first }
    }

    /// How long to wait now.
    pub(super) fn next_delay(&mut self) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.cap);
        whole.mul_f64(rand::thread_rng().gen_range(0.5..=1.0))
    }

    /// After a success.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_start_again_after_a_success() {
        let (first, cap) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, cap);
        let delays: Vec<Duration> = (0..40).map(|_| backoff.next_delay()).collect();
        assert!(delays.iter().all(|delay| *delay >= first / 2 && *delay <= cap));
        assert!(delays[10..].iter().all(|delay| *delay >= cap / 2));
        backoff.reset();
        assert!(backoff.next_delay() <= first);
    }
}
