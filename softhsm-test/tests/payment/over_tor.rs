//! The same over a private Tor network: the coordinator's onion service, the link's own client.

use postern_testkit::{site::Way, tor::in_private_network};

use crate::stage::{order, payee, received, site_over};

#[test]
fn an_order_is_signed_over_tor_and_confirms_also_after_the_link_was_killed() {
    in_private_network(|tor| {
        let mut site = site_over("over_tor", "total = \"0.5 BTC\"", Way::Tor(tor.private_network_file()));
        let first = order(&site, "alice", 3_000_000);
        site.confirm(&first).unwrap();
        assert_eq!(received(&site.bitcoind, &payee("alice")).unwrap(), [3_000_000]);
        site.kill_link(0).unwrap();
        let second = order(&site, "bob", 2_000_000);
        site.start_link(0).unwrap();
        site.confirm(&second).unwrap();
        assert_eq!(received(&site.bitcoind, &payee("bob")).unwrap(), [2_000_000]);
        assert_eq!(site.vaults[0].signer().unwrap().network_sockets().unwrap(), Vec::<String>::new());
    });
}
