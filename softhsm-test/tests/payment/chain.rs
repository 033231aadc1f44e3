//! The chain changes its mind.

use postern_testkit::wait::{PATIENCE, wait_until};

use crate::stage::{BTC, order, payee, received, site};

#[test]
fn a_deposit_that_a_reorg_undoes_is_no_money_until_it_is_in_the_chain_again() {
    let site = site("reorg_deposit", "total = \"1 BTC\"");
    let address = site.deposit_address("hot", "second").unwrap();
    site.bitcoind.fund_confirmed(&address.script_pubkey(), 5_000_000).unwrap();
    let available =
        |sat: u64| wait_until(&format!("{sat} sat to be available"), PATIENCE, || Ok(site.available_sat("hot")? == sat)).unwrap();
    available(BTC + 5_000_000);
    site.bitcoind.disconnect(1).unwrap();
    site.bitcoind.mine_empty(2).unwrap();
    available(BTC);
    site.bitcoind.mine(1).unwrap();
    available(BTC + 5_000_000);
}

#[test]
fn a_payment_that_a_reorg_undoes_is_paid_once_in_the_end() {
    let site = site("reorg_payment", "total = \"1 BTC\"");
    let id = order(&site, "alice", 3_000_000);
    site.wait_for_state(&id, "broadcast").unwrap();
    site.bitcoind.mine(1).unwrap();
    let seen = |confirmations: u64| {
        site.wait_for_order(&id, &format!("{confirmations} confirmations"), |o| o["payment"]["confirmations"] == confirmations).unwrap()
    };
    seen(1);
    site.bitcoind.disconnect(1).unwrap();
    site.bitcoind.mine_empty(2).unwrap();
    assert_ne!(seen(0)["state"], "confirmed");
    site.confirm(&id).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("alice")).unwrap(), [3_000_000]);
}

#[test]
fn a_payment_that_no_miner_takes_gets_a_higher_fee_and_is_charged_the_increase() {
    let site = site("stuck", "total = \"1 BTC\"");
    let id = order(&site, "alice", 3_000_000);
    let first = site.wait_for_state(&id, "broadcast").unwrap();
    let fee = |o: &serde_json::Value| o["payment"]["fee_sat"].as_u64().unwrap();
    // Miners who leave it out.
    site.bitcoind.mine_empty(8).unwrap();
    let bumped = site.wait_for_order(&id, "a higher fee", |o| o["payment"]["fee_sat"].as_u64() > Some(fee(&first))).unwrap();
    site.confirm(&id).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("alice")).unwrap(), [3_000_000]);
    let charged = site.vaults[0].connect().unwrap().status().unwrap().charged_sat;
    assert_eq!(charged, 3_000_000 + fee(&bumped));
}
