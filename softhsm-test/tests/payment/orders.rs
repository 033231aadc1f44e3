//! What an order meets on its way: other people, limits, its own repetition.

use serde_json::json;

use postern_testkit::wait::{PATIENCE, wait_until};

use crate::stage::{BTC, more_coins, order, payee, received, site};

#[test]
fn an_order_over_the_rule_waits_for_a_second_person_who_saw_what_is_approved() {
    let site = site("approval", "total = \"10 BTC\"");
    more_coins(&site, 1);
    let id = order(&site, "large", BTC + 1);
    let waiting = site.wait_for_state(&id, "awaiting_approval").unwrap();
    let path = format!("/v1/orders/{id}/approve");
    let hash = json!({ "approval_hash": waiting["approval_hash"] });
    assert_eq!(site.shop().post(&path, &hash).unwrap().status, 403);
    let other = json!({ "approval_hash": "00".repeat(32) });
    assert_eq!(site.boss().post(&path, &other).unwrap().status, 409);
    assert_eq!(site.boss().post(&path, &hash).unwrap().status, 200);
    site.confirm(&id).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("large")).unwrap(), [BTC + 1]);
}

#[test]
fn an_external_id_is_paid_once_however_often_it_is_ordered() {
    let site = site("external_id", "total = \"10 BTC\"");
    let id = order(&site, "alice", 1_000_000);
    assert_eq!(order(&site, "alice", 1_000_000), id);
    let body = |sat: u64| json!({ "wallet": "hot", "external_id": "alice", "address": payee("alice").to_string(), "amount_sat": sat });
    assert_eq!(site.shop().post_once("/v1/orders", "another-key", &body(1_000_000)).unwrap().status, 409);
    assert_eq!(site.shop().post_once("/v1/orders", "alice", &body(2_000_000)).unwrap().status, 409);
    site.confirm(&id).unwrap();
    assert_eq!(order(&site, "alice", 1_000_000), id);
    site.bitcoind.mine(1).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("alice")).unwrap(), [1_000_000]);
}

#[test]
fn an_order_that_the_rate_holds_back_says_until_when_and_is_paid_then() {
    // 500 sat come back in a millisecond: a second order of 0.02 BTC waits four seconds at most.
    let site = site("held_back", "rate = [{ amount = \"500 sat\", per = \"1 ms\", burst = \"2100000 sat\" }]\ntotal = \"1 BTC\"");
    more_coins(&site, 1);
    // After a start without proof of freshness buckets are empty: the first order may wait, too.
    let first = order(&site, "first", 2_000_000);
    site.wait_for_state(&first, "broadcast").unwrap();
    let second = order(&site, "second", 2_000_000);
    let waits = site.wait_for_order(&second, "the order to wait", |o| o["blocked"]["kind"] == "wait" || o["state"] == "broadcast").unwrap();
    if waits["state"] != "broadcast" {
        assert_eq!(waits["blocked"]["code"], "refused.rate_wait");
        assert!(waits["blocked"]["until"].is_i64(), "{waits}");
    }
    site.confirm(&second).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("second")).unwrap(), [2_000_000]);
}

#[test]
fn an_order_over_the_total_waits_for_the_managers_and_is_paid_after_their_command() {
    let site = site("over_total", "total = \"0.01 BTC\"");
    let id = order(&site, "alice", 2_000_000);
    let needs = site.wait_for_order(&id, "the order to need a command", |o| o["blocked"]["kind"] == "needs").unwrap();
    assert_eq!(needs["blocked"]["code"], "refused.total_reached");
    site.vaults[0].add_total(10_000_000).unwrap();
    site.confirm(&id).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("alice")).unwrap(), [2_000_000]);
}

#[test]
fn an_order_that_no_limit_will_ever_allow_ends_as_refused_and_gives_the_money_free() {
    let site = site("never", "rate = [{ amount = \"1000000 sat\", per = \"1 s\" }]\ntotal = \"1 BTC\"");
    let id = order(&site, "alice", 50_000_000);
    let ended = site.wait_for_state(&id, "refused").unwrap();
    assert_eq!(ended["blocked"]["code"], "refused.rate_burst");
    wait_until("the money to be free again", PATIENCE, || Ok(site.available_sat("hot")? == BTC)).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("alice")).unwrap(), Vec::<u64>::new());
}
