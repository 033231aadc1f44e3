//! The observer can say no, and its M is the M of trying everything.

use proptest::prelude::*;

use crate::observer::{FORMS_DIFFER, Grant, Observer, Rate, most_that_can_leave};

fn grant(transaction: u64, spends: u32, outflow_sat: u64) -> Grant {
    Grant { transaction, wallet: 0, spends, outflow_sat }
}

/// M by trying every set.
fn by_trying_every_set(grants: &[Grant]) -> u64 {
    let sets = 0..1_u32 << grants.len();
    let worth = |set: u32| {
        let chosen: Vec<&Grant> = (0..grants.len()).filter(|n| set & (1 << n) != 0).map(|n| &grants[n]).collect();
        let clash = |a: &Grant, b: &Grant| a.transaction != b.transaction && a.spends & b.spends != 0;
        let possible = chosen.iter().all(|a| chosen.iter().all(|b| !clash(a, b)));
        possible.then(|| chosen.iter().map(|g| g.outflow_sat).sum::<u64>())
    };
    sets.filter_map(worth).max().unwrap()
}

proptest! {
    #[test]
    fn the_most_that_can_leave_is_that_of_trying_every_set(
        found in prop::collection::vec((1..64_u32, 0..100_u64, 0..100_u64), 0..10),
    ) {
        let mut grants = vec![];
        for (n, (spends, hot, warm)) in (0..).zip(found) {
            grants.push(grant(n, spends, hot));
            if warm > 50 && grants.len() < 12 {
                grants.push(Grant { wallet: 1, ..grant(n, spends, warm) });
            }
        }
        prop_assert_eq!(most_that_can_leave(&grants), by_trying_every_set(&grants));
    }
}

/// A grant, a pause, or another rate.
fn any_moment() -> impl Strategy<Value = (u32, u64, u64, Option<Rate>)> {
    let rates = (1..50_u64, prop::sample::select(vec![1_000, 3_000, 7_000]), 1..200_u64);
    let rate = rates.prop_map(|(amount_sat, per_ms, burst_sat)| Rate { amount_sat, per_ms, burst_sat });
    (1..256_u32, 0..150_u64, prop_oneof![Just(0), 0..20_000_u64], prop::option::weighted(0.2, rate))
}

proptest! {
    /// Whether the promise is kept or not: most of these streams break it at some point, and go on.
    #[test]
    fn the_form_that_needs_no_history_says_what_looking_at_every_stretch_says(moments in prop::collection::vec(any_moment(), 1..40)) {
        let mut observer = Observer::new(&[RATE], None);
        let mut now_ms = 0;
        for (n, (spends, sat, pause_ms, rate)) in (0..).zip(moments) {
            now_ms += pause_ms;
            if let Some(rate) = rate {
                observer.rates_change(&[rate], now_ms);
            }
            if let Err(broken) = observer.granted(grant(n, spends, sat), now_ms) {
                prop_assert!(!broken.contains(FORMS_DIFFER), "{broken}");
            }
        }
    }
}

const RATE: Rate = Rate { amount_sat: 1, per_ms: 1_000, burst_sat: 100 };

#[test]
fn a_millisecond_early_is_too_early() {
    for (at_ms, kept) in [(10_000, true), (9_999, false)] {
        let mut observer = Observer::new(&[RATE], None);
        observer.granted(grant(1, 1, 100), 0).unwrap();
        assert_eq!(observer.granted(grant(2, 2, 10), at_ms).is_ok(), kept);
    }
}

#[test]
fn what_excludes_each_other_counts_once_and_what_frees_a_rival_counts() {
    let mut observer = Observer::new(&[RATE], None);
    observer.granted(grant(1, 0b011, 50), 0).unwrap();
    observer.granted(grant(2, 0b110, 50), 0).unwrap();
    assert_eq!(observer.most(), 50);
    observer.granted(grant(3, 0b001, 50), 0).unwrap();
    assert_eq!(observer.most(), 100);
    assert!(observer.granted(grant(4, 0b1000, 1), 0).is_err());
}

#[test]
fn past_the_total_is_too_far_and_what_managers_add_is_not() {
    let mut observer = Observer::new(&[], Some(100));
    observer.granted(grant(1, 1, 100), 0).unwrap();
    assert!(observer.clone().granted(grant(2, 2, 1), 0).is_err());
    observer.total_added(1);
    observer.granted(grant(2, 2, 1), 0).unwrap();
    observer.total_lowered(Some(100), 50);
    assert!(observer.clone().granted(grant(3, 4, 1), 0).is_err());
    observer.total_set(5);
    observer.granted(grant(3, 4, 5), 0).unwrap();
    assert!(observer.granted(grant(4, 8, 1), 0).is_err());
}

#[test]
fn a_changed_rate_gives_no_second_burst() {
    let mut observer = Observer::new(&[RATE], None);
    observer.granted(grant(1, 1, 100), 0).unwrap();
    observer.rates_change(&[Rate { amount_sat: 10, per_ms: 7_000, burst_sat: 150 }], 3_500);
    // 3.5 sat of the old rate, 5 of the new one, and 50 more of burst.
    assert!(observer.clone().granted(grant(2, 2, 59), 7_000).is_err());
    observer.granted(grant(2, 2, 58), 7_000).unwrap();
}

#[test]
fn a_lowered_burst_does_not_judge_what_left_before_and_judges_what_leaves_after() {
    let mut observer = Observer::new(&[RATE], None);
    observer.granted(grant(1, 1, 100), 0).unwrap();
    observer.rates_change(&[Rate { burst_sat: 60, ..RATE }], 0);
    // It excludes the first: nothing more can leave.
    observer.granted(grant(2, 1, 30), 0).unwrap();
    assert!(observer.clone().granted(grant(3, 2, 1), 40_999).is_err());
    observer.granted(grant(3, 2, 1), 41_000).unwrap();
}
