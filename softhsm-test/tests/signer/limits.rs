//! Money leaves as fast and as much as the limits allow; each "no" says when or by whom it becomes a "yes".

use postern_protocol::{
    command::{Action, Rate, Scope},
    refusal::RefusalCode,
};
use postern_testkit::{VaultPlan, WalletPlan};

use crate::coins::Purse;

const DAY_MS: u64 = 24 * 3_600 * 1_000;

fn hot(limits: &str) -> WalletPlan {
    WalletPlan::new("hot", "seed", "wpkh(@)").with(limits)
}

#[test]
fn more_than_the_burst_never_passes_what_fits_later_says_when_and_what_fits_passes() {
    let wallet = hot("limits = { rate = [{ amount = \"100000 sat\", per = \"1 day\", burst = \"400000 sat\" }] }");
    let purse = Purse::new("rate", VaultPlan::default().wallet(wallet), 3).unwrap();
    let never = purse.pay("hot", 400_001).unwrap().unwrap_err();
    assert_eq!((never.code, never.wait_ms), (RefusalCode::RateBurst, None));
    purse.pay("hot", 300_000).unwrap().unwrap();
    // 100,000 sat are left; the missing 200,000 take two days, less what this test has taken.
    let later = purse.pay("hot", 300_000).unwrap().unwrap_err();
    assert_eq!(later.code, RefusalCode::RateWait);
    let wait_ms = later.wait_ms.unwrap();
    assert!((2 * DAY_MS - 600_000..=2 * DAY_MS).contains(&wait_ms), "{wait_ms}");
    assert_eq!(purse.charged_sat().unwrap(), 300_000);
}

#[test]
fn what_waits_for_the_rate_passes_when_its_time_has_come() {
    let wallet = hot("limits = { rate = [{ amount = \"100000 sat\", per = \"1 s\", burst = \"300000 sat\" }] }");
    let purse = Purse::new("rate_time", VaultPlan::default().wallet(wallet), 2).unwrap();
    purse.pay("hot", 300_000).unwrap().unwrap();
    let payment = purse.payment("hot", 100_000).unwrap();
    let refused = purse.ask("hot", &payment).unwrap();
    if let Err(refusal) = refused {
        assert_eq!(refusal.code, RefusalCode::RateWait);
        assert!(refusal.wait_ms.is_some_and(|ms| ms <= 1_000), "{refusal:?}");
    }
    postern_testkit::wait::wait_until("the bucket", postern_testkit::wait::PATIENCE, || Ok(purse.ask("hot", &payment)?.is_ok())).unwrap();
}

#[test]
fn a_total_that_is_reached_takes_a_quorum_and_the_signers_total_counts_for_all_wallets() {
    let plan = VaultPlan::default().limits("total = \"500000 sat\"");
    let plan = plan.wallet(hot("limits = { total = \"400000 sat\" }")).wallet(WalletPlan::new("warm", "seed", "wpkh(@)"));
    let purse = Purse::new("total", plan, 3).unwrap();
    purse.pay("hot", 300_000).unwrap().unwrap();
    let payment = purse.payment("hot", 150_000).unwrap();
    assert_eq!(purse.ask("hot", &payment).unwrap().unwrap_err().code, RefusalCode::TotalReached);
    purse.vault.order(Action::AddTotal(Scope::Wallet("hot".into()), 50_000)).unwrap().unwrap();
    purse.ask("hot", &payment).unwrap().unwrap();
    let other = purse.payment("warm", 100_000).unwrap();
    assert_eq!(purse.ask("warm", &other).unwrap().unwrap_err().code, RefusalCode::TotalReached);
    purse.vault.order(Action::SetTotal(Scope::Signer, 100_000)).unwrap().unwrap();
    purse.ask("warm", &other).unwrap().unwrap();
    assert_eq!(purse.charged_sat().unwrap(), 550_000);
}

#[test]
fn a_retry_is_free_and_a_fee_bump_costs_its_increase() {
    let purse = Purse::new("retry", VaultPlan::default().wallet(hot("")), 1).unwrap();
    let coin = purse.coin("hot").unwrap();
    let first = purse.payment_from("hot", coin.clone(), 300_000, 2_000).unwrap();
    let signed = purse.ask("hot", &first).unwrap().unwrap();
    assert_eq!(purse.ask("hot", &first).unwrap().unwrap(), signed);
    assert_eq!(purse.charged_sat().unwrap(), 300_000);
    let bumped = purse.payment_from("hot", coin.clone(), 305_000, 7_000).unwrap();
    purse.ask("hot", &bumped).unwrap().unwrap();
    assert_eq!(purse.charged_sat().unwrap(), 305_000);
    // And down again: what was allowed once is not paid back.
    let lower = purse.payment_from("hot", coin, 301_000, 3_000).unwrap();
    purse.ask("hot", &lower).unwrap().unwrap();
    assert_eq!(purse.charged_sat().unwrap(), 305_000);
}

#[test]
fn the_same_request_from_many_at_once_is_charged_once() {
    let purse = Purse::new("parallel", VaultPlan::default().limits("total = \"300000 sat\"").wallet(hot("")), 1).unwrap();
    let payment = purse.payment("hot", 300_000).unwrap().serialize();
    let vault = &purse.vault;
    std::thread::scope(|s| {
        let askers: Vec<_> = (0..16).map(|_| s.spawn(|| vault.connect()?.sign("hot", &payment))).collect();
        for asker in askers {
            asker.join().unwrap().unwrap().unwrap();
        }
    });
    assert_eq!(purse.charged_sat().unwrap(), 300_000);
    assert_eq!(vault.connect().unwrap().status().unwrap().charged_transactions, 1);
}

#[test]
fn a_rate_set_by_a_quorum_holds_and_keeps_what_was_spent() {
    let wallet = hot("limits = { rate = [{ amount = \"100000 sat\", per = \"1 day\", burst = \"300000 sat\" }] }");
    let purse = Purse::new("set_rate", VaultPlan::default().wallet(wallet), 3).unwrap();
    purse.pay("hot", 300_000).unwrap().unwrap();
    let rate = Rate { amount_sat: 100_000, per_ms: DAY_MS, burst_sat: 500_000 };
    purse.vault.order(Action::SetRate(Scope::Wallet("hot".into()), vec![rate])).unwrap().unwrap();
    let refused = purse.pay("hot", 300_000).unwrap().unwrap_err();
    assert_eq!(refused.code, RefusalCode::RateWait);
    purse.pay("hot", 200_000).unwrap().unwrap();
}

#[test]
fn status_remembers_who_was_refused_and_why() {
    let purse = Purse::new("past", VaultPlan::default().limits("total = \"1000 sat\"").wallet(hot("")), 1).unwrap();
    let refused = purse.pay("hot", 300_000).unwrap().unwrap_err();
    let past = purse.vault.connect().unwrap().status().unwrap().refusals;
    let newest = past.first().unwrap();
    assert_eq!((newest.code.as_str(), newest.wallet.as_str()), (RefusalCode::TotalReached.as_str(), "hot"));
    assert_eq!(Some(&newest.message), refused.message.as_ref());
}
