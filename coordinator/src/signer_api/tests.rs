#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use ed25519_dalek::SigningKey;
use http_body_util::BodyExt as _;
use postern_protocol::{
    api::{Base64, Heartbeat as HeartbeatBody, Pull, Pulled, Reply},
    canonical,
    heartbeat::{self, Heartbeat},
    refusal::{Refusal, RefusalCode},
    reply::{LimitLevel, ReplyBody},
    request::RequestBody,
};
use serde::Serialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    app::App,
    door::SignerName,
    store::{NewRequest, NewSigner, RequestKind},
    testing::{self, FakeNode, account},
};

struct Gate {
    _folder: tempfile::TempDir,
    app: Arc<App>,
    router: Router,
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

impl Gate {
    async fn new() -> Self {
        let folder = testing::folder();
        let descriptor = format!("wpkh({}/<0;1>/*)", account(1));
        let (app, _) = testing::app(folder.path(), FakeNode::new(), &descriptor, &["a"], "").await;
        for (name, n) in [("a", 1), ("b", 2)] {
            let signer = NewSigner {
                name: name.into(),
                tls_pin: format!("pin {n}"),
                client_auth: "c".into(),
                signer_key: key(n).verifying_key().into(),
                at: 1,
            };
            assert!(app.store.add_signer(signer).await.unwrap());
        }
        Self { _folder: folder, router: super::router(app.clone()), app }
    }

    async fn request(&self, id: &str, not_before: i64) {
        let request = NewRequest {
            id: id.into(),
            signer: "a".into(),
            wallet: "hot".into(),
            kind: RequestKind::Sign,
            member: None,
            body: canonical::to_vec(&RequestBody::Wallets),
            not_before,
        };
        self.app.store.add_request(request, 1).await.unwrap();
        self.app.requests.notify_waiters();
    }

    async fn send(&self, path: &str, signer: Option<&str>, body: Vec<u8>) -> (StatusCode, Value) {
        let mut request = Request::post(path).body(Body::from(body)).unwrap();
        if let Some(signer) = signer {
            request.extensions_mut().insert(SignerName(signer.into()));
        }
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn json(&self, path: &str, signer: &str, body: &impl Serialize) -> (StatusCode, Value) {
        self.send(path, Some(signer), serde_json::to_vec(body).unwrap()).await
    }

    async fn pull(&self, signer: &str, wait_ms: u64, in_flight: &[&str]) -> Pulled {
        let pull = Pull { capacity: 10, wait_ms, in_flight: in_flight.iter().map(ToString::to_string).collect() };
        let (status, body) = self.json("/signer/v1/pull", signer, &pull).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).unwrap()
    }
}

fn no() -> Base64 {
    Base64(canonical::to_vec(&ReplyBody::Refused(Refusal::new(RefusalCode::Frozen, "frozen"))))
}

fn report(nonce: &[u8]) -> Heartbeat {
    let limit = LimitLevel { scope: "signer".into(), name: "total".into(), available_sat: 1, capacity_sat: 10, refill_sat: 0, per_ms: 0 };
    Heartbeat {
        nonce: nonce.to_vec(),
        signer: "vault".into(),
        network: "regtest".into(),
        policy_hash: String::new(),
        ledger_seq: 1,
        ledger_head: String::new(),
        limits: vec![limit],
        charged_sat: 0,
        uptime_ms: 1,
        keystores_down: vec![],
        frozen: vec![],
    }
}

fn signed(report: &Heartbeat, n: u8) -> HeartbeatBody {
    HeartbeatBody { cose: Base64(heartbeat::sign(report, &key(n)).unwrap()) }
}

#[tokio::test]
async fn a_request_goes_to_its_signer_only_and_until_it_is_answered() {
    let gate = Gate::new().await;
    gate.request("r1", 1).await;
    assert!(gate.pull("b", 0, &[]).await.requests.is_empty());
    assert_eq!(gate.pull("a", 0, &[]).await.requests.len(), 1);
    assert!(gate.pull("a", 0, &["r1"]).await.requests.is_empty(), "in flight");
    assert_eq!(gate.pull("a", 0, &[]).await.requests.len(), 1, "the link lost it");
    let reply = Reply { id: "r1".into(), body: no() };
    assert_eq!(gate.json("/signer/v1/replies", "b", &reply).await.0, StatusCode::NOT_FOUND, "another signer's");
    assert_eq!(gate.json("/signer/v1/replies", "a", &reply).await.0, StatusCode::NO_CONTENT);
    assert_eq!(gate.json("/signer/v1/replies", "a", &reply).await.0, StatusCode::NO_CONTENT, "repeated");
    assert!(gate.pull("a", 0, &[]).await.requests.is_empty());
}

#[tokio::test]
async fn a_long_poll_ends_when_there_is_work() {
    let gate = Gate::new().await;
    let (pulled, ()) = tokio::join!(gate.pull("a", 20_000, &[]), gate.request("r1", 1));
    assert_eq!(pulled.requests.len(), 1);
}

#[tokio::test]
async fn without_the_doors_word_nobody_is_a_signer() {
    let gate = Gate::new().await;
    gate.request("r1", 1).await;
    let pull = serde_json::to_vec(&Pull { capacity: 1, wait_ms: 0, in_flight: vec![] }).unwrap();
    assert!(!gate.send("/signer/v1/pull", None, pull.clone()).await.0.is_success());
    let (status, answer) = gate.send("/signer/v1/pull", Some("stranger"), pull).await;
    assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("signer.unpaired")));
}

#[tokio::test]
async fn a_heartbeat_counts_once_for_its_signer_and_its_nonce() {
    let gate = Gate::new().await;
    let nonce = gate.pull("a", 0, &[]).await.heartbeat_nonce.0;
    let path = "/signer/v1/heartbeat";
    assert_eq!(gate.json(path, "a", &signed(&report(&nonce), 2)).await.0, StatusCode::FORBIDDEN, "another's key");
    assert_eq!(gate.json(path, "a", &signed(&report(b"old"), 1)).await.0, StatusCode::FORBIDDEN, "another nonce");
    assert_eq!(gate.json(path, "b", &signed(&report(&nonce), 2)).await.0, StatusCode::FORBIDDEN, "another's nonce");
    let abroad = Heartbeat { network: "bitcoin".into(), ..report(&nonce) };
    assert_eq!(gate.json(path, "a", &signed(&abroad, 1)).await.0, StatusCode::FORBIDDEN, "another network");
    assert_eq!(gate.json(path, "a", &signed(&report(&nonce), 1)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(gate.json(path, "a", &signed(&report(&nonce), 1)).await.0, StatusCode::FORBIDDEN, "replayed");
    let row = gate.app.store.signers().await.unwrap().remove(0);
    assert!(row.heartbeat_at.is_some() && row.heartbeat.unwrap().contains("vault"));
}

#[tokio::test]
async fn only_a_change_that_a_command_makes_wakes_what_needs_one() {
    let before = report(b"n");
    assert!(!super::changed(&before, &Heartbeat { ledger_seq: 9, charged_sat: 5, uptime_ms: 2, ..before.clone() }));
    let mut spent = before.clone();
    spent.limits[0].available_sat = 0;
    assert!(!super::changed(&before, &spent));
    assert!(super::changed(&spent, &before), "more is available");
    assert!(super::changed(&before, &Heartbeat { frozen: vec!["signer".into()], ..before.clone() }));
    assert!(super::changed(&before, &Heartbeat { uptime_ms: 0, ..before.clone() }), "restarted");
}

#[test]
fn a_restart_is_noticed_also_when_nobody_listened_for_long() {
    assert!(super::restarted((3_600_000, 0), (1_000, 5_000)), "younger than before");
    assert!(super::restarted((5_000, 0), (6_000, 8_000)), "older, and younger than the time between");
    assert!(!super::restarted((3_600_000, 0), (3_630_000, 30_000)));
    assert!(!super::restarted((3_600_000, 50_000), (3_630_000, 30_000)), "the first report came late");
}

#[tokio::test]
async fn every_wrong_body_is_a_typed_error_and_changes_nothing() {
    let gate = Gate::new().await;
    gate.request("r1", 1).await;
    gate.pull("a", 0, &[]).await;
    let addresses = Base64(canonical::to_vec(&ReplyBody::Addresses(vec![])));
    let bodies = [
        ("/signer/v1/pull", "{".to_owned()),
        ("/signer/v1/pull", json!({ "capacity": 1, "wait_ms": 0, "in_flight": ["x".repeat(65)] }).to_string()),
        ("/signer/v1/pull", json!({ "capacity": -1, "wait_ms": 0, "in_flight": [] }).to_string()),
        ("/signer/v1/replies", json!({ "id": "r1", "body": "****" }).to_string()),
        ("/signer/v1/replies", json!({ "id": "r1", "body": "AAAA" }).to_string()),
        ("/signer/v1/replies", serde_json::to_string(&Reply { id: "r1".into(), body: addresses }).unwrap()),
        ("/signer/v1/replies", serde_json::to_string(&Reply { id: "none".into(), body: no() }).unwrap()),
        ("/signer/v1/heartbeat", json!({ "cose": "AAAA" }).to_string()),
        ("/signer/v1/heartbeat", "x".repeat(200_000)),
        ("/signer/v1/pull", "x".repeat(300_000)),
        ("/signer/v1/nothing", String::new()),
    ];
    for (path, body) in bodies {
        let (status, _) = gate.send(path, Some("a"), body.clone().into_bytes()).await;
        assert!(status.is_client_error(), "{path} {:.80}: {status}", body);
    }
    assert_eq!(gate.app.store.request("r1").await.unwrap().unwrap().reply, None);
}
