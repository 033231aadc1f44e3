#![allow(clippy::unwrap_used)]

use bitcoin::{
    Amount, BlockHash, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, absolute::LockTime, hashes::Hash as _, transaction::Version,
};

use super::SqliteStore;
use crate::store::*;

async fn store() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("c.sqlite"), bitcoin::Network::Regtest).await.unwrap();
    (folder, store)
}

fn script(n: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([n; 20]))
}

fn new_order(id: &str, external_id: &str, idempotency_key: &str) -> NewOrder {
    NewOrder {
        id: id.into(),
        external_id: external_id.into(),
        wallet: "hot".into(),
        address: "bcrt1q".into(),
        script: script(9),
        amount_sat: 10_000,
        note: None,
        by: Person { key: "k1".into(), name: "shop".into() },
        at: 1,
        approval_hash: format!("hash of {id}"),
        idempotency_key: idempotency_key.into(),
        body_hash: [1; 32],
    }
}

fn person(key: &str, name: &str) -> Person {
    Person { key: key.into(), name: name.into() }
}

fn pays(n: u8, value_sat: u64) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(u32::from(n)),
        input: vec![TxIn { previous_output: OutPoint::new(Txid::from_byte_array([n; 32]), 0), ..TxIn::default() }],
        output: vec![TxOut { value: Amount::from_sat(value_sat), script_pubkey: script(n) }],
    }
}

fn spends(outpoint: OutPoint, n: u8) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(u32::from(n)),
        input: vec![TxIn { previous_output: outpoint, ..TxIn::default() }],
        output: vec![],
    }
}

fn block(height: u32, fork: u8) -> BlockRef {
    let mut hash = [fork; 32];
    hash[..4].copy_from_slice(&height.to_le_bytes());
    BlockRef { height, hash: BlockHash::from_byte_array(hash) }
}

fn receives(transaction: &Transaction, index: u32) -> Effects {
    let received = Received {
        outpoint: OutPoint::new(transaction.compute_txid(), 0),
        wallet: "hot".into(),
        branch: 0,
        index,
        value_sat: transaction.output[0].value.to_sat(),
        coinbase: false,
    };
    Effects { received: vec![received], spent: vec![], transactions: vec![transaction.clone()] }
}

fn spent(outpoint: OutPoint, by: &Transaction) -> Effects {
    Effects { received: vec![], spent: vec![(outpoint, by.compute_txid())], transactions: vec![by.clone()] }
}

/// A store with one coin of `n` and one approved order.
async fn with_coin_and_order() -> (tempfile::TempDir, SqliteStore, OutPoint) {
    let (folder, store) = store().await;
    let coin = pays(1, 100_000);
    assert!(store.connect(None, block(0, 0), &receives(&coin, 0), 1).await.unwrap());
    store.create_order(new_order("o1", "e1", "i1")).await.unwrap();
    let rule = ApprovalLimit { up_to_sat: 50_000, window_sat: u64::MAX, since: 0 };
    assert_eq!(store.decide_order("o1", rule, 2).await.unwrap(), Some(OrderState::Approved));
    (folder, store, OutPoint::new(coin.compute_txid(), 0))
}

fn member(n: u8, orders: &[&str]) -> NewMember {
    NewMember {
        psbt: vec![n],
        unsigned_txid: spends(OutPoint::null(), n).compute_txid(),
        fee_sat: 100,
        weight_wu: 400,
        pays: orders.iter().zip(0..).map(|(id, vout)| ((*id).to_owned(), vout)).collect(),
        at: 3,
    }
}

fn batch(anchor: OutPoint, n: u8, orders: &[&str]) -> NewFamily {
    NewFamily { wallet: "hot".into(), anchor, coins: vec![anchor], change: (1, 0), member: member(n, orders), at: 3 }
}

#[tokio::test]
async fn an_order_is_made_once_for_each_key_and_each_external_id() {
    let (_folder, store) = store().await;
    assert!(matches!(store.create_order(new_order("o1", "e1", "i1")).await.unwrap(), OrderCreation::Created(_)));
    assert!(matches!(store.create_order(new_order("o2", "e1", "i1")).await.unwrap(), OrderCreation::Repeated(o) if o.id == "o1"));
    assert!(matches!(store.create_order(new_order("o3", "e1", "i2")).await.unwrap(), OrderCreation::ExternalIdConflict(_)));
    let other = NewOrder { body_hash: [2; 32], ..new_order("o4", "e2", "i1") };
    assert!(matches!(store.create_order(other).await.unwrap(), OrderCreation::KeyConflict(_)));
    let of_another_key = NewOrder { by: person("k2", "other"), ..new_order("o5", "e5", "i1") };
    assert!(matches!(store.create_order(of_another_key).await.unwrap(), OrderCreation::Created(_)));
    assert_eq!(store.orders(OrderFilter { limit: 10, ..OrderFilter::default() }).await.unwrap().len(), 2);
}

#[tokio::test]
async fn nobody_approves_what_they_made_or_what_they_did_not_see() {
    let (_folder, store) = store().await;
    store.create_order(new_order("o1", "e1", "i1")).await.unwrap();
    let approve = |hash: &'static str, by: Person| {
        let store = store.clone();
        async move { store.approve_order("o1", hash, &by, 5).await.unwrap() }
    };
    assert!(matches!(approve("hash of o1", person("k1", "shop")).await, OrderChange::SamePerson));
    assert!(matches!(approve("hash of o1", person("k2", "shop")).await, OrderChange::SamePerson), "another key of the same person");
    assert!(matches!(approve("hash of o2", person("k2", "boss")).await, OrderChange::Hash(_)));
    assert!(matches!(approve("hash of o1", person("k2", "boss")).await, OrderChange::Done(o) if o.state == OrderState::Approved));
    assert!(matches!(approve("hash of o1", person("k2", "boss")).await, OrderChange::Done(_)), "repeated");
    assert!(matches!(approve("hash of o1", person("k3", "chief")).await, OrderChange::State(_)));
}

#[tokio::test]
async fn the_rule_approves_no_more_than_its_window() {
    let (_folder, store) = store().await;
    let rule = ApprovalLimit { up_to_sat: 10_000, window_sat: 25_000, since: 0 };
    let mut states = vec![];
    for n in 0..3 {
        let id = format!("o{n}");
        store.create_order(new_order(&id, &id, &id)).await.unwrap();
        states.push(store.decide_order(&id, rule, 2).await.unwrap().unwrap());
    }
    assert_eq!(states, [OrderState::Approved, OrderState::Approved, OrderState::AwaitingApproval]);
    let later = ApprovalLimit { since: 2, ..rule };
    store.create_order(new_order("o9", "o9", "o9")).await.unwrap();
    assert_eq!(store.decide_order("o9", later, 3).await.unwrap(), Some(OrderState::Approved));
}

#[tokio::test]
async fn a_coin_and_an_order_belong_to_one_family_at_a_time() {
    let (_folder, store, coin) = with_coin_and_order().await;
    let family = store.commit_batch(batch(coin, 1, &["o1"])).await.unwrap().unwrap();
    assert_eq!(store.commit_batch(batch(coin, 2, &["o1"])).await.unwrap(), None);
    assert!(store.free_coins("hot").await.unwrap().is_empty());
    assert_eq!(store.order("o1").await.unwrap().unwrap().family, Some(family));
    assert!(matches!(store.cancel_order("o1", 5).await.unwrap(), OrderChange::State(_)), "too late to cancel");
    assert_eq!(store.open_families().await.unwrap().len(), 1, "the batch that failed left nothing");
}

#[tokio::test]
async fn a_cancelled_order_is_in_no_batch() {
    let (_folder, store, coin) = with_coin_and_order().await;
    assert!(matches!(store.cancel_order("o1", 5).await.unwrap(), OrderChange::Done(_)));
    assert_eq!(store.commit_batch(batch(coin, 1, &["o1"])).await.unwrap(), None);
    assert_eq!(store.free_coins("hot").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_family_that_may_be_signed_is_not_refused() {
    let (_folder, store, coin) = with_coin_and_order().await;
    let family = store.commit_batch(batch(coin, 1, &["o1"])).await.unwrap().unwrap();
    let member = store.members(family).await.unwrap()[0].id;
    let request = |id: &str, signer: &str| NewRequest {
        id: id.into(),
        signer: signer.into(),
        wallet: "hot".into(),
        kind: RequestKind::Sign,
        member: Some(member),
        body: vec![1],
        not_before: 0,
    };
    store.ask_signers(member, vec![request("r1", "a"), request("r2", "b")], 4).await.unwrap();
    assert_eq!(store.take_requests("a", false, 10, 1_000, &[], 5).await.unwrap().len(), 1);
    assert_eq!(store.take_requests("b", false, 10, 1_000, &[], 5).await.unwrap().len(), 1);
    let no = Blocked::new(BlockedKind::Forbidden, "refused.rate_burst", "no");
    assert!(store.reply("r1", "a", &[7], 6).await.unwrap());
    store.apply("r1", ReplyEffect::No(no.clone()), 6).await.unwrap();
    store.member_refused(member, &no, 6).await.unwrap();
    assert!(!store.refuse_family(family, 7).await.unwrap(), "b was asked and did not answer");
    assert!(store.reply("r2", "b", &[8], 8).await.unwrap());
    store.apply("r2", ReplyEffect::Signed(vec![0x80]), 8).await.unwrap();
    assert!(!store.refuse_family(family, 9).await.unwrap(), "b signed");
    assert!(store.free_coins("hot").await.unwrap().is_empty());
    assert_ne!(store.order("o1").await.unwrap().unwrap().state, OrderState::Refused);
}

#[tokio::test]
async fn a_refused_familys_anchor_is_spent_before_other_coins() {
    let (_folder, store, coin) = with_coin_and_order().await;
    let family = store.commit_batch(batch(coin, 1, &["o1"])).await.unwrap().unwrap();
    let member = store.members(family).await.unwrap()[0].id;
    store.member_refused(member, &Blocked::new(BlockedKind::Forbidden, "refused.rate_burst", "no"), 6).await.unwrap();
    assert!(store.refuse_family(family, 7).await.unwrap());
    let free = store.free_coins("hot").await.unwrap();
    assert_eq!((free.len(), free[0].spend_first), (1, true));
    let order = store.order("o1").await.unwrap().unwrap();
    assert_eq!((order.state, order.refused_code.as_deref()), (OrderState::Refused, Some("refused.rate_burst")));
}

#[tokio::test]
async fn a_repeated_reply_takes_effect_once() {
    let (_folder, store, coin) = with_coin_and_order().await;
    let family = store.commit_batch(batch(coin, 1, &["o1"])).await.unwrap().unwrap();
    let member = store.members(family).await.unwrap()[0].id;
    let request = |id: &str| NewRequest {
        id: id.into(),
        signer: "a".into(),
        wallet: "hot".into(),
        kind: RequestKind::Sign,
        member: Some(member),
        body: vec![1],
        not_before: 0,
    };
    store.ask_signers(member, vec![request("r1")], 4).await.unwrap();
    assert!(!store.reply("r1", "a", &[7], 6).await.unwrap(), "nobody was asked yet");
    store.take_requests("a", false, 10, 1_000, &[], 5).await.unwrap();
    assert!(!store.reply("r1", "b", &[7], 6).await.unwrap(), "another signer's");
    assert!(store.reply("r1", "a", &[7], 6).await.unwrap());
    assert!(!store.reply("r1", "a", &[8], 6).await.unwrap());
    let again = |next: &str| ReplyEffect::Again {
        outcome: Outcome::Wait,
        next: NewRequest { not_before: 100, ..request(next) },
        blocked: Blocked::new(BlockedKind::Wait, "refused.rate_wait", "later").until(100),
    };
    store.apply("r1", again("r2"), 7).await.unwrap();
    store.apply("r1", again("r3"), 7).await.unwrap();
    assert_eq!(store.member_requests(member).await.unwrap().len(), 2);
    assert_eq!(store.order("o1").await.unwrap().unwrap().blocked.unwrap().until, Some(100));
    assert!(store.take_requests("a", false, 10, 1_000, &[], 99).await.unwrap().is_empty());
    assert_eq!(store.take_requests("a", false, 10, 1_000, &["r2".into()], 100).await.unwrap(), vec![], "in flight");
    assert_eq!(store.take_requests("a", false, 10, 1_000, &[], 100).await.unwrap().len(), 1);
    store.stop_wallet("hot", "c", "m", 100).await.unwrap();
    assert!(store.take_requests("a", false, 10, 1_000, &[], 100).await.unwrap().is_empty(), "stopped");
}

#[tokio::test]
async fn a_reorg_takes_back_what_a_block_did_and_the_mempool_says_what_is_left() {
    let (_folder, store) = store().await;
    let coin = pays(1, 5_000);
    let outpoint = OutPoint::new(coin.compute_txid(), 0);
    let spender = spends(outpoint, 4);
    store.connect(None, block(0, 0), &Effects::default(), 1).await.unwrap();
    assert!(!store.connect(None, block(1, 0), &receives(&coin, 0), 1).await.unwrap(), "not the tip");
    store.connect(Some(block(0, 0).hash), block(1, 0), &receives(&coin, 0), 1).await.unwrap();
    assert_eq!(store.balance("hot", 1, 1).await.unwrap().available_sat, 5_000);
    store.connect(Some(block(1, 0).hash), block(2, 0), &spent(outpoint, &spender), 1).await.unwrap();
    assert_eq!(store.balance("hot", 2, 1).await.unwrap(), Balance::default());

    assert!(store.disconnect(block(2, 0)).await.unwrap());
    assert!(!store.disconnect(block(2, 0)).await.unwrap(), "only once");
    // The spender is back in the mempool, then it is not.
    let all = [spender.compute_txid()].into();
    store.mempool(&Effects::default(), &all, 2).await.unwrap();
    assert_eq!(store.balance("hot", 1, 1).await.unwrap().available_sat, 0);
    store.mempool(&Effects::default(), &[].into(), 2).await.unwrap();
    assert_eq!(store.balance("hot", 1, 1).await.unwrap().available_sat, 5_000);

    assert!(store.disconnect(block(1, 0)).await.unwrap());
    store.mempool(&Effects::default(), &[].into(), 2).await.unwrap();
    assert_eq!(store.balance("hot", 0, 1).await.unwrap(), Balance::default());
    store.connect(Some(block(0, 0).hash), block(1, 9), &receives(&coin, 0), 1).await.unwrap();
    assert_eq!(store.balance("hot", 1, 1).await.unwrap().available_sat, 5_000);
}

#[tokio::test]
async fn an_order_leaves_its_family_only_when_a_member_that_does_not_pay_it_is_buried() {
    let (_folder, store, coin) = with_coin_and_order().await;
    store.create_order(new_order("o2", "e2", "i2")).await.unwrap();
    let rule = ApprovalLimit { up_to_sat: 50_000, window_sat: u64::MAX, since: 0 };
    store.decide_order("o2", rule, 2).await.unwrap();
    let family = store.commit_batch(batch(coin, 1, &["o1", "o2"])).await.unwrap().unwrap();
    let first = store.members(family).await.unwrap()[0].id;
    assert_eq!(store.add_member(family, member(2, &["o1"])).await.unwrap(), None, "one at a time");
    store.member_refused(first, &Blocked::new(BlockedKind::Forbidden, "refused.rate_burst", "no"), 6).await.unwrap();
    let second = store.add_member(family, member(2, &["o1"])).await.unwrap().unwrap();
    assert_eq!(store.order("o2").await.unwrap().unwrap().family, Some(family));
    store.settle(family, Some(second), 9).await.unwrap();
    assert_eq!(store.order("o1").await.unwrap().unwrap().state, OrderState::Confirmed);
    let free = store.order("o2").await.unwrap().unwrap();
    assert_eq!((free.state, free.family, free.blocked), (OrderState::Approved, None, None));
}

#[tokio::test]
async fn an_order_whose_coins_a_stranger_took_is_for_people_to_look_at() {
    let (_folder, store, coin) = with_coin_and_order().await;
    let family = store.commit_batch(batch(coin, 1, &["o1"])).await.unwrap().unwrap();
    store.settle(family, None, 9).await.unwrap();
    let order = store.order("o1").await.unwrap().unwrap();
    assert_eq!((order.state, order.family), (OrderState::Failed, Some(family)));
    assert_eq!(order.blocked.unwrap().code, "family.conflicted");
}

#[tokio::test]
async fn an_address_is_handed_out_for_one_reference_only() {
    let (_folder, store) = store().await;
    let scripts: Vec<OwnScript> =
        (0..5_u8).map(|n| OwnScript { wallet: "hot".into(), branch: 0, index: n.into(), script: script(n), public_key: None }).collect();
    store.add_scripts(&scripts).await.unwrap();
    store.add_scripts(&scripts).await.unwrap();
    let hand = |reference: &'static str| {
        let store = store.clone();
        async move { store.hand_out("hot", reference, 4, 1).await.unwrap() }
    };
    assert_eq!(hand("a").await, HandOut::New(scripts[0].clone()));
    assert_eq!(hand("a").await, HandOut::Same(scripts[0].clone()));
    assert_eq!(hand("b").await, HandOut::New(scripts[1].clone()));
    // Somebody paid to address 2, which nobody remembers to have handed out.
    store.connect(None, block(0, 0), &receives(&pays(2, 1_000), 2), 1).await.unwrap();
    assert_eq!(hand("c").await, HandOut::New(scripts[3].clone()));
    assert_eq!(hand("d").await, HandOut::None, "past the gap");
}

#[tokio::test]
async fn a_change_branch_that_is_used_up_is_used_again_from_its_oldest_end() {
    let (_folder, store, mut anchor) = with_coin_and_order().await;
    let change = |n: u8| OwnScript { wallet: "hot".into(), branch: 1, index: n.into(), script: script(100 + n), public_key: None };
    assert_eq!(store.next_change("hot", 1).await.unwrap(), None, "none is known at all");
    store.add_scripts(&[change(0), change(1), change(2)]).await.unwrap();
    let rule = ApprovalLimit { up_to_sat: u64::MAX, window_sat: u64::MAX, since: 0 };
    let mut taken = vec![];
    // Each payment spends the change of the one before; a block for each.
    for n in 0..8_u8 {
        let order = format!("p{n}");
        store.create_order(new_order(&order, &order, &order)).await.unwrap();
        store.decide_order(&order, rule, 2).await.unwrap();
        let next = store.next_change("hot", 1).await.unwrap().unwrap();
        assert_eq!(store.next_change("hot", 1).await.unwrap().unwrap(), next, "it stays until a batch takes it");
        taken.push(next.index);
        let made = NewFamily { change: (1, next.index), at: 10 + i64::from(n), ..batch(anchor, 10 + n, &[&order]) };
        store.commit_batch(made).await.unwrap().unwrap();
        let change = Transaction { output: pays(n, 90_000).output, ..spends(anchor, n) };
        let mut seen = receives(&change, next.index);
        seen.received[0].branch = 1;
        seen.spent.push((anchor, change.compute_txid()));
        let height = u32::from(n);
        store.connect(Some(block(height, 0).hash), block(height + 1, 0), &seen, 1).await.unwrap();
        anchor = OutPoint::new(change.compute_txid(), 0);
    }
    assert_eq!(taken, [0, 1, 2, 0, 1, 2, 0, 1]);
    // While the coins of all of them are unspent there is none.
    let (_folder, store) = self::store().await;
    store.add_scripts(&[change(0)]).await.unwrap();
    let mut held = receives(&pays(100, 1_000), 0);
    held.received[0].branch = 1;
    store.connect(None, block(0, 0), &held, 1).await.unwrap();
    assert_eq!(store.next_change("hot", 1).await.unwrap(), None);
}

#[tokio::test]
async fn one_process_at_a_time_holds_a_lease() {
    let (_folder, store) = store().await;
    assert!(store.lease("monitor", "a", 0, 10).await.unwrap());
    assert!(!store.lease("monitor", "b", 9, 19).await.unwrap());
    assert!(store.lease("monitor", "a", 9, 19).await.unwrap());
    assert!(store.lease("monitor", "b", 19, 29).await.unwrap());
    store.release("monitor", "a").await.unwrap();
    assert!(!store.lease("monitor", "a", 20, 30).await.unwrap());
    store.release("monitor", "b").await.unwrap();
    assert!(store.lease("monitor", "a", 20, 30).await.unwrap());
}

#[tokio::test]
async fn a_database_of_another_network_is_not_opened() {
    let (folder, store) = store().await;
    store.close().await;
    let error = SqliteStore::open(&folder.path().join("c.sqlite"), bitcoin::Network::Signet).await.unwrap_err();
    assert!(matches!(error, StoreError::Network { .. }), "{error}");
}

#[tokio::test]
async fn a_signer_can_be_paired_again_after_it_was_removed() {
    let (_folder, store) = store().await;
    let signer = |name: &str, pin: &str, key: u8| NewSigner {
        name: name.into(),
        tls_pin: pin.into(),
        client_auth: "c".into(),
        signer_key: ed25519_dalek::SigningKey::from_bytes(&[key; 32]).verifying_key().into(),
        at: 1,
    };
    assert!(store.add_signer(signer("a", "p1", 1)).await.unwrap());
    assert!(store.add_signer(signer("a", "p1", 1)).await.unwrap(), "the same again");
    assert!(!store.add_signer(signer("a", "p2", 2)).await.unwrap(), "other keys under the same name");
    assert!(!store.add_signer(signer("b", "p1", 2)).await.unwrap(), "the same TLS key under another name");
    assert!(!store.add_signer(signer("b", "p2", 1)).await.unwrap(), "the same identity under another name");
    assert!(store.remove_signer("a", 2).await.unwrap());
    assert!(store.signers().await.unwrap().is_empty());
    assert!(store.add_signer(signer("b", "p1", 1)).await.unwrap());
    assert!(store.add_signer(signer("a", "p2", 2)).await.unwrap());
    assert_eq!(store.signers().await.unwrap().len(), 2);
}

#[tokio::test]
async fn every_connection_that_writes_syncs_fully() {
    let (_folder, store) = store().await;
    let mut tx = store.begin("test").await.unwrap();
    let (synchronous,): (i64,) = sqlx::query_as("PRAGMA synchronous").fetch_one(&mut *tx).await.unwrap();
    let (mode,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(&mut *tx).await.unwrap();
    assert_eq!((synchronous, mode.as_str()), (2, "wal"));
}
