//! Over a private Tor network, both onion services: Arti's in this process and C Tor's.

use std::{process::Command, time::Duration};

use postern_coordinator::door::{self, OnionKind, OnionTable};
use postern_link::{
    identity::LinkIdentity,
    tor::TorTable,
    way::{Attempt, Way},
};
use postern_protocol::heartbeat;
use postern_testkit::tor::{Shape, in_private_network, in_private_network_of};
use tokio::time::timeout;

use crate::{
    stage::Stage,
    vault::{sign, signed},
};

fn block_on(body: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(body);
}

/// Whether one dial of this link succeeds.
async fn gets_through(stage: &Stage, link: &str) -> bool {
    let config = stage.link_config(link);
    let identity = LinkIdentity::load(&config.link.state).unwrap();
    let way = Way::new(&config, &stage.coordinator_public(), &identity.tls, &identity.client_auth).unwrap();
    match way.open(Attempt::new()).await {
        Ok(_) => true,
        Err(e) => {
            eprintln!("{link}: {e}");
            false
        }
    }
}

#[test]
fn requests_and_heartbeats_pass_through_artis_onion_service() {
    in_private_network(|net| {
        block_on(async {
            let mut stage = Stage::onion(&net.private_network_file());
            let _vault = stage.vault.listen();
            let _door = stage.open_door().await;
            let _link = stage.start_link("link");
            for n in 0..20 {
                stage.office.order(&format!("order-{n}"), &sign(&format!("wallet-{n}")));
            }
            for n in 0..20 {
                assert_eq!(stage.office.answer(&format!("order-{n}")).await, signed(&format!("wallet-{n}")));
                assert_eq!(stage.vault.asked(&format!("wallet-{n}")), 1);
            }
            let (_, cose) = stage.office.when("a heartbeat", |b| b.heartbeats.first().cloned()).await;
            let nonces = stage.office.look(|books| books.nonces.clone());
            assert!(nonces.iter().any(|nonce| heartbeat::verify(&cose, &stage.vault.public_key(), nonce).is_ok()));
        });
    });
}

#[test]
fn without_client_authorisation_there_is_no_connection_until_the_link_is_paired() {
    in_private_network(|net| {
        block_on(async {
            let mut stage = Stage::onion(&net.private_network_file());
            let _door = stage.open_door().await;
            while !gets_through(&stage, "link").await {}
            // The right address and pins, and a key that the service is not published for.
            let stranger = stage.paired("stranger");
            assert!(!gets_through(&stage, "stranger").await);
            stage.pins.replace(vec![stage.paired("link"), stranger]);
            let republished = async { while !gets_through(&stage, "stranger").await {} };
            timeout(Duration::from_secs(60), republished).await.expect("the service is published anew for the new link");
        });
    });
}

#[test]
fn the_onion_address_exists_before_any_link_and_stays() {
    in_private_network(|net| {
        let stage = Stage::onion(&net.private_network_file());
        let first = door::identity(&stage.table).unwrap();
        assert_eq!(door::identity(&stage.table).unwrap(), first);
        let onion = first.onion.unwrap();
        assert!(onion.len() == 56 + ".onion:443".len() && onion.ends_with(".onion:443"), "{onion}");
    });
}

#[test]
fn what_is_in_flight_when_the_onion_service_crashes_is_answered_after_it_is_back() {
    in_private_network(|net| {
        block_on(async {
            let mut stage = Stage::onion(&net.private_network_file());
            let _vault = stage.vault.listen();
            stage.vault.open.send_replace(false);
            let door = stage.open_door().await;
            let _link = stage.start_link("link");
            stage.office.order("order", &sign("wallet"));
            stage.vault.until_asked("wallet").await;
            door.kill().await;
            stage.vault.open.send_replace(true);
            let _door = stage.open_door().await;
            assert_eq!(stage.office.answer("order").await, signed("wallet"));
            assert_eq!(stage.vault.asked("wallet"), 1, "the link still held it");
        });
    });
}

#[test]
fn a_way_that_failed_often_gets_a_new_tor_client_and_finds_the_service_when_it_comes() {
    in_private_network(|net| {
        block_on(async {
            let mut stage = Stage::onion(&net.private_network_file());
            let config = stage.link_config("link");
            let identity = LinkIdentity::load(&config.link.state).unwrap();
            let way = Way::new(&config, &stage.coordinator_public(), &identity.tls, &identity.client_auth).unwrap();
            // More than enough failures in a row for a new client.
            for _ in 0..6 {
                assert!(way.open(Attempt::new()).await.is_err(), "nobody is there yet");
                way.note(false).await;
            }
            let _door = stage.open_door().await;
            let found = async {
                while way.open(Attempt::new()).await.is_err() {
                    way.note(false).await;
                }
            };
            timeout(Duration::from_secs(120), found).await.expect("the service is found");
        });
    });
}

#[test]
fn what_is_in_flight_when_a_relay_dies_is_answered() {
    in_private_network_of(Shape::SPARE, |net| {
        block_on(async {
            let mut stage = Stage::onion(&net.private_network_file());
            let _vault = stage.vault.listen();
            stage.vault.open.send_replace(false);
            let _door = stage.open_door().await;
            let _link = stage.start_link("link");
            stage.office.order("order", &sign("wallet"));
            stage.vault.until_asked("wallet").await;
            net.kill_relay(0).unwrap();
            stage.vault.open.send_replace(true);
            assert_eq!(stage.office.answer("order").await, signed("wallet"));
            stage.office.order("after", &sign("another"));
            assert_eq!(stage.office.answer("after").await, signed("another"));
        });
    });
}

#[test]
fn a_link_behind_a_bridge_gets_through() {
    in_private_network(|net| {
        block_on(async {
            let mut stage = Stage::onion(&net.private_network_file());
            let _vault = stage.vault.listen();
            let _door = stage.open_door().await;
            stage.table.tor.bridges = vec![net.bridge_line(0).unwrap()];
            let _link = stage.start_link("link");
            stage.office.order("order", &sign("wallet"));
            assert_eq!(stage.office.answer("order").await, signed("wallet"));
        });
    });
}

#[test]
fn inside_the_network_nothing_else_can_be_reached() {
    in_private_network(|_| {
        let routes = Command::new("ip").args(["route", "show"]).output().unwrap();
        assert!(routes.status.success() && routes.stdout.is_empty(), "{}", String::from_utf8_lossy(&routes.stdout));
    });
}

#[test]
fn requests_pass_through_an_onion_service_of_c_tor() {
    in_private_network(|net| {
        block_on(async {
            let tor = TorTable { private_network: Some(net.private_network_file()), ..TorTable::default() };
            let mut stage = Stage::new(None, OnionTable::default(), tor);
            let socket = stage.folder.path().join("door.sock");
            let client = stage.paired("link").client_auth.to_string();
            let service = net.onion_service("ctor", &format!("unix:{}", socket.display()), &[client]).unwrap();
            stage.table.onion = OnionTable {
                kind: OnionKind::External,
                listen: Some(format!("unix:{}", socket.display())),
                address: Some(service.address().into()),
                authorized_clients: None,
            };
            let _vault = stage.vault.listen();
            let _door = stage.open_door().await;
            let _link = stage.start_link("link");
            stage.office.order("order", &sign("wallet"));
            assert_eq!(stage.office.answer("order").await, signed("wallet"));
            stage.paired("stranger");
            assert!(!gets_through(&stage, "stranger").await, "C Tor's client authorisation");
        });
    });
}
