//! The promise, checked from the outside: from nothing but the list of what was charged and when.

use proptest::prelude::*;

use super::*;

/// What an independent observer writes down.
#[derive(Debug, Clone)]
struct Signed {
    wallet: usize,
    txid: Txid,
    /// Everything it spends, as bits.
    spends: u32,
    outflow: u64,
    /// Time that the signer had seen pass until then, all runs together.
    at_ms: u64,
}

const WALLETS: [&str; 2] = [HOT, "warm"];

/// The largest amount of these that can confirm together: every set is tried in which no two different transactions spend
/// the same coin.
fn most_that_can_confirm(signed: &[Signed]) -> u64 {
    fn best(rest: &[Signed], chosen: &mut Vec<(Txid, u32)>) -> u64 {
        let Some((first, rest)) = rest.split_first() else { return 0 };
        let without = best(rest, chosen);
        if chosen.iter().any(|(txid, spends)| *txid != first.txid && spends & first.spends != 0) {
            return without;
        }
        chosen.push((first.txid, first.spends));
        let with = first.outflow + best(rest, chosen);
        chosen.pop();
        without.max(with)
    }
    best(signed, &mut Vec::new())
}

/// Over any stretch of time, what can confirm grows by at most burst + rate × length; and it never passes the total.
fn check_promise(signed: &[Signed], limits: &Limits) -> Result<(), TestCaseError> {
    let most: Vec<u64> = (0..=signed.len()).map(|n| most_that_can_confirm(&signed[..n])).collect();
    if let Some(total) = limits.total_sat {
        prop_assert!(most[signed.len()] <= total, "{} can confirm, the total is {total}", most[signed.len()]);
    }
    for rate in &limits.rates {
        for from in 0..signed.len() {
            for to in from..signed.len() {
                let length = u128::from(signed[to].at_ms - signed[from].at_ms);
                let grown = u128::from(most[to + 1] - most[from]) * u128::from(rate.per_ms);
                let allowed = u128::from(rate.burst_sat) * u128::from(rate.per_ms) + u128::from(rate.amount_sat) * length;
                prop_assert!(grown <= allowed, "charges {from} to {to} of {signed:?}");
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone)]
enum Step {
    /// Asks for a transaction: wallet, coins as bits, outflow, salt.
    Ask(usize, u32, u64, u32),
    /// Asks again for an earlier one.
    Again(usize),
    /// Lets time pass.
    Pass(u64),
    /// Asks again for the last one, by a clock that is late.
    Late(u64),
    Crash,
    Stop,
    /// The configuration states other limits from the next start on.
    Configure(Limits),
    /// The disk as it was at the last stop or crash but this many is put back.
    Restore(usize),
}

/// Coins 0 to 2 are the first wallet's, 3 to 5 the second's; a transaction may spend both's.
const COINS: u32 = 6;
const OWN: [u32; 2] = [0b000_111, 0b111_000];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..2_usize, 1..(1_u32 << COINS), 1..60_u64, 0..3_u32).prop_map(|(w, c, s, salt)| Step::Ask(w, c, s, salt)),
        2 => (0..20_usize).prop_map(Step::Again),
        4 => (0..60_000_u64).prop_map(Step::Pass),
        1 => (0..60_000_u64).prop_map(Step::Late),
        1 => Just(Step::Crash),
        1 => Just(Step::Stop),
        1 => (0..3_usize).prop_map(Step::Restore),
        1 => some_limits().prop_map(Step::Configure),
    ]
}

fn request(wallet: usize, spends: u32, outflow: u64, salt: u32) -> Option<SpendPlan> {
    let bits = |mask: u32| (0..COINS).filter(|n| mask & (1 << n) != 0).map(|n| coin(u8::try_from(n).unwrap())).collect::<Vec<_>>();
    let (own, foreign) = (bits(spends & OWN[wallet]), bits(spends & !OWN[wallet]));
    (!own.is_empty()).then(|| SpendPlan::for_tests(WALLETS[wallet], &own, &foreign, outflow, salt))
}

fn play(steps: &[Step], signer: &Limits, hot: &Limits, anchor: Option<&MemoryLabel>) -> Result<(), TestCaseError> {
    let folder = folder();
    let mut rules = rules(signer.clone());
    rules.wallets.get_mut(HOT).unwrap().limits = hot.clone();
    let open = |rules: &PolicyRules| {
        Ledger::open(options(&folder, rules.clone()), anchor.map_or(Box::new(NoAnchor), |label| label.anchor())).unwrap()
    };
    let mut ledger = open(&rules);
    let mut copies = vec![snapshot(&folder)];
    let mut signed: Vec<Signed> = Vec::new();
    let mut asked: Vec<(usize, Arc<SpendPlan>)> = Vec::new();
    // Time of this run; the latest that the ledger was told in it; time of all runs before it.
    let (mut now, mut seen, mut before) = (0_u64, 0_u64, 0_u64);
    let mut restored = false;
    for step in steps {
        let ask = match step {
            Step::Ask(wallet, spends, outflow, salt) => request(*wallet, *spends, *outflow, *salt).map(|p| (*wallet, Arc::new(p))),
            Step::Again(n) => asked.get(*n).cloned(),
            Step::Pass(ms) => {
                now += ms;
                None
            }
            Step::Configure(limits) => {
                rules.signer = limits.clone();
                None
            }
            Step::Late(_) => asked.last().cloned(),
            Step::Crash | Step::Stop | Step::Restore(_) => {
                if let Step::Stop = step {
                    ledger.stop(at(now)).unwrap();
                    seen = seen.max(now);
                }
                drop(ledger);
                if let Step::Restore(back) = step {
                    restored = true;
                    let back = copies.len().saturating_sub(1).saturating_sub(*back);
                    restore(&folder, &copies[back]);
                }
                copies.push(snapshot(&folder));
                (before, now, seen) = (before + seen, 0, 0);
                ledger = open(&rules);
                None
            }
        };
        let Some((wallet, plan)) = ask else { continue };
        let told = if let Step::Late(ms) = step { now.saturating_sub(*ms) } else { now };
        seen = seen.max(told);
        asked.push((wallet, Arc::clone(&plan)));
        let known = signed.iter().any(|s| s.txid == plan.unsigned_txid() && s.wallet == wallet);
        if let Ok(charged) = ledger.charge(Arc::clone(&plan), at(told)) {
            prop_assert!(!charged.is_repeat() || known);
            if !known && signed.len() < 14 {
                let spends = plan.transaction().input.iter().fold(0, |mask, i| mask | 1 << i.previous_output.vout);
                let (txid, outflow) = (plan.unsigned_txid(), plan.outflow_sat());
                signed.push(Signed { wallet, txid, spends, outflow, at_ms: before + seen });
            } else if !known {
                break;
            }
        }
    }
    // An old ledger without an anchor has forgotten sums, and nobody can notice. The rates hold even so.
    let promised = |limits: &Limits| Limits { total_sat: limits.total_sat.filter(|_| anchor.is_some() || !restored), ..limits.clone() };
    check_promise(&signed, &promised(signer))?;
    let hots: Vec<Signed> = signed.iter().filter(|s| s.wallet == 0).cloned().collect();
    check_promise(&hots, &promised(hot))?;
    drop(ledger);
    verify(folder.path()).unwrap();
    Ok(())
}

fn some_limits() -> impl Strategy<Value = Limits> {
    let rate = (1..20_u64, 1_000..60_000_u64, 30..150_u64).prop_map(|(amount, per, burst)| rate(amount, per, burst));
    (prop::collection::vec(rate, 0..3), prop::option::of(50..600_u64)).prop_map(|(rates, total)| limits(&rates, total))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_can_confirm_never_grows_faster_than_the_rates_nor_past_the_total(
        steps in prop::collection::vec(step(), 1..60), signer in some_limits(), hot in some_limits(),
    ) {
        play(&steps, &signer, &hot, None)?;
    }

    #[test]
    fn with_an_anchor_the_total_holds_for_old_disks_put_back_as_well(
        steps in prop::collection::vec(step(), 1..60), signer in some_limits(), hot in some_limits(),
    ) {
        play(&steps, &signer, &hot, Some(&MemoryLabel::default()))?;
    }
}

#[test]
fn the_check_of_the_promise_finds_a_broken_one() {
    let one = |spends, outflow, at_ms, n| Signed { wallet: 0, txid: Txid::from_byte_array([n; 32]), spends, outflow, at_ms };
    let limits = limits(&[rate(1, 1_000, 100)], Some(300));
    let fine = [one(1, 100, 0, 1), one(1, 100, 0, 2), one(2, 10, 10_000, 3)];
    assert!(check_promise(&fine, &limits).is_ok());
    assert!(check_promise(&[one(1, 100, 0, 1), one(2, 10, 9_999, 2)], &limits).is_err(), "a millisecond early");
    let slow = [one(1, 100, 0, 1), one(2, 100, 1_000_000, 2), one(4, 100, 2_000_000, 3), one(8, 1, 3_000_000, 4)];
    assert!(check_promise(&slow[..3], &limits).is_ok());
    assert!(check_promise(&slow, &limits).is_err(), "past the total");
}
