#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    app::App,
    key::{ApiKey, Scope, scopes_text},
    monitor::Monitor,
    store::NewKey,
    testing::{self, FakeNode, account},
};

const ADDRESS: &str = "bcrt1q6rz28mcfaxtmd6v789l9rrlrusdprr9pz3cppk";

struct Desk {
    _folder: tempfile::TempDir,
    app: Arc<App>,
    router: Router,
}

impl Desk {
    async fn new() -> Self {
        let folder = testing::folder();
        let descriptor = format!("wpkh({}/<0;1>/*)", account(1));
        let (app, _) = testing::app(folder.path(), FakeNode::new(), &descriptor, &["a"], "").await;
        Monitor::new(app.clone()).step(1).await.unwrap();
        Self { _folder: folder, router: super::router(app.clone()), app }
    }

    async fn key(&self, person: &str, scopes: &[Scope]) -> String {
        let key = ApiKey::generate();
        let scopes = scopes_text(&scopes.iter().copied().collect::<BTreeSet<_>>());
        self.app.store.add_key(NewKey { id: key.id(), person: person.into(), hash: key.hash(), scopes, at: 1 }).await.unwrap();
        key.reveal()
    }

    async fn call(&self, method: &str, path: &str, key: &str, idempotency: Option<&str>, body: Vec<u8>) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {key}"));
        if let Some(idempotency) = idempotency {
            request = request.header("Idempotency-Key", idempotency);
        }
        let response = self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn order(&self, key: &str, idempotency: &str, body: Value) -> (StatusCode, Value) {
        self.call("POST", "/v1/orders", key, Some(idempotency), body.to_string().into_bytes()).await
    }
}

fn wish(external_id: &str, amount_sat: u64) -> Value {
    json!({ "external_id": external_id, "wallet": "hot", "address": ADDRESS, "amount_sat": amount_sat })
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_and_nothing_else() {
    let desk = Desk::new().await;
    let create = desk.key("shop", &[Scope::Create]).await;
    let approve = desk.key("boss", &[Scope::Approve]).await;
    let read = desk.key("clerk", &[Scope::Read]).await;
    let (status, order) = desk.order(&create, "k", wish("e", 10_000)).await;
    assert_eq!(status, StatusCode::CREATED);
    let id = order["id"].as_str().unwrap();
    let approval = json!({ "approval_hash": order["approval_hash"] }).to_string();
    let paths = [
        ("POST", "/v1/orders".to_owned(), wish("x", 1_000).to_string(), Scope::Create),
        ("POST", "/v1/addresses".to_owned(), json!({ "wallet": "hot", "reference": "r" }).to_string(), Scope::Create),
        ("GET", "/v1/orders".to_owned(), String::new(), Scope::Read),
        ("GET", format!("/v1/orders/{id}"), String::new(), Scope::Read),
        ("GET", "/v1/wallets".to_owned(), String::new(), Scope::Read),
        ("GET", "/v1/signers".to_owned(), String::new(), Scope::Read),
        ("GET", "/v1/deposits".to_owned(), String::new(), Scope::Read),
        ("POST", format!("/v1/orders/{id}/approve"), approval, Scope::Approve),
        ("POST", format!("/v1/orders/{id}/cancel"), String::new(), Scope::Create),
    ];
    for (method, path, body, needed) in &paths {
        for (key, scope) in [(&create, Scope::Create), (&approve, Scope::Approve), (&read, Scope::Read)] {
            let (status, answer) = desk.call(method, path, key, Some("other"), body.clone().into_bytes()).await;
            assert_eq!(status != StatusCode::FORBIDDEN, scope == *needed, "{method} {path} with {scope}: {status} {answer}");
            if scope != *needed {
                assert_eq!(answer["code"], "key.scope");
            }
        }
    }
}

#[tokio::test]
async fn without_a_valid_key_nothing_is_told() {
    let desk = Desk::new().await;
    let good = desk.key("clerk", &[Scope::Read]).await;
    let (id, _) = good.rsplit_once('_').unwrap();
    let other_secret = format!("{id}_{}", "00".repeat(32));
    for wrong in ["", "x", "postern_00_11", other_secret.as_str(), ApiKey::generate().reveal().as_str()] {
        let (status, answer) = desk.call("GET", "/v1/orders", wrong, None, vec![]).await;
        assert_eq!((status, &answer["code"]), (StatusCode::UNAUTHORIZED, &json!("key.invalid")), "{wrong}");
    }
    let key = ApiKey::parse(&good).unwrap();
    assert!(desk.app.store.revoke_key(&key.id(), 2).await.unwrap());
    assert_eq!(desk.call("GET", "/v1/orders", &good, None, vec![]).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_repeated_call_gives_the_same_order_and_a_changed_one_a_conflict() {
    let desk = Desk::new().await;
    let key = desk.key("shop", &[Scope::Create, Scope::Read]).await;
    let (status, first) = desk.order(&key, "k1", wish("e1", 10_000)).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, again) = desk.order(&key, "k1", wish("e1", 10_000)).await;
    assert_eq!((status, &again["id"]), (StatusCode::OK, &first["id"]));
    let (status, answer) = desk.order(&key, "k1", wish("e1", 10_001)).await;
    assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &json!("order.idempotency_conflict")));
    let (status, answer) = desk.order(&key, "k2", wish("e1", 10_000)).await;
    assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &json!("order.external_id_conflict")));
    let (_, list) = desk.call("GET", "/v1/orders", &key, None, vec![]).await;
    assert_eq!(list["orders"].as_array().unwrap().len(), 1);
    let body = wish("e3", 10_000).to_string().into_bytes();
    let (status, answer) = desk.call("POST", "/v1/orders", &key, None, body).await;
    assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("order.idempotency_key")));
}

#[tokio::test]
async fn an_order_that_cannot_be_paid_is_not_made() {
    let desk = Desk::new().await;
    let key = desk.key("shop", &[Scope::Create]).await;
    let cases = [
        (json!({ "address": "nonsense" }), "order.address"),
        // BIP 84's first address on the main network, and a witness program of a version that nobody can sign for yet.
        (json!({ "address": "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu" }), "order.address"),
        (json!({ "address": "bcrt1pfeessrawgf" }), "order.address"),
        (json!({ "amount_sat": 293 }), "order.amount"),
        (json!({ "amount_sat": 2_100_000_000_000_001_u64 }), "order.amount"),
        (json!({ "amount_sat": u64::MAX }), "order.amount"),
        (json!({ "amount_sat": -1 }), "request.malformed"),
        (json!({ "amount_sat": 1.5 }), "request.malformed"),
        (json!({ "amount_sat": "10000" }), "request.malformed"),
        (json!({ "wallet": "cold" }), "wallet.unknown"),
        (json!({ "external_id": "" }), "request.malformed"),
        (json!({ "external_id": "x".repeat(129) }), "request.malformed"),
        (json!({ "external_id": "a\nb" }), "request.malformed"),
        (json!({ "note": "x".repeat(501) }), "request.malformed"),
        (json!({ "surprise": 1 }), "request.malformed"),
    ];
    for (n, (change, code)) in cases.into_iter().enumerate() {
        let mut body = wish("e", 10_000);
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, answer) = desk.order(&key, &format!("k{n}"), body.clone()).await;
        assert!(status.is_client_error() && answer["code"] == code, "{body}: {status} {answer}");
    }
    let filter = crate::store::OrderFilter { limit: 10, ..Default::default() };
    assert!(desk.app.store.orders(filter).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_approval_names_what_was_shown_and_comes_from_another_person() {
    let desk = Desk::new().await;
    let shop = desk.key("shop", &[Scope::Create, Scope::Approve]).await;
    let shops_other = desk.key("shop", &[Scope::Approve]).await;
    let boss = desk.key("boss", &[Scope::Approve]).await;
    let (_, order) = desk.order(&shop, "k", wish("e", 10_000)).await;
    let path = format!("/v1/orders/{}/approve", order["id"].as_str().unwrap());
    let hash = json!({ "approval_hash": order["approval_hash"] }).to_string().into_bytes();
    for key in [&shop, &shops_other] {
        let (status, answer) = desk.call("POST", &path, key, None, hash.clone()).await;
        assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("order.second_person")));
    }
    let other = json!({ "approval_hash": "0".repeat(64) }).to_string().into_bytes();
    let (status, answer) = desk.call("POST", &path, &boss, None, other).await;
    assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &json!("order.approval_hash")));
    let (status, answer) = desk.call("POST", &path, &boss, None, hash).await;
    assert_eq!((status, &answer["state"]), (StatusCode::OK, &json!("approved")));
}

#[tokio::test]
async fn a_reference_has_one_address_for_ever() {
    let desk = Desk::new().await;
    let key = desk.key("shop", &[Scope::Create]).await;
    let ask = |reference: &str| {
        let body = json!({ "wallet": "hot", "reference": reference }).to_string().into_bytes();
        desk.call("POST", "/v1/addresses", &key, None, body)
    };
    let (status, first) = ask("a").await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, same) = ask("a").await;
    assert_eq!((status, &same), (StatusCode::OK, &first));
    assert_ne!(ask("b").await.1["address"], first["address"]);
    for n in 0..8 {
        assert_eq!(ask(&format!("c{n}")).await.0, StatusCode::CREATED);
    }
    let (status, answer) = ask("one too many").await;
    assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &json!("address.none")));
}

#[tokio::test]
async fn every_wrong_call_is_answered_with_a_typed_error() {
    let desk = Desk::new().await;
    let key = desk.key("all", &[Scope::Create, Scope::Approve, Scope::Read]).await;
    let large = format!("{{\"note\":\"{}\"}}", "x".repeat(70_000)).into_bytes();
    let calls = [
        ("GET", "/nothing", vec![], 404, "request.unknown_path"),
        ("DELETE", "/v1/orders", vec![], 405, "request.method"),
        ("GET", "/v1/orders/none", vec![], 404, "order.unknown"),
        ("GET", "/v1/orders?limit=0", vec![], 400, "request.malformed"),
        ("GET", "/v1/orders?limit=ten", vec![], 400, "request.malformed"),
        ("GET", "/v1/orders?state=lost", vec![], 400, "request.malformed"),
        ("GET", "/v1/orders?colour=red", vec![], 400, "request.malformed"),
        ("POST", "/v1/orders", large, 413, "request.too_large"),
        ("POST", "/v1/orders", vec![0xff, 0xfe], 400, "request.malformed"),
        ("POST", "/v1/orders", "[".repeat(60_000).into_bytes(), 400, "request.malformed"),
        ("POST", "/v1/orders/none/approve", br#"{"approval_hash":"x"}"#.to_vec(), 404, "order.unknown"),
        ("POST", "/v1/orders/none/cancel", vec![], 404, "order.unknown"),
        ("POST", "/v1/addresses", br#"{"wallet":"none","reference":"r"}"#.to_vec(), 422, "wallet.unknown"),
    ];
    for (method, path, body, status, code) in calls {
        let (got, answer) = desk.call(method, path, &key, Some("k"), body).await;
        assert_eq!((got.as_u16(), answer["code"].as_str()), (status, Some(code)), "{method} {path}: {answer}");
        assert!(answer["message"].is_string() && answer["hint"].is_string());
    }
}

#[tokio::test]
async fn the_document_describes_every_path_and_is_served_without_a_key() {
    let desk = Desk::new().await;
    let (status, document) = desk.call("GET", "/openapi.json", "", None, vec![]).await;
    assert_eq!(status, StatusCode::OK);
    let paths: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = [
        "/v1/addresses",
        "/v1/deposits",
        "/v1/orders",
        "/v1/orders/{id}",
        "/v1/orders/{id}/approve",
        "/v1/orders/{id}/cancel",
        "/v1/signers",
        "/v1/wallets",
    ];
    assert_eq!(paths, wanted.into());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_body_is_answered_by_anything_but_a_typed_error(body in proptest::collection::vec(any::<u8>(), 0..300), deep in 0_usize..400) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let desk = Desk::new().await;
            let key = desk.key("all", &[Scope::Create, Scope::Approve]).await;
            let nested = format!("{}{}", "{\"a\":".repeat(deep), "1").into_bytes();
            for body in [body.clone(), nested] {
                for path in ["/v1/orders", "/v1/addresses", "/v1/orders/x/approve"] {
                    let (status, answer) = desk.call("POST", path, &key, Some("k"), body.clone()).await;
                    assert!(status.is_client_error() && answer["code"].is_string(), "{path}: {status} {answer}");
                }
            }
        });
    }
}
