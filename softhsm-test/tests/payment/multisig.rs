//! One wallet, two signers: each counts by its own limits, and both must agree.

use postern_testkit::{TempRun, VaultPlan, WalletPlan, site::SitePlan};

use crate::stage::{BTC, LINES, more_coins, order, payee, received};

#[test]
fn two_signers_with_different_limits_pay_what_both_allow_and_the_rest_after_the_strictest_was_told() {
    let run = TempRun::new("joint").unwrap();
    let signer =
        |name: &str, limits: &str| VaultPlan::default().named(name).limits(limits).wallet(WalletPlan::new("hot", "seed", "wsh(pk(@))"));
    let plan = SitePlan::new([signer("one", "total = \"1 BTC\""), signer("two", "total = \"0.03 BTC\"")]);
    let site = plan.joint(2).wallet_lines(LINES).start(&run).unwrap();
    site.deposit("hot", "first", BTC).unwrap();
    more_coins(&site, 1);
    let small = order(&site, "small", 1_000_000);
    site.confirm(&small).unwrap();
    let large = order(&site, "large", 5_000_000);
    let needs = site.wait_for_order(&large, "the order to need a command", |o| o["blocked"]["kind"] == "needs").unwrap();
    assert_eq!(needs["blocked"]["code"], "refused.total_reached");
    assert!(needs["blocked"]["message"].as_str().is_some_and(|m| m.contains("two")), "{needs}");
    site.vaults[1].add_total(10_000_000).unwrap();
    site.confirm(&large).unwrap();
    for (name, sat) in [("small", 1_000_000), ("large", 5_000_000)] {
        assert_eq!(received(&site.bitcoind, &payee(name)).unwrap(), [sat]);
    }
    let charged: Vec<u64> = site.vaults.iter().map(|v| v.connect().unwrap().status().unwrap().charged_sat).collect();
    assert_eq!(charged[0], charged[1], "both charge what both signed");
}
