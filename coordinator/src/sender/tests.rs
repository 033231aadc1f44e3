#![allow(clippy::unwrap_used)]

mod chain;
mod random;

use std::sync::Arc;

use bitcoin::{ScriptBuf, Transaction, hashes::Hash as _};
use postern_protocol::{
    canonical,
    refusal::{Refusal, RefusalCode},
    reply::ReplyBody,
    request::RequestBody,
};

use crate::{
    app::App,
    monitor::Monitor,
    orders,
    store::{HandOut, MemberState, NewOrder, Order, OrderCreation, OrderFilter, OrderState, OrderStore as _, Person, SqliteStore},
    testing::{self, FakeNode, account, master, sign},
};

/// No approval needed, no waiting, few confirmations.
const LINES: &str = "approval = { automatic_up_to = \"1 BTC\" }\nbatch = { wait = \"1 ms\" }\ndeposit_confirmations = 1\npayment_confirmations = 2\n\
     fee = { bump_after_blocks = 3 }";

/// A coordinator with its world, and a clock that only tests move.
struct World {
    _folder: tempfile::TempDir,
    node: Arc<FakeNode>,
    app: Arc<App>,
    store: SqliteStore,
    monitor: Monitor,
    now: i64,
    /// Masters of the signers, by name.
    signers: Vec<(&'static str, u8)>,
    /// Complete transactions that a signer's link may keep back.
    hoard: Vec<Transaction>,
}

/// How a signer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Sign,
    Refuse(RefusalCode),
    /// Signs, keeps the signatures, and says no.
    Lie(RefusalCode),
    /// The reply is lost; the request is handed out again.
    Lose,
}

fn one_key() -> String {
    format!("wpkh({}/<0;1>/*)", account(1))
}

impl World {
    async fn new(descriptor: &str, signers: &[(&'static str, u8)], lines: &str) -> Self {
        let folder = testing::folder();
        let node = FakeNode::new();
        let names: Vec<&str> = signers.iter().map(|(name, _)| *name).collect();
        let (app, store) = testing::app(folder.path(), node.clone(), descriptor, &names, lines).await;
        let monitor = Monitor::new(app.clone());
        Self { _folder: folder, node, app, store, monitor, now: 1_000, signers: signers.to_vec(), hoard: vec![] }
    }

    async fn simple() -> Self {
        let mut world = Self::new(&one_key(), &[("a", 1)], LINES).await;
        world.deposit(1_000_000).await;
        world
    }

    /// The process ends and starts again; the disk stays.
    fn restart(&mut self) {
        self.store.crash_plan().disarm();
        self.app = Arc::new(App::new(self.app.config.clone(), Arc::new(self.store.clone()), self.node.clone()).unwrap());
        self.monitor = Monitor::new(self.app.clone());
    }

    async fn deposit(&mut self, sat: u64) {
        self.round().await;
        let reference = format!("r{}", self.now);
        let HandOut::New(own) = self.app.store.hand_out("hot", &reference, 1_000, self.now).await.unwrap() else { panic!("no address") };
        self.node.fund(&own.script, sat);
        self.node.mine(1);
        self.round().await;
    }

    /// Steps of all components, as they come; a component that fails is tried again in the next round.
    async fn round(&mut self) -> bool {
        self.now += 300;
        let mut good = true;
        for _ in 0..3 {
            good &= self.monitor.step(self.now).await.is_ok();
        }
        good &= orders::step(&self.app, self.now).await.is_ok();
        good &= super::step(&self.app, self.now).await.is_ok();
        good
    }

    async fn rounds(&mut self, n: u32) {
        for _ in 0..n {
            assert!(self.round().await);
        }
    }

    /// The signer takes what it is asked and answers. How many requests there were.
    async fn answer(&mut self, signer: &str, answer: Answer) -> usize {
        let Ok(taken) = self.app.store.take_requests(signer, false, 10, 1 << 20, &[], self.now).await else { return 0 };
        let count = taken.len();
        for (id, body) in taken {
            let RequestBody::Sign(request) = canonical::from_slice(&body).unwrap() else { panic!("not a signature") };
            let key = self.signers.iter().find(|(name, _)| *name == signer).unwrap().1;
            let signed = sign(&request.psbt, &master(key));
            // What was signed may be kept back, whatever the reply says.
            if matches!(answer, Answer::Sign | Answer::Lie(_)) {
                let psbt = bitcoin::Psbt::deserialize(&request.psbt).unwrap();
                self.hoard.extend(crate::draft::finalise(&psbt, &signed.signatures).unwrap());
            }
            let reply = match answer {
                Answer::Sign => ReplyBody::Signed(signed),
                Answer::Refuse(code) | Answer::Lie(code) => ReplyBody::Refused(Refusal::new(code, "as told")),
                Answer::Lose => continue,
            };
            let _ = self.app.store.reply(&id, signer, &canonical::to_vec(&reply), self.now).await;
        }
        count
    }

    async fn order(&self, name: &str, sat: u64) -> String {
        let script = payee(name);
        let id = format!("o-{name}");
        let hash = orders::approval::hash(bitcoin::Network::Regtest, &id, name, "hot", script.as_bytes(), sat);
        let order = NewOrder {
            id: id.clone(),
            external_id: name.into(),
            wallet: "hot".into(),
            address: name.into(),
            script,
            amount_sat: sat,
            note: None,
            by: Person { key: "k".into(), name: "shop".into() },
            at: self.now,
            approval_hash: hash,
            idempotency_key: name.into(),
            body_hash: [0; 32],
        };
        assert!(matches!(self.app.store.create_order(order).await.unwrap(), OrderCreation::Created(_)));
        id
    }

    async fn look(&self, id: &str) -> Order {
        self.store.order(id).await.unwrap().unwrap()
    }

    async fn state(&self, id: &str) -> OrderState {
        self.look(id).await.state
    }

    async fn code(&self, id: &str) -> String {
        self.look(id).await.blocked.map(|b| b.code).unwrap_or_default()
    }

    fn paid(&self, name: &str) -> Vec<u64> {
        self.node.paid().remove(&payee(name)).unwrap_or_default()
    }
}

fn payee(name: &str) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::hash(name.as_bytes()))
}

#[tokio::test]
async fn an_order_goes_from_created_to_confirmed_and_is_paid_once() {
    let mut world = World::simple().await;
    let id = world.order("alice", 50_000).await;
    assert_eq!(world.state(&id).await, OrderState::Created);
    world.rounds(2).await;
    assert_eq!(world.state(&id).await, OrderState::Signing);
    assert_eq!(world.answer("a", Answer::Sign).await, 1);
    world.rounds(3).await;
    assert_eq!(world.state(&id).await, OrderState::Broadcast);
    world.node.mine(1);
    world.rounds(1).await;
    assert_eq!(world.state(&id).await, OrderState::Broadcast, "one confirmation of two");
    assert_eq!(world.store.payment(&id).await.unwrap().unwrap().height, Some(2));
    world.node.mine(1);
    world.rounds(1).await;
    assert_eq!(world.state(&id).await, OrderState::Confirmed);
    assert_eq!(world.paid("alice"), [50_000]);
}

#[tokio::test]
async fn orders_that_wait_together_are_one_transaction() {
    let mut world = World::simple().await;
    let ids = [world.order("a", 1_000).await, world.order("b", 2_000).await, world.order("c", 3_000).await];
    world.rounds(2).await;
    assert_eq!(world.answer("a", Answer::Sign).await, 1);
    world.rounds(3).await;
    assert_eq!(world.node.waiting().len(), 1);
    for id in ids {
        assert_eq!(world.state(&id).await, OrderState::Broadcast);
    }
}

#[tokio::test]
async fn a_wait_is_shown_with_its_time_and_asked_again_then() {
    let mut world = World::simple().await;
    let id = world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Refuse(RefusalCode::RateWait)).await;
    world.rounds(1).await;
    let blocked = world.look(&id).await.blocked.unwrap();
    assert_eq!((blocked.code.as_str(), blocked.until), ("refused.rate_wait", Some(world.now + 5_000)));
    assert_eq!(world.answer("a", Answer::Sign).await, 0, "not before its time");
    world.now += 5_000;
    assert_eq!(world.answer("a", Answer::Sign).await, 1);
    world.rounds(3).await;
    assert_eq!(world.state(&id).await, OrderState::Broadcast);
    assert_eq!(world.look(&id).await.blocked, None);
}

#[tokio::test]
async fn what_needs_a_command_is_kept_and_asked_again_when_a_report_shows_a_change() {
    let mut world = World::simple().await;
    let id = world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Refuse(RefusalCode::TotalReached)).await;
    world.rounds(1).await;
    assert_eq!(world.code(&id).await, "refused.total_reached");
    assert_eq!(world.answer("a", Answer::Sign).await, 0);
    assert_eq!(world.app.store.wake_needs("a", world.now).await.unwrap(), 1);
    assert_eq!(world.answer("a", Answer::Sign).await, 1);
    world.rounds(3).await;
    assert_eq!(world.state(&id).await, OrderState::Broadcast);
}

#[tokio::test]
async fn an_order_that_is_refused_alone_is_refused_and_its_coin_free() {
    let mut world = World::simple().await;
    let id = world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Refuse(RefusalCode::RateBurst)).await;
    world.rounds(3).await;
    assert_eq!((world.state(&id).await, world.code(&id).await.as_str()), (OrderState::Refused, "refused.rate_burst"));
    let next = world.order("bob", 40_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Sign).await;
    world.rounds(3).await;
    assert_eq!(world.state(&next).await, OrderState::Broadcast);
}

#[tokio::test]
async fn one_bad_order_in_a_batch_is_found_and_the_others_are_paid_once() {
    let mut world = World::simple().await;
    let names = ["a", "b", "c", "bad", "e"];
    let mut ids = vec![];
    for name in names {
        ids.push(world.order(name, 10_000).await);
    }
    for _ in 0..60 {
        world.rounds(1).await;
        let open = world.app.store.take_requests("a", false, 10, 1 << 20, &[], world.now).await.unwrap();
        for (id, body) in open {
            let RequestBody::Sign(request) = canonical::from_slice(&body).unwrap() else { panic!() };
            let psbt = bitcoin::Psbt::deserialize(&request.psbt).unwrap();
            let bad = psbt.unsigned_tx.output.iter().any(|o| o.script_pubkey == payee("bad"));
            let reply = if bad {
                ReplyBody::Refused(Refusal::new(RefusalCode::DestinationForbidden, "bad"))
            } else {
                ReplyBody::Signed(sign(&request.psbt, &master(1)))
            };
            world.app.store.reply(&id, "a", &canonical::to_vec(&reply), world.now).await.unwrap();
        }
        if !world.node.waiting().is_empty() {
            world.node.mine(2);
        }
    }
    for (name, id) in names.iter().zip(&ids) {
        let (wanted, paid) = if *name == "bad" { (OrderState::Refused, vec![]) } else { (OrderState::Confirmed, vec![10_000]) };
        assert_eq!((world.state(id).await, world.paid(name)), (wanted, paid), "{name}");
    }
}

#[tokio::test]
async fn a_link_that_says_no_and_broadcasts_what_was_signed_does_not_get_an_order_paid_twice() {
    let mut world = World::simple().await;
    let id = world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Lie(RefusalCode::RateBurst)).await;
    world.rounds(3).await;
    assert_eq!(world.state(&id).await, OrderState::Refused);
    let kept_back = world.hoard.pop().unwrap();
    // Either it comes out and the order shows that it was paid …
    world.node.take(&kept_back);
    world.node.mine(2);
    world.rounds(3).await;
    assert_eq!(world.state(&id).await, OrderState::Confirmed);
    assert_eq!(world.paid("alice"), [50_000]);
}

#[tokio::test]
async fn what_a_lying_link_kept_back_is_worth_nothing_after_the_next_payment() {
    let mut world = World::simple().await;
    world.deposit(3_000_000).await;
    let id = world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Lie(RefusalCode::RateBurst)).await;
    world.rounds(3).await;
    let kept_back = world.hoard.pop().unwrap();
    // … or the next payment spends the same coin, though there are others.
    world.order("bob", 10_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Sign).await;
    world.rounds(3).await;
    world.node.mine(2);
    world.rounds(2).await;
    assert!(matches!(world.node.take(&kept_back), crate::node::Acceptance::No(_)));
    assert_eq!((world.state(&id).await, world.paid("alice")), (OrderState::Refused, vec![]));
}

#[tokio::test]
async fn fraud_and_misfits_stop_the_wallet_until_somebody_looked() {
    for code in [RefusalCode::PrevtxMismatch, RefusalCode::WalletUnknown] {
        let mut world = World::simple().await;
        let id = world.order("alice", 50_000).await;
        world.rounds(2).await;
        world.answer("a", Answer::Refuse(code)).await;
        let next = world.order("bob", 50_000).await;
        world.rounds(3).await;
        assert_eq!(world.code(&id).await, code.as_str());
        assert_eq!(world.code(&next).await, code.as_str(), "nothing new is batched");
        assert_eq!(world.state(&next).await, OrderState::Approved);
        assert_eq!(world.answer("a", Answer::Sign).await, 0);
        assert!(world.app.store.resume_wallet("hot").await.unwrap());
        world.rounds(2).await;
        world.answer("a", Answer::Sign).await;
        world.rounds(3).await;
        assert_eq!(world.state(&id).await, OrderState::Broadcast);
    }
}

#[tokio::test]
async fn a_made_up_signature_stops_the_wallet() {
    let mut world = World::simple().await;
    let id = world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.signers = vec![("a", 1)];
    let (request, body) = world.app.store.take_requests("a", false, 1, 1 << 20, &[], world.now).await.unwrap().remove(0);
    let RequestBody::Sign(asked) = canonical::from_slice(&body).unwrap() else { panic!() };
    let mut signed = sign(&asked.psbt, &master(1));
    signed.signatures[0].signature[20] ^= 1;
    world.app.store.reply(&request, "a", &canonical::to_vec(&ReplyBody::Signed(signed)), world.now).await.unwrap();
    world.rounds(2).await;
    assert_eq!(world.code(&id).await, "signature.invalid");
    assert!(world.node.waiting().is_empty());
}

#[tokio::test]
async fn two_of_three_are_asked_and_a_third_when_one_waits() {
    let descriptor = format!("wsh(sortedmulti(2,{}/<0;1>/*,{}/<0;1>/*,{}/<0;1>/*))", account(1), account(2), account(3));
    let mut world = World::new(&descriptor, &[("a", 1), ("b", 2), ("c", 3)], LINES).await;
    world.deposit(1_000_000).await;
    let id = world.order("alice", 50_000).await;
    world.rounds(2).await;
    assert_eq!(world.answer("c", Answer::Sign).await, 0, "two are enough");
    assert_eq!(world.answer("a", Answer::Sign).await, 1);
    assert_eq!(world.answer("b", Answer::Refuse(RefusalCode::RateWait)).await, 1);
    world.rounds(2).await;
    assert_eq!(world.answer("c", Answer::Sign).await, 1);
    world.rounds(3).await;
    assert_eq!(world.state(&id).await, OrderState::Broadcast);
}

#[tokio::test]
async fn an_order_without_money_says_how_much_is_missing_and_small_ones_go_first() {
    let mut world = World::simple().await;
    let large = world.order("large", 5_000_000).await;
    let small = world.order("small", 50_000).await;
    world.rounds(3).await;
    assert_eq!(world.state(&small).await, OrderState::Signing);
    assert_eq!((world.state(&large).await, world.code(&large).await.as_str()), (OrderState::Approved, "funds.insufficient"));
    world.deposit(6_000_000).await;
    world.rounds(2).await;
    assert_eq!(world.state(&large).await, OrderState::Signing);
}

#[tokio::test]
async fn an_order_that_was_changed_after_its_approval_is_not_paid() {
    let mut world = World::simple().await;
    let script = payee("thief");
    let order = NewOrder {
        id: "o1".into(),
        external_id: "e1".into(),
        wallet: "hot".into(),
        address: "x".into(),
        script,
        amount_sat: 10_000,
        note: None,
        by: Person { key: "k".into(), name: "shop".into() },
        at: 1,
        approval_hash: orders::approval::hash(bitcoin::Network::Regtest, "o1", "e1", "hot", payee("alice").as_bytes(), 10_000),
        idempotency_key: "i".into(),
        body_hash: [0; 32],
    };
    world.app.store.create_order(order).await.unwrap();
    world.rounds(3).await;
    assert_eq!((world.state("o1").await, world.code("o1").await.as_str()), (OrderState::Failed, "order.tampered"));
    let filter = OrderFilter { limit: 10, ..OrderFilter::default() };
    assert!(world.store.orders(filter).await.unwrap().iter().all(|o| o.family.is_none()));
}

#[tokio::test]
async fn two_of_every_component_at_once_pay_every_order_once() {
    let mut world = World::simple().await;
    let store = SqliteStore::open(&world._folder.path().join("c.sqlite"), bitcoin::Network::Regtest).await.unwrap();
    let twin = Arc::new(App::new(world.app.config.clone(), Arc::new(store), world.node.clone()).unwrap());
    let mut of_twin = Monitor::new(twin.clone());
    let names: Vec<String> = (0..6).map(|n| format!("n{n}")).collect();
    for name in &names {
        world.order(name, 20_000).await;
        for _ in 0..6 {
            world.now += 300;
            let now = world.now;
            // Without leases: the store alone has to keep them apart.
            let _ = tokio::join!(world.monitor.step(now), of_twin.step(now));
            let _ = tokio::join!(orders::step(&world.app, now), orders::step(&twin, now));
            let _ = tokio::join!(super::step(&world.app, now), super::step(&twin, now));
            world.answer("a", Answer::Sign).await;
        }
        world.node.mine(1);
    }
    world.node.mine(2);
    world.rounds(3).await;
    for name in &names {
        assert_eq!((world.state(&format!("o-{name}")).await, world.paid(name)), (OrderState::Confirmed, vec![20_000]), "{name}");
    }
}

#[tokio::test]
async fn another_signer_is_asked_in_the_place_of_one_that_did_not_say_what_it_booted() {
    let descriptor = format!("wsh(sortedmulti(1,{}/<0;1>/*,{}/<0;1>/*))", account(1), account(2));
    let mut world = World::new(&descriptor, &[("a", 1), ("b", 2)], LINES).await;
    let must_say = |world: &mut World, names: &[&str]| {
        let mut config = world.app.config.clone();
        config.signer.retain(|name, _| !names.contains(&name.as_str()));
        world.app = Arc::new(App::new(config, Arc::new(world.store.clone()), world.node.clone()).unwrap());
        world.monitor = Monitor::new(world.app.clone());
    };
    must_say(&mut world, &["a"]);
    world.deposit(1_000_000).await;
    let id = world.order("alice", 50_000).await;
    world.rounds(2).await;
    assert_eq!(world.answer("a", Answer::Sign).await, 0, "the first one in the list was asked");
    // Now neither of them says it, and the one that was asked has not answered.
    let declared = world.app.config.clone();
    must_say(&mut world, &["b"]);
    world.rounds(1).await;
    assert_eq!(world.code(&id).await, "attestation.pending");
    world.app = Arc::new(App::new(declared, Arc::new(world.store.clone()), world.node.clone()).unwrap());
    world.rounds(1).await;
    assert_eq!(world.look(&id).await.blocked, None, "the reason outlives what it names");
    assert_eq!(world.answer("b", Answer::Sign).await, 1);
    world.rounds(3).await;
    assert_eq!(world.state(&id).await, OrderState::Broadcast);
}
