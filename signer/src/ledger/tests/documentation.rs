//! The worked examples of `docs/limits.md`.

use super::*;

const BTC: u64 = 100_000_000;

#[test]
fn the_example_of_a_rate_and_a_total_holds() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[rate(4_000_000, 60_000, 40_000_000)], Some(100 * BTC))));
    let state = |now| (ledger.left(0, now), 100 * BTC - ledger.left(1, now));
    assert_eq!(state(0), (40_000_000, 0));
    ledger.charge(plan(&[1], 30_010_000, 0), at(0)).unwrap();
    assert_eq!(state(0), (9_990_000, 30_010_000));
    let next = plan(&[2], 10_000_000, 0);
    let refusal = ledger.charge(Arc::clone(&next), at(0)).unwrap_err();
    assert_eq!((refusal.code.as_str(), refusal.wait_ms), ("refused.rate_wait", Some(150)));
    assert!(ledger.charge(Arc::clone(&next), at(149)).is_err());
    ledger.charge(next, at(150)).unwrap();
    assert_eq!(state(150), (0, 40_010_000));
    let later = 150 + 10 * 60_000;
    assert_eq!(state(later), (40_000_000, 40_010_000));
    assert_eq!(refused(ledger.charge(plan(&[3], 41_000_000, 0), at(later))).as_str(), "refused.rate_burst");
    assert_eq!(state(later), (40_000_000, 40_010_000));
}

#[test]
fn the_example_of_fee_bumps_holds() {
    let folder = folder();
    let ledger = open(&folder, rules(Limits::default()));
    let rows: [(&[u8], u64, u64); 5] = [
        (&[1, 2], 10_000_000, 10_000_000),
        (&[1, 2], 10_020_000, 20_000),
        (&[1, 2, 3], 10_050_000, 30_000),
        (&[4], 10_000_000, 10_000_000),
        (&[2], 10_000_000, 10_000_000),
    ];
    for (n, (coins, outflow, charged)) in (0..).zip(rows) {
        assert_eq!(ledger.charge(plan(coins, outflow, n), at(0)).unwrap().increase_sat(), charged, "row {n}");
    }
}

#[test]
fn the_example_of_changed_totals_holds() {
    let folder = folder();
    let with = |total| rules(limits(&[], Some(total * BTC)));
    open(&folder, with(100)).charge(plan(&[1], BTC, 0), at(0)).unwrap();
    let ledger = open(&folder, with(90));
    assert_eq!((ledger.left(0, 0), ledger.warnings().len()), (89 * BTC, 0));
    drop(ledger);
    let ledger = open(&folder, with(120));
    assert_eq!((ledger.left(0, 0), ledger.warnings().len()), (89 * BTC, 1));
    ledger.apply(command(1, Action::AddTotal(Scope::Signer, 20 * BTC)), at(0)).unwrap();
    assert_eq!(ledger.left(0, 0), 109 * BTC);
}
