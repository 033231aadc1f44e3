#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bitcoin::{OutPoint, Txid, hashes::Hash as _};
use postern_protocol::{
    command::{Rate, Scope},
    refusal::{Refusal, RefusalCode, RefusalKind},
};
use proptest::prelude::*;

use super::{
    rules::{Destinations, Limits, PolicyRules, Raise, WalletPolicy},
    *,
};
use crate::{analysis::SpendPlan, clock::Uptime};

const MINUTE: u64 = 60_000;

fn rate(amount_sat: u64, per_ms: u64, burst_sat: u64) -> Rate {
    Rate { amount_sat, per_ms, burst_sat }
}

fn limits(rates: &[Rate], total_sat: Option<u64>) -> Limits {
    Limits { rates: rates.to_vec(), total_sat }
}

fn rules(signer: Limits, hot: Limits) -> PolicyRules {
    let wallet = WalletPolicy { limits: hot, destinations: Destinations::Any };
    PolicyRules { raise: Raise::Command, signer, wallets: BTreeMap::from([("hot".into(), wallet)]) }
}

fn coin(n: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([n; 32]), vout: u32::from(n) }
}

fn pay(sat: u64) -> SpendPlan {
    SpendPlan::for_tests("hot", &[coin(1)], &[], sat, 0)
}

fn ask(rules: &PolicyRules, scopes: &Scopes, plan: &SpendPlan, now_ms: u64) -> Result<Authorized, Refusal> {
    decide(&PolicyState { rules, scopes, kin: &Kin::default() }, plan, Uptime::from_millis(now_ms))
}

fn charge(scopes: &mut Scopes, sat: u64, now_ms: u64) {
    scopes.signer.charge(sat, now_ms);
    scopes.entry(&Scope::Wallet("hot".into())).charge(sat, now_ms);
}

#[test]
fn an_amount_over_the_burst_is_refused_for_good() {
    let rules = rules(limits(&[rate(4, MINUTE, 40)], None), Limits::default());
    let scopes = Scopes::new(&rules);
    let refusal = ask(&rules, &scopes, &pay(41), 0).unwrap_err();
    assert_eq!((refusal.code, refusal.kind, refusal.wait_ms), (RefusalCode::RateBurst, RefusalKind::Forbidden, None));
    assert_eq!(ask(&rules, &scopes, &pay(40), 0).unwrap().increase_sat(), 40);
}

#[test]
fn what_waiting_cannot_mend_is_never_called_a_wait() {
    let rules = rules(limits(&[rate(4, MINUTE, 40)], Some(50)), Limits::default());
    let mut scopes = Scopes::new(&rules);
    charge(&mut scopes, 40, 0);
    // Neither the rate nor the total has room: waiting would only end at the total.
    assert_eq!(ask(&rules, &scopes, &pay(30), 0).unwrap_err().code, RefusalCode::TotalReached);
    assert_eq!(ask(&rules, &scopes, &pay(41), 0).unwrap_err().code, RefusalCode::RateBurst);
    assert_eq!(ask(&rules, &scopes, &pay(10), 0).unwrap_err().code, RefusalCode::RateWait);
}

#[test]
fn a_refusal_says_numbers_and_what_mends_it() {
    let rules = rules(limits(&[rate(4_000_000, MINUTE, 40_000_000)], Some(50_000_000)), Limits::default());
    let mut scopes = Scopes::new(&rules);
    charge(&mut scopes, 40_000_000, 0);
    let message = ask(&rules, &scopes, &pay(30_000_000), 0).unwrap_err().message.unwrap();
    for part in ["signer", "0.3 BTC", "0.1 BTC left", "0.5 BTC", "0.2 BTC more", "add-total"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = ask(&rules, &scopes, &pay(4_000_000), 0).unwrap_err().message.unwrap();
    for part in ["signer", "rate 0.04 BTC per 1 min", "0 BTC there are now", "0.4 BTC", "in 1 min"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn both_the_signers_and_the_wallets_limits_hold() {
    let rules = rules(limits(&[rate(10, MINUTE, 100)], None), limits(&[rate(1, MINUTE, 50)], Some(80)));
    let mut scopes = Scopes::new(&rules);
    assert_eq!(ask(&rules, &scopes, &pay(51), 0).unwrap_err().code, RefusalCode::RateBurst);
    charge(&mut scopes, 50, 0);
    // The signer has 50 left; the wallet needs 30 minutes for 30, and the signer's bucket would not have needed any.
    let refusal = ask(&rules, &scopes, &pay(30), 0).unwrap_err();
    assert_eq!((refusal.code, refusal.wait_ms), (RefusalCode::RateWait, Some(30 * MINUTE)));
    assert_eq!(ask(&rules, &scopes, &pay(31), 0).unwrap_err().code, RefusalCode::TotalReached);
}

#[test]
fn freezing_or_locking_either_scope_stops_everything_even_a_repeat() {
    let rules = rules(Limits::default(), Limits::default());
    let plan = pay(5);
    for scope in [Scope::Signer, Scope::Wallet("hot".into())] {
        let mut frozen = Scopes::new(&rules);
        frozen.entry(&scope).frozen = Some("command 7 of cfo".into());
        let mut locked = Scopes::new(&rules);
        locked.entry(&scope).locked = Some("a forged order".into());
        let kin = Kin { repeat: Some(Repeat { charge: 1, outflow_sat: 5 }), ..Kin::default() };
        for (scopes, code) in [(frozen, RefusalCode::Frozen), (locked, RefusalCode::Locked)] {
            for kin in [&kin, &Kin::default()] {
                let refusal = decide(&PolicyState { rules: &rules, scopes: &scopes, kin }, &plan, Uptime::default()).unwrap_err();
                assert_eq!(refusal.code, code);
                assert!(refusal.message.unwrap().contains(&scope.to_string()));
            }
        }
    }
}

#[test]
fn money_goes_only_to_listed_destinations() {
    let mut rules = rules(Limits::default(), Limits::default());
    let plan = pay(1_000);
    let paid = plan.payments()[0].script_pubkey.clone();
    rules.wallets.get_mut("hot").unwrap().destinations = Destinations::Scripts([paid].into());
    assert!(ask(&rules, &Scopes::new(&rules), &plan, 0).is_ok());
    rules.wallets.get_mut("hot").unwrap().destinations = Destinations::Scripts(Default::default());
    assert_eq!(ask(&rules, &Scopes::new(&rules), &plan, 0).unwrap_err().code, RefusalCode::DestinationForbidden);
}

#[test]
fn beside_listed_destinations_only_data_that_carries_no_money_passes() {
    let mut rules = rules(Limits::default(), Limits::default());
    rules.wallets.get_mut("hot").unwrap().destinations = Destinations::Scripts(Default::default());
    let to = |sat, script: &[u8]| ask(&rules, &Scopes::new(&rules), &pay(10).with_payment(sat, script.to_vec().into()), 0).is_ok();
    let (data, script) = ([0x6a, 0x01, 0x07], [[0x00, 0x14].as_slice(), &[7; 20]].concat());
    assert!(to(0, &data));
    assert!(!to(1, &data) && !to(0, &script) && !to(1, &script));
}

#[test]
fn what_adds_nothing_passes_even_when_more_is_owed_than_the_burst() {
    let rules = rules(limits(&[rate(1, MINUTE, 100)], None), Limits::default());
    let mut scopes = Scopes::new(&rules);
    charge(&mut scopes, 100, 0);
    scopes.signer.set_rates(&[rate(1, MINUTE, 40)]);
    let kin = Kin { families: vec![family(1, 50, &[1])], ..Kin::default() };
    let authorized = decide(&PolicyState { rules: &rules, scopes: &scopes, kin: &kin }, &pay(50), Uptime::from_millis(7)).unwrap();
    assert_eq!((authorized.increase_sat(), authorized.at_ms()), (0, 7));
}

#[test]
fn a_wallet_that_is_not_configured_spends_nothing() {
    let rules = rules(Limits::default(), Limits::default());
    let plan = SpendPlan::for_tests("cold", &[coin(1)], &[], 5, 0);
    assert_eq!(ask(&rules, &Scopes::new(&rules), &plan, 0).unwrap_err().code, RefusalCode::WalletUnknown);
}

fn family(n: u8, charge_sat: u64, leader_spends: &[u8]) -> Family {
    let leader_spends = leader_spends.iter().copied().map(coin).collect();
    Family { founder: u64::from(n), outpoint: coin(n), charge_sat, members: 1, leader_spends }
}

#[test]
fn of_the_families_it_could_join_a_transaction_joins_the_one_with_the_largest_charge() {
    let rules = rules(limits(&[rate(1, MINUTE, 100)], None), Limits::default());
    let scopes = Scopes::new(&rules);
    let plan = SpendPlan::for_tests("hot", &[coin(1), coin(2), coin(3)], &[], 60, 0);
    let kin = Kin { families: vec![family(1, 10, &[1]), family(2, 45, &[2, 3]), family(3, 20, &[3])], ..Kin::default() };
    let authorized = decide(&PolicyState { rules: &rules, scopes: &scopes, kin: &kin }, &plan, Uptime::default()).unwrap();
    assert_eq!((authorized.membership(), authorized.increase_sat()), (Membership::Joins(2, coin(2)), 15));
}

#[test]
fn a_family_is_joined_only_by_what_spends_all_that_its_leader_spends() {
    let plan = SpendPlan::for_tests("hot", &[coin(1), coin(4)], &[], 60, 0);
    let placed = |family| Kin { families: vec![family], ..Kin::default() }.place(&plan);
    let founds = (Membership::Founds(coin(1)), 0);
    assert_eq!(placed(family(1, 50, &[1])), (Membership::Joins(1, coin(1)), 50));
    assert_eq!(placed(family(1, 50, &[1, 4])), (Membership::Joins(1, coin(1)), 50));
    assert_eq!(placed(family(1, 50, &[1, 2])), founds, "what excludes the leader by coin 2 could confirm beside it");
    assert_eq!(placed(Family { members: MEMBERS_MAX, ..family(1, 50, &[1]) }), founds, "the family is full");
    assert_eq!(placed(family(2, 50, &[1])), founds, "it does not spend the family's outpoint");
    let shared = Kin { shared: true, families: vec![family(1, 50, &[1])], ..Kin::default() };
    assert_eq!(shared.place(&plan), founds, "another wallet was charged for it");
    let mixed = SpendPlan::for_tests("hot", &[coin(1)], &[coin(4)], 60, 0);
    let kin = Kin { families: vec![family(1, 50, &[1])], ..Kin::default() };
    assert_eq!(kin.place(&mixed), founds, "another wallet may be charged for it");
}

#[test]
fn a_repeat_is_free_unless_more_of_it_is_ours_now() {
    let rules = rules(limits(&[], Some(0)), Limits::default());
    let scopes = Scopes::new(&rules);
    let kin = Kin { repeat: Some(Repeat { charge: 9, outflow_sat: 50 }), ..Kin::default() };
    let state = PolicyState { rules: &rules, scopes: &scopes, kin: &kin };
    let free = decide(&state, &pay(50), Uptime::default()).unwrap();
    assert_eq!((free.membership(), free.increase_sat()), (Membership::Repeat(9), 0));
    assert_eq!(decide(&state, &pay(51), Uptime::default()).unwrap_err().code, RefusalCode::TotalReached);
    // Somebody else's input turned out to be ours: all of it counts anew.
    assert_eq!(kin.place(&pay(51)), (Membership::Founds(coin(1)), 0));
}

fn adopted(held: &mut Scopes, signer: Limits, raise: Raise) -> usize {
    held.adopt(&PolicyRules { raise, ..rules(signer, Limits::default()) }).len()
}

#[test]
fn lowering_works_at_once_and_what_was_spent_stays_spent() {
    let before = rules(limits(&[rate(10, MINUTE, 100)], Some(1_000)), Limits::default());
    let mut scopes = Scopes::new(&before);
    charge(&mut scopes, 80, 0);
    assert_eq!(adopted(&mut scopes, limits(&[rate(5, MINUTE, 90)], Some(900)), Raise::Command), 0);
    assert_eq!(scopes.signer.rates(), [rate(5, MINUTE, 90)]);
    assert_eq!(scopes.signer.buckets[0].level_sat(), 10);
    assert_eq!(scopes.signer.allowance_sat, Some(900));
    // Far below what was spent: nothing is left, and nothing is owed.
    assert_eq!(adopted(&mut scopes, limits(&[rate(5, MINUTE, 90)], Some(10)), Raise::Command), 0);
    assert_eq!(scopes.signer.allowance_sat, Some(80));
}

#[test]
fn a_rate_that_takes_the_place_of_two_owes_what_either_was_owed() {
    let (slow, quick) = (rate(120, MINUTE, 100), rate(10, 1_000, 1_000));
    let mut scopes = Scopes::new(&rules(limits(&[quick, slow], None), Limits::default()));
    charge(&mut scopes, 100, 0);
    scopes.signer.refill(10_000);
    // The quick one is full again, the slow one has 20. The new one has the quick one's period and is stricter than both.
    assert_eq!(adopted(&mut scopes, limits(&[rate(1, 1_000, 50)], None), Raise::Command), 0);
    assert_eq!(scopes.signer.buckets[0].deficit(), (80, 0), "or 50 could leave, where the slow one had let out 20");
}

#[test]
fn of_several_old_rates_the_one_that_owes_most_is_inherited_whatever_their_order() {
    let (slow, quick) = (rate(120, MINUTE, 100), rate(10, 1_000, 1_000));
    for held in [[quick, slow], [slow, quick]] {
        let mut scopes = Scopes::new(&rules(limits(&held, None), Limits::default()));
        charge(&mut scopes, 100, 0);
        scopes.signer.refill(10_000);
        scopes.signer.set_rates(&[rate(5_000, 7_000, 2_000)]);
        assert_eq!(scopes.signer.buckets[0].deficit(), (80, 0));
    }
}

#[test]
fn a_rate_goes_on_where_its_like_was() {
    // Neither is within the other, and the new ones are within neither.
    let (slow, quick) = (rate(120, MINUTE, 100), rate(10, 1_000, 1_000));
    let mut scopes = Scopes::new(&rules(limits(&[quick, slow], None), Limits::default()));
    charge(&mut scopes, 100, 0);
    scopes.signer.refill(5_000);
    let (slower, quicker) = (rate(130, MINUTE, 2_000), rate(11, 1_000, 2_000));
    scopes.signer.set_rates(&[slower, quicker, slow, quick]);
    assert_eq!(scopes.signer.buckets.iter().map(Bucket::deficit).collect::<Vec<_>>(), [(90, 0), (50, 0), (90, 0), (50, 0)]);
}

#[test]
fn rates_that_make_no_sense_are_refused() {
    let most = postern_protocol::units::MAX_MONEY_SAT;
    let fine = rate(1, 1, 1);
    assert_eq!(check_rates(&[fine; 8]), Ok(()));
    assert_eq!(check_rates(&[fine; 9]), Err(RateError::TooMany(9)));
    assert_eq!(check_rates(&[rate(most, u64::MAX, most)]), Ok(()));
    for bad in [rate(0, 1, 1), rate(1, 0, 1), rate(1, 1, 0), rate(most + 1, 1, 1), rate(1, 1, most + 1)] {
        assert!(matches!(check_rates(&[fine, bad]), Err(RateError::OutOfRange { .. })), "{bad:?}");
    }
}

#[test]
fn a_restart_forgives_nothing_of_what_is_owed_beyond_the_burst() {
    let mut scopes = Scopes::new(&rules(limits(&[rate(10, MINUTE, 100)], None), Limits::default()));
    charge(&mut scopes, 100, 0);
    adopted(&mut scopes, limits(&[rate(10, MINUTE, 40)], None), Raise::Command);
    scopes.signer.restart(false);
    assert_eq!(scopes.signer.buckets[0].deficit(), (100, 0));
    charge(&mut scopes, 0, 5 * MINUTE);
    scopes.signer.restart(false);
    assert_eq!(scopes.signer.buckets[0].deficit(), (50, 0));
    charge(&mut scopes, 0, 5 * MINUTE);
    scopes.signer.restart(false);
    assert_eq!(scopes.signer.buckets[0].deficit(), (40, 0), "empty");
}

#[test]
fn what_founds_a_family_is_never_free_and_what_joins_one_may_be() {
    let rules = rules(limits(&[], Some(100)), Limits::default());
    let scopes = Scopes::new(&rules);
    let asked = |kin: Kin, outflow_sat| {
        let plan = SpendPlan::for_tests("hot", &[coin(1)], &[], outflow_sat, 0).with_relay_fee(11);
        decide(&PolicyState { rules: &rules, scopes: &scopes, kin: &kin }, &plan, Uptime::default()).unwrap().increase_sat()
    };
    assert_eq!([0, 10, 11, 12].map(|sat| asked(Kin::default(), sat)), [11, 11, 11, 12]);
    let family = || Kin { families: vec![family(1, 50, &[1])], ..Kin::default() };
    assert_eq!([0, 50, 51].map(|sat| asked(family(), sat)), [0, 0, 1]);
    let repeat = Kin { repeat: Some(Repeat { charge: 1, outflow_sat: 0 }), ..Kin::default() };
    assert_eq!(asked(repeat, 0), 0);
}

#[test]
fn raising_in_the_configuration_needs_a_command() {
    let before = rules(limits(&[rate(10, MINUTE, 100)], Some(1_000)), Limits::default());
    let mut scopes = Scopes::new(&before);
    let held = scopes.clone();
    for looser in [
        limits(&[rate(11, MINUTE, 100)], Some(1_000)),
        limits(&[rate(10, MINUTE, 101)], Some(1_000)),
        limits(&[rate(10, MINUTE - 1, 100)], Some(1_000)),
        limits(&[], Some(1_000)),
        limits(&[rate(10, MINUTE, 100)], Some(1_001)),
        limits(&[rate(10, MINUTE, 100)], None),
    ] {
        assert_eq!(adopted(&mut scopes, looser.clone(), Raise::Command), 1, "{looser:?}");
        assert_eq!(scopes, held, "{looser:?}");
        // And writing `raise = "config"` beside it is itself a raise.
        assert_eq!(adopted(&mut scopes, looser.clone(), Raise::Config), 2, "{looser:?}");
        assert_eq!(scopes, held, "{looser:?}");
    }
}

#[test]
fn a_configuration_that_lowers_one_thing_and_raises_another_is_taken_by_its_strict_half() {
    let mut scopes = Scopes::new(&rules(limits(&[rate(10, MINUTE, 100)], None), Limits::default()));
    assert_eq!(adopted(&mut scopes, limits(&[rate(5, MINUTE, 200)], Some(7)), Raise::Command), 1);
    assert_eq!(scopes.signer.rates(), [rate(5, MINUTE, 200), rate(10, MINUTE, 100)]);
    assert_eq!(scopes.signer.allowance_sat, Some(7));
    let held = scopes.clone();
    assert_eq!(adopted(&mut scopes, limits(&[rate(5, MINUTE, 200)], Some(7)), Raise::Command), 1, "said again at the next start");
    assert_eq!(scopes, held);
}

#[test]
fn a_commanded_rate_stays_while_the_configuration_stays() {
    let config = limits(&[rate(10, MINUTE, 100)], Some(1_000));
    let mut scopes = Scopes::new(&rules(config.clone(), Limits::default()));
    scopes.signer.set_rates(&[rate(20, MINUTE, 200)]);
    scopes.signer.allowance_sat = Some(5_000);
    assert_eq!(adopted(&mut scopes, config, Raise::Command), 0);
    assert_eq!(scopes.signer.rates(), [rate(20, MINUTE, 200)]);
    assert_eq!(scopes.signer.allowance_sat, Some(5_000));
    // Lowered by 100: 100 less, whatever the managers had added.
    assert_eq!(adopted(&mut scopes, limits(&[rate(10, MINUTE, 100)], Some(900)), Raise::Command), 0);
    assert_eq!(scopes.signer.allowance_sat, Some(4_900));
}

#[test]
fn where_the_configuration_may_raise_it_raises() {
    let start = PolicyRules { raise: Raise::Config, ..rules(limits(&[rate(10, MINUTE, 100)], Some(1_000)), Limits::default()) };
    let mut scopes = Scopes::new(&start);
    charge(&mut scopes, 100, 0);
    assert_eq!(adopted(&mut scopes, limits(&[rate(20, MINUTE, 150)], Some(1_500)), Raise::Config), 0);
    assert_eq!(scopes.signer.buckets[0].level_sat(), 50, "a higher burst gives room, not a refill");
    assert_eq!(scopes.signer.allowance_sat, Some(1_500));
    assert_eq!(adopted(&mut scopes, Limits::default(), Raise::Config), 0);
    assert_eq!(scopes.signer.allowance_sat, None);
}

prop_compose! {
    fn any_rate()(amount in 1..5_000_000_u64, per in 1..200_000_u64, burst in 1..100_000_000_u64) -> Rate { rate(amount, per, burst) }
}

proptest! {
    #[test]
    fn asking_again_at_the_time_given_passes_and_a_millisecond_earlier_does_not(
        signer in prop::collection::vec(any_rate(), 0..3),
        hot in prop::collection::vec(any_rate(), 1..3),
        spent in prop::collection::vec((1..50_000_000_u64, 0..500_000_u64), 1..8),
        wanted in 1..100_000_000_u64,
    ) {
        let rules = rules(limits(&signer, None), limits(&hot, None));
        let mut scopes = Scopes::new(&rules);
        let mut now = 0;
        for (sat, pause) in spent {
            now += pause;
            if ask(&rules, &scopes, &pay(sat), now).is_ok() {
                charge(&mut scopes, sat, now);
            }
        }
        let smallest = signer.iter().chain(&hot).map(|r| r.burst_sat).min().unwrap();
        match ask(&rules, &scopes, &pay(wanted), now) {
            Ok(_) => prop_assert!(wanted <= smallest),
            Err(refusal) if wanted > smallest => prop_assert_eq!(refusal.code, RefusalCode::RateBurst),
            Err(refusal) => {
                prop_assert_eq!(refusal.code, RefusalCode::RateWait);
                let wait = refusal.wait_ms.unwrap();
                prop_assert!(wait > 0);
                prop_assert!(ask(&rules, &scopes, &pay(wanted), now + wait).is_ok());
                let earlier = ask(&rules, &scopes, &pay(wanted), now + wait - 1).unwrap_err();
                prop_assert_eq!(earlier.wait_ms, Some(1));
            }
        }
    }

    #[test]
    fn refilling_in_small_steps_gives_exactly_what_one_step_gives(rate in any_rate(), steps in prop::collection::vec(0..10_000_u64, 0..50)) {
        let mut small = Bucket::empty(rate);
        steps.iter().for_each(|ms| small.refill(*ms));
        let mut large = Bucket::empty(rate);
        large.refill(steps.iter().sum());
        prop_assert_eq!(small, large);
        let (sat, rest) = small.deficit();
        prop_assert_eq!(Bucket::with_deficit(rate, sat, rest), small);
    }

    #[test]
    fn no_numbers_overflow(amount in any::<u64>(), per in any::<u64>(), burst in any::<u64>(), sat in any::<u64>(), ms in any::<u64>()) {
        let mut bucket = Bucket::empty(rate(amount, per, burst));
        bucket.take(sat);
        bucket.refill(ms);
        let _ = (bucket.fit(sat), bucket.level_sat(), bucket.deficit(), bucket.under(rate(per, amount, sat)));
    }
}
