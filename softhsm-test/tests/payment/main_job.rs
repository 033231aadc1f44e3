//! From deposit to confirmation.

use postern_testkit::Process;

use crate::stage::{order, payee, received, site};

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
fn the_signer_owns_no_network_socket_while_it_pays() {
    let mut site = site("no_socket", "total = \"0.5 BTC\"");
    let id = order(&site, "alice", 3_000_000);
    site.wait_for_state(&id, "broadcast").unwrap();
    let sockets = |process: &Process| process.network_sockets().unwrap();
    assert_eq!(sockets(site.vaults[0].signer().unwrap()), Vec::<String>::new());
    // The same look sees the link's connection.
    assert_ne!(sockets(site.link(0).unwrap()), Vec::<String>::new());
}
