//! Over TCP, as on a LAN: fast, so what does not need Tor is proven here.

use std::{sync::atomic::Ordering, time::Duration};

use axum::body::Bytes;
use postern_link::{
    api::{Api, CALL_MAX},
    daemon::Link,
    identity::LinkIdentity,
    way::{Attempt, Way},
};
use postern_protocol::{
    api::{Pull, Pulled},
    heartbeat,
    refusal::RefusalCode,
    reply::ReplyBody,
    request::{RequestBody, SignRequest},
};

use crate::{
    stage::{SIGNER, Stage, strangers_pin},
    vault::{sign, signed},
};

/// One dial and one pull, as the link does it.
async fn dial(stage: &Stage, link: &str) -> anyhow::Result<Pulled> {
    let config = stage.link_config(link);
    let identity = LinkIdentity::load(&config.link.state)?;
    let way =
        Way::new(&config, &postern_link::daemon::coordinator_public(&config.link.coordinator)?, &identity.tls, &identity.client_auth)?;
    let mut api = Api::on(way.open(Attempt::new()).await?).await?;
    Ok(api.call("/signer/v1/pull", &Pull { capacity: 1, wait_ms: 0, in_flight: vec![] }, 1024, CALL_MAX).await?)
}

#[tokio::test]
async fn many_requests_are_answered_each_with_its_own_answer_and_never_too_many_at_once() {
    let mut stage = Stage::direct();
    let _vault = stage.vault.listen();
    let _door = stage.open_door().await;
    for n in 0..100 {
        stage.office.order(&format!("order-{n}"), &sign(&format!("wallet-{n}")));
    }
    let link = stage.start_link("link");
    for n in 0..100 {
        assert_eq!(stage.office.answer(&format!("order-{n}")).await, signed(&format!("wallet-{n}")));
        assert_eq!(stage.vault.asked(&format!("wallet-{n}")), 1);
    }
    assert!(stage.office.look(|books| books.most_in_flight) <= 16, "max_in_flight is 16");
    assert!(stage.office.look(|books| books.replies.values().all(|replies| replies.len() == 1)));
    link.stop().await;
}

#[tokio::test]
async fn heartbeats_arrive_signed_by_the_signer_over_the_coordinators_nonce() {
    let mut stage = Stage::direct();
    let _vault = stage.vault.listen();
    let _door = stage.open_door().await;
    let _link = stage.start_link("link");
    let heartbeats = stage.office.when("three heartbeats", |b| (b.heartbeats.len() >= 3).then(|| b.heartbeats.clone())).await;
    for (name, cose) in heartbeats {
        assert_eq!(name, SIGNER);
        let fresh = stage.office.look(|books| books.nonces.clone());
        assert!(fresh.iter().any(|nonce| heartbeat::verify(&cose, &stage.vault.public_key(), nonce).is_ok()));
    }
}

#[tokio::test]
async fn a_paired_link_connects_and_one_with_another_key_does_not() {
    let mut stage = Stage::direct();
    let _door = stage.open_door().await;
    dial(&stage, "link").await.unwrap();
    stage.paired("stranger");
    dial(&stage, "stranger").await.unwrap_err();
    assert_eq!(stage.office.look(|books| books.pulls), 1, "the stranger's call reached nobody");
}

#[tokio::test]
async fn a_coordinator_with_another_key_gets_no_word_out_of_a_link() {
    let mut stage = Stage::direct();
    let _door = stage.open_door().await;
    let config = stage.link_config("link");
    let identity = LinkIdentity::load(&config.link.state).unwrap();
    let mut public = stage.coordinator_public();
    public.tls_pin = strangers_pin().to_string();
    let way = Way::new(&config, &public, &identity.tls, &identity.client_auth).unwrap();
    let refused = way.open(Attempt::new()).await.map(drop).unwrap_err();
    assert!(refused.to_string().starts_with("the coordinator's TLS key is not the pinned one"), "{refused}");
}

#[tokio::test]
async fn a_signer_that_is_unpaired_loses_its_connection_and_gets_it_back_when_paired_again() {
    let mut stage = Stage::direct();
    let _vault = stage.vault.listen();
    let _door = stage.open_door().await;
    let _link = stage.start_link("link");
    stage.office.order("before", &sign("a"));
    stage.office.answer("before").await;

    let paired = stage.paired("link");
    stage.pins.replace(vec![]);
    dial(&stage, "link").await.unwrap_err();
    // By then the old connection has heard of it, too: nothing is handed out any more.
    stage.office.order("while out", &sign("b"));
    dial(&stage, "link").await.unwrap_err();
    assert_eq!(stage.vault.asked("b"), 0);

    stage.pins.replace(vec![paired]);
    assert_eq!(stage.office.answer("while out").await, signed("b"));
}

#[tokio::test]
async fn what_is_in_flight_when_the_coordinator_crashes_is_answered_after_it_is_back_and_asked_once() {
    let mut stage = Stage::direct();
    let _vault = stage.vault.listen();
    stage.vault.open.send_replace(false);
    let door = stage.open_door().await;
    let _link = stage.start_link("link");
    for n in 0..5 {
        stage.office.order(&format!("order-{n}"), &sign(&format!("wallet-{n}")));
    }
    for n in 0..5 {
        stage.vault.until_asked(&format!("wallet-{n}")).await;
    }
    door.kill().await;
    stage.vault.open.send_replace(true);
    let _door = stage.open_door().await;
    for n in 0..5 {
        assert_eq!(stage.office.answer(&format!("order-{n}")).await, signed(&format!("wallet-{n}")));
        assert_eq!(stage.vault.asked(&format!("wallet-{n}")), 1, "the link still held it");
    }
}

#[tokio::test]
async fn an_answer_is_delivered_again_until_the_coordinator_takes_it() {
    let mut stage = Stage::direct();
    let _vault = stage.vault.listen();
    let _door = stage.open_door().await;
    stage.office.refuse_replies.store(3, Ordering::Relaxed);
    let _link = stage.start_link("link");
    stage.office.order("order", &sign("wallet"));
    assert_eq!(stage.office.answer("order").await, signed("wallet"));
    assert_eq!(stage.office.refuse_replies.load(Ordering::Relaxed), 0);
    assert_eq!(stage.vault.asked("wallet"), 1);
}

#[tokio::test]
async fn a_signer_that_starts_late_or_again_is_asked_what_it_has_not_answered() {
    let mut stage = Stage::direct();
    let _door = stage.open_door().await;
    let _link = stage.start_link("link");
    stage.office.order("order", &sign("wallet"));
    // Held by the link, though nobody listens on the socket.
    stage.office.when("a pull that names the order", |b| (b.most_in_flight > 0).then_some(())).await;
    let vault = stage.vault.listen();
    assert_eq!(stage.office.answer("order").await, signed("wallet"));
    vault.abort();
}

#[tokio::test]
async fn a_link_that_stops_delivers_what_is_being_answered() {
    let mut stage = Stage::direct();
    let _vault = stage.vault.listen();
    let _door = stage.open_door().await;
    stage.vault.open.send_replace(false);
    let link = stage.start_link("link");
    stage.office.order("order", &sign("wallet"));
    stage.vault.until_asked("wallet").await;
    let stopping = link.stop();
    stage.vault.open.send_replace(true);
    stopping.await;
    assert_eq!(stage.office.look(|books| books.replies.len()), 1);
}

#[tokio::test]
async fn a_coordinator_that_answers_nonsense_or_too_much_is_dropped_and_dialled_again() {
    let mut stage = Stage::direct();
    let _vault = stage.vault.listen();
    let _door = stage.open_door().await;
    let flood = Bytes::from(vec![b' '; postern_link::api::PULLED_MAX + 1]);
    *stage.office.nonsense.lock().unwrap() = vec![flood, Bytes::from_static(b"{\"requests\": 7}"), Bytes::from_static(b"\xff\x00")];
    let _link = stage.start_link("link");
    stage.office.order("order", &sign("wallet"));
    assert_eq!(stage.office.answer("order").await, signed("wallet"));
    assert!(stage.office.nonsense.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_request_that_no_signer_could_read_or_frame_is_refused_to_its_asker() {
    let mut stage = Stage::direct();
    let _vault = stage.vault.listen();
    let _door = stage.open_door().await;
    let _link = stage.start_link("link");
    let heavy = RequestBody::Sign(SignRequest { wallet: "heavy".into(), psbt: vec![0; postern_protocol::frame::FRAME_MAX] });
    stage.office.order("heavy", &heavy);
    let ReplyBody::Refused(refusal) = stage.office.answer("heavy").await else { panic!() };
    assert_eq!(refusal.code, RefusalCode::FrameTooLarge);
    assert_eq!(stage.vault.asked("heavy"), 0);
}

#[tokio::test]
async fn a_round_trip_is_measured_without_taking_a_request() {
    let mut stage = Stage::direct();
    let _door = stage.open_door().await;
    stage.office.order("order", &sign("wallet"));
    let link = Link::new(stage.link_config("link")).unwrap();
    let time = link.dial().await.unwrap().round_trip().await.unwrap();
    assert!(time > Duration::ZERO);
    assert_eq!(stage.office.look(|books| books.pulls), 0);
}

#[tokio::test]
async fn a_door_that_closes_lets_a_waiting_link_go_in_time() {
    let mut stage = Stage::direct();
    let _vault = stage.vault.listen();
    let door = stage.open_door().await;
    let _link = stage.start_link("link");
    stage.office.when("a pull", |books| (books.pulls > 1).then_some(())).await;
    let asked = std::time::Instant::now();
    door.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}
