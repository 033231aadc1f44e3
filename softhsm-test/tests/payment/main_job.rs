//! From deposit to confirmation.

use postern_testkit::{Process, TempRun, VaultPlan, WalletPlan, site::SitePlan};

use crate::stage::{BTC, LINES, order, payee, received, site};

#[test]
fn an_order_is_signed_under_limits_and_confirms() {
    let site = site("main_job", "total = \"0.5 BTC\"");
    let id = order(&site, "alice", 3_000_000);
    let confirmed = site.confirm(&id).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("alice")).unwrap(), [3_000_000]);
    let fee = confirmed["payment"]["fee_sat"].as_u64().unwrap();
    assert_eq!(site.vaults[0].connect().unwrap().status().unwrap().charged_sat, 3_000_000 + fee);
}

#[test]
fn orders_that_wait_together_share_a_transaction() {
    let site = site("batch", "total = \"0.5 BTC\"");
    let ids: Vec<String> = ["a", "b", "c"].iter().map(|name| order(&site, name, 1_000_000)).collect();
    let txids: Vec<_> = ids.iter().map(|id| site.confirm(id).unwrap()["payment"]["txid"].clone()).collect();
    assert!(txids[0].is_string());
    assert!(txids.iter().all(|txid| *txid == txids[0]), "{txids:?}");
    for name in ["a", "b", "c"] {
        assert_eq!(received(&site.bitcoind, &payee(name)).unwrap(), [1_000_000]);
    }
}

#[test]
fn a_pool_gives_an_address_of_its_own_to_each_deposit_and_pays_from_several_keys() {
    let run = TempRun::new("pool_site").unwrap();
    let vault = VaultPlan::default().wallet(WalletPlan::new("hot", "pool", "wpkh(@)"));
    let mut site = SitePlan::new([vault]).wallet_lines(LINES).start(&run).unwrap();
    let addresses = [1, 2, 3].map(|n| site.deposit("hot", &format!("customer {n}"), BTC / 10).unwrap());
    assert!(addresses[0] != addresses[1] && addresses[1] != addresses[2] && addresses[0] != addresses[2]);
    assert_eq!(site.deposit_address("hot", "customer 1").unwrap(), addresses[0], "a reference keeps its address");
    // More than any two coins.
    let first = order(&site, "alice", BTC / 4);
    site.confirm(&first).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("alice")).unwrap(), [BTC / 4]);

    // The change went to a key of the pool, which is known again after both ends were restarted.
    site.vaults[0].kill().unwrap();
    site.kill_coordinator().unwrap();
    site.vaults[0].launch().unwrap();
    site.start_coordinator().unwrap();
    let second = order(&site, "bob", BTC / 100);
    site.confirm(&second).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("bob")).unwrap(), [BTC / 100]);
}

#[test]
fn the_signer_owns_no_network_socket_while_it_pays() {
    let mut site = site("no_socket", "total = \"0.5 BTC\"");
    let id = order(&site, "alice", 3_000_000);
    site.wait_for_state(&id, "broadcast").unwrap();
    let sockets = |process: &Process| process.network_sockets().unwrap();
    assert_eq!(sockets(site.vaults[0].signer().unwrap()), Vec::<String>::new());
    // The same look sees the link's connection.
    assert_ne!(sockets(site.link(0).unwrap()), Vec::<String>::new());
}
