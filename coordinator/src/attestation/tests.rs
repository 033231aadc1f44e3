#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey};
use postern_protocol::attest::{PcrValues, qualifying, vouched};

use super::*;
use crate::{
    clock::now_ms,
    config::Span,
    sender,
    store::{AttestationStore as _, NewSigner, SignerStore as _, SqliteStore, StoreError},
    testing::{self, FakeNode, account},
};

/// A signer whose TPM the test holds the key of.
struct Machine {
    tpm: p256::ecdsa::SigningKey,
    identity: SigningKey,
    pcrs: PcrValues,
}

impl Machine {
    fn new(n: u8) -> Self {
        let pcrs = PcrValues([(7, [1; 32]), (11, [2; 32])].into());
        Self { tpm: p256::ecdsa::SigningKey::from_slice(&[n; 32]).unwrap(), identity: SigningKey::from_bytes(&[n; 32]), pcrs }
    }

    fn booted(mut self, pcr: u8, value: u8) -> Self {
        self.pcrs.0.insert(pcr, [value; 32]);
        self
    }

    fn key(&self) -> PublicKey {
        self.identity.verifying_key().into()
    }

    fn says(&self, nonce: &str) -> ReplyBody {
        let bits = self.pcrs.0.keys().fold([0_u8; 3], |mut bits, index| {
            bits[usize::from(index / 8)] |= 1 << (index % 8);
            bits
        });
        let head = [0xff, 0x54, 0x43, 0x47, 0x80, 0x18, 0, 2, 7, 7, 0, 32];
        let mut attest = [&head[..], &qualifying(nonce, &self.key()), &[0; 25], &[0, 0, 0, 1, 0, 0x0b, 3], &bits, &[0, 32]].concat();
        attest.extend(self.pcrs.digest());
        let signature: p256::ecdsa::Signature = p256::ecdsa::signature::Signer::sign(&self.tpm, &attest);
        let key = format!("p256:{}", hex::encode(self.tpm.verifying_key().to_encoded_point(true).as_bytes()));
        ReplyBody::Attested(Box::new(Statement {
            postern_attestation: 1,
            signer: self.key(),
            nonce: nonce.into(),
            identity_signature: self.identity.sign(&vouched(&key, &attest)).to_bytes().to_vec(),
            key,
            pcrs: self.pcrs.clone(),
            attest,
            signature: signature.to_bytes().to_vec(),
            event_log: None,
        }))
    }
}

/// A coordinator with the signer `a`, which must say what it booted, and a clock that only tests move.
struct World {
    _folder: tempfile::TempDir,
    app: Arc<App>,
    store: SqliteStore,
    now: i64,
}

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

impl World {
    async fn new() -> Self {
        let folder = testing::folder();
        let descriptor = format!("wpkh({}/<0;1>/*)", account(1));
        let mut config = testing::config(folder.path(), &descriptor, &["a"], "");
        config.signer.clear();
        let store = SqliteStore::open(&folder.path().join("c.sqlite"), bitcoin::Network::Regtest).await.unwrap();
        let app = Arc::new(App::new(config, Arc::new(store.clone()), FakeNode::new()).unwrap());
        let world = Self { _folder: folder, app, store, now: 1_000 };
        world.pair(&Machine::new(1)).await;
        world
    }

    async fn pair(&self, machine: &Machine) {
        let signer =
            NewSigner { name: "a".into(), tls_pin: "pin".into(), client_auth: "c".into(), signer_key: machine.key(), at: self.now };
        assert!(self.store.add_signer(signer).await.unwrap());
    }

    async fn step(&self) {
        sender::step(&self.app, self.now).await.unwrap();
    }

    /// What is handed out to the signer now.
    async fn handed(&self) -> Vec<(String, RequestBody)> {
        let taken = self.store.take_requests("a", true, 10, 1 << 20, &[], self.now).await.unwrap();
        taken.into_iter().map(|(id, body)| (id, canonical::from_slice(&body).unwrap())).collect()
    }

    /// The open question, if there is one.
    async fn asked(&self) -> Option<(String, String)> {
        self.step().await;
        let questions = self.handed().await.into_iter().filter_map(|(id, body)| match body {
            RequestBody::Attest(AttestRequest { nonce }) => Some((id, nonce)),
            _ => None,
        });
        let questions: Vec<_> = questions.collect();
        assert!(questions.len() <= 1, "{questions:?}");
        questions.into_iter().next()
    }

    async fn reply(&self, id: &str, reply: &ReplyBody) {
        assert!(self.store.reply(id, "a", &canonical::to_vec(reply), self.now).await.unwrap());
        self.step().await;
    }

    /// The machine is asked and answers.
    async fn answer(&self, machine: &Machine) {
        let (id, nonce) = self.asked().await.expect("it is asked");
        self.reply(&id, &machine.says(&nonce)).await;
    }

    async fn row(&self) -> AttestationRow {
        self.store.attestations().await.unwrap().remove(0)
    }

    /// The code of what holds its orders back.
    async fn code(&self) -> Option<String> {
        let rows = self.store.attestations().await.unwrap();
        let blocked = held(&self.app.config, "a", rows.first(), self.now);
        // What is shown and what is done are one.
        assert_eq!(blocked.is_none(), self.gets_orders().await);
        blocked.map(|b| b.code)
    }

    /// Whether it would be handed something else than the question.
    async fn gets_orders(&self) -> bool {
        let request = NewRequest {
            id: random_id("s"),
            signer: "a".into(),
            wallet: "hot".into(),
            kind: RequestKind::Sign,
            member: None,
            body: canonical::to_vec(&RequestBody::Wallets),
            not_before: self.now,
        };
        let id = request.id.clone();
        self.store.add_request(request, self.now).await.unwrap();
        let handed = self.handed().await.iter().any(|(handed, _)| *handed == id);
        if handed {
            let no = ReplyBody::Refused(Refusal::new(RefusalCode::Frozen, ""));
            self.store.reply(&id, "a", &canonical::to_vec(&no), self.now).await.unwrap();
        }
        handed
    }

    async fn accept(&self) -> bool {
        let offered = self.store.attestation_statements("a").await.unwrap().offered.expect("something is offered");
        self.store.accept_attestation("a", &offered, self.now).await.unwrap()
    }
}

#[tokio::test]
async fn the_first_statement_is_pinned_and_a_day_later_the_next_is_asked_for() {
    let mut world = World::new().await;
    assert_eq!(world.code().await.as_deref(), Some(PENDING), "no orders before the first answer");
    world.answer(&Machine::new(1)).await;
    assert_eq!(world.code().await, None);
    assert_eq!((world.row().await.pinned_at, world.row().await.trusted_until), (Some(1_000), 1_000 + DAY + HOUR));
    world.now += DAY - 1;
    assert_eq!(world.asked().await, None);
    world.now += 1;
    world.answer(&Machine::new(1)).await;
    assert_eq!(world.code().await, None);
    let row = world.row().await;
    assert_eq!((row.pinned_at, row.verified_at), (Some(1_000), Some(1_000 + DAY)));
}

#[tokio::test]
async fn what_is_pinned_outlives_the_coordinator_and_not_the_pairing() {
    let mut world = World::new().await;
    let (id, nonce) = world.asked().await.unwrap();
    // The process ends with the question out, and again with the answer in.
    world.app = Arc::new(App::new(world.app.config.clone(), Arc::new(world.store.clone()), FakeNode::new()).unwrap());
    let said = canonical::to_vec(&Machine::new(1).says(&nonce));
    assert!(world.store.reply(&id, "a", &said, world.now).await.unwrap());
    world.app = Arc::new(App::new(world.app.config.clone(), Arc::new(world.store.clone()), FakeNode::new()).unwrap());
    world.step().await;
    assert_eq!(world.code().await, None);
    assert!(world.store.remove_signer("a", 5).await.unwrap());
    assert!(world.store.attestations().await.unwrap().is_empty());
    let other = Machine::new(2).booted(11, 9);
    world.pair(&other).await;
    assert_eq!(world.code().await.as_deref(), Some(PENDING));
    world.answer(&other).await;
    assert_eq!(world.code().await, None);
}

#[tokio::test]
async fn something_else_booted_stops_orders_until_it_is_accepted_even_when_it_was_undone() {
    let mut world = World::new().await;
    world.answer(&Machine::new(1)).await;
    world.now += DAY;
    world.answer(&Machine::new(1).booted(11, 9)).await;
    assert_eq!(world.code().await.as_deref(), Some(CHANGED));
    let message = world.row().await.problem.unwrap().message;
    assert!(message.contains("PCR 11 (kernel image) holds 0909") && message.contains("signer accept a --seen "), "{message}");
    // It boots what it should again: somebody must have looked all the same. Neither rubbish nor a refusal nor a restart hides it.
    world.now += 60_000;
    world.answer(&Machine::new(1)).await;
    assert_eq!(world.code().await.as_deref(), Some(CHANGED));
    assert!(world.row().await.problem.unwrap().message.contains("and what is pinned now"));
    for reply in [Machine::new(2).says("0123456789abcdef"), ReplyBody::Refused(Refusal::new(RefusalCode::AttestUnavailable, "busy"))] {
        world.now += 60_000;
        let (id, _) = world.asked().await.unwrap();
        world.reply(&id, &reply).await;
        assert_eq!(world.code().await.as_deref(), Some(CHANGED));
    }
    restarted(&world.app, "a", world.now).await.unwrap();
    assert_eq!(world.code().await.as_deref(), Some(CHANGED));
    // What is accepted is asked for once more, and must come.
    assert!(world.accept().await);
    assert_eq!(world.code().await.as_deref(), Some(PENDING));
    world.answer(&Machine::new(1)).await;
    assert_eq!(world.code().await, None);
}

#[tokio::test]
async fn what_is_accepted_is_what_was_looked_at() {
    let mut world = World::new().await;
    world.answer(&Machine::new(1)).await;
    world.now += DAY;
    world.answer(&Machine::new(1).booted(11, 9)).await;
    let seen_first = world.store.attestation_statements("a").await.unwrap().offered.unwrap();
    world.now += 60_000;
    world.answer(&Machine::new(1).booted(11, 8)).await;
    assert!(!world.store.accept_attestation("a", &seen_first, world.now).await.unwrap(), "it says something else by now");
    assert!(world.accept().await);
    world.answer(&Machine::new(1).booted(11, 9)).await;
    assert_eq!(world.code().await.as_deref(), Some(CHANGED), "what was not accepted");
}

#[tokio::test]
async fn another_attestation_key_is_a_change_and_what_was_booted_is_told_as_well() {
    let mut world = World::new().await;
    world.answer(&Machine::new(1)).await;
    world.now += DAY;
    let other = Machine { tpm: Machine::new(2).tpm, ..Machine::new(1).booted(7, 9) };
    world.answer(&other).await;
    let problem = world.row().await.problem.unwrap();
    assert_eq!(problem.code, CHANGED);
    assert!(problem.message.contains("not signed by the pinned attestation key") && problem.message.contains("PCR 7"), "{problem:?}");
}

#[tokio::test]
async fn what_is_not_the_signers_own_answer_stops_orders_until_its_own_comes() {
    let mut world = World::new().await;
    let machine = Machine::new(1);
    world.answer(&machine).await;
    let old = machine.says("0123456789abcdef");
    let mut torn = machine.says("0123456789abcdef");
    if let ReplyBody::Attested(statement) = &mut torn {
        statement.attest.truncate(20);
    }
    for wrong in [old, Machine::new(2).says("0123456789abcdef"), torn] {
        world.now += DAY;
        let (id, _) = world.asked().await.unwrap();
        world.reply(&id, &wrong).await;
        assert_eq!(world.code().await.as_deref(), Some(BAD), "{:?}", world.row().await.problem);
        assert_eq!(world.asked().await, None, "not before its time");
        world.now += 60_000;
        world.answer(&machine).await;
        assert_eq!(world.code().await, None);
    }
}

#[tokio::test]
async fn no_answer_for_too_long_stops_orders_and_a_late_one_lets_them_go_on() {
    let mut world = World::new().await;
    world.answer(&Machine::new(1)).await;
    world.now += DAY;
    let (first, _) = world.asked().await.unwrap();
    world.now += HOUR - 1;
    assert_eq!(world.code().await, None);
    world.now += 1;
    assert_eq!(world.code().await.as_deref(), Some(OVERDUE));
    // The old question is no more; an answer to it comes too late.
    let (second, nonce) = world.asked().await.unwrap();
    assert_ne!(first, second);
    assert!(world.store.request(&first).await.unwrap().is_none());
    assert_eq!(world.row().await.problem.unwrap().code, OVERDUE);
    world.now += HOUR / 2;
    world.reply(&second, &Machine::new(1).says(&nonce)).await;
    assert_eq!(world.code().await, None);
    // It proves what was booted after the question, not after the answer.
    assert_eq!(world.row().await.trusted_until, 1_000 + DAY + HOUR + DAY + HOUR);
}

#[tokio::test]
async fn a_restart_is_held_against_what_it_booted_before_orders_go_on() {
    let mut world = World::new().await;
    restarted(&world.app, "a", world.now).await.unwrap();
    world.answer(&Machine::new(1)).await;
    world.now += 5_000;
    restarted(&world.app, "a", world.now).await.unwrap();
    assert_eq!(world.code().await.as_deref(), Some(RESTARTED));
    world.answer(&Machine::new(1)).await;
    assert_eq!(world.code().await, None);
}

#[tokio::test]
async fn an_answer_from_before_the_restart_says_nothing_about_what_was_booted_after_it() {
    let mut world = World::new().await;
    world.answer(&Machine::new(1)).await;
    world.now += DAY;
    let (id, nonce) = world.asked().await.unwrap();
    restarted(&world.app, "a", world.now).await.unwrap();
    assert!(world.store.reply(&id, "a", &canonical::to_vec(&Machine::new(1).says(&nonce)), world.now).await.unwrap());
    world.step().await;
    assert_eq!(world.code().await.as_deref(), Some(RESTARTED));
    world.answer(&Machine::new(1).booted(7, 3)).await;
    assert_eq!(world.code().await.as_deref(), Some(CHANGED));
}

#[tokio::test]
async fn a_refusal_says_what_mends_it_and_one_that_is_over_soon_stops_nothing() {
    let mut world = World::new().await;
    let refuse = |code| ReplyBody::Refused(Refusal::new(code, "so it is"));
    for (code, shown) in [(RefusalCode::AttestNoTpm, NO_TPM), (RefusalCode::AttestKey, REFUSED), (RefusalCode::FrameMalformed, REFUSED)] {
        let (id, _) = world.asked().await.unwrap();
        world.reply(&id, &refuse(code)).await;
        assert_eq!(world.code().await.as_deref(), Some(shown));
        world.now += 60_000;
    }
    world.answer(&Machine::new(1)).await;
    world.now += DAY;
    let (id, _) = world.asked().await.unwrap();
    world.reply(&id, &refuse(RefusalCode::AttestUnavailable)).await;
    assert_eq!(world.code().await, None);
    assert_eq!(world.row().await.problem.unwrap().code, UNAVAILABLE);
    world.now += 60_000;
    let (id, _) = world.asked().await.unwrap();
    world.reply(&id, &refuse(RefusalCode::AttestNoTpm)).await;
    assert_eq!(world.code().await.as_deref(), Some(NO_TPM), "there was one");
}

#[tokio::test]
async fn a_crash_at_any_commit_forgets_no_pin_and_believes_nothing_that_was_not_said() {
    for n in 0.. {
        let mut world = World::new().await;
        let crashed =
            |result: Result<(), crate::app::StepError>| matches!(result, Err(crate::app::StepError::Store(StoreError::Crashed(_))));
        world.store.crash_plan().at(n);
        let mut died = crashed(sender::step(&world.app, world.now).await.map(drop));
        if !died {
            match world.store.take_requests("a", true, 10, 1 << 20, &[], world.now).await {
                Ok(mut taken) => {
                    let (id, body) = taken.remove(0);
                    let RequestBody::Attest(asked) = canonical::from_slice(&body).unwrap() else { panic!() };
                    let said = canonical::to_vec(&Machine::new(1).says(&asked.nonce));
                    died = world.store.reply(&id, "a", &said, world.now).await.is_err();
                }
                Err(_) => died = true,
            }
            died |= crashed(sender::step(&world.app, world.now).await.map(drop));
        }
        let done = world.store.crash_plan().disarm();
        assert_eq!(done, !died);
        world.step().await;
        if world.row().await.pinned_at.is_none() {
            assert_eq!(world.code().await.as_deref(), Some(PENDING));
            world.now += HOUR;
            world.answer(&Machine::new(1)).await;
        }
        assert_eq!(world.code().await, None);
        world.now += DAY;
        world.answer(&Machine::new(1).booted(11, 9)).await;
        assert_eq!(world.code().await.as_deref(), Some(CHANGED));
        if done {
            assert!(n > 6, "only {n} places");
            break;
        }
    }
}

#[tokio::test]
async fn nothing_is_handed_out_that_was_made_before_the_signer_was_held() {
    let mut world = World::new().await;
    world.answer(&Machine::new(1)).await;
    world.now += DAY;
    let (id, nonce) = world.asked().await.unwrap();
    assert!(world.gets_orders().await);
    let order = NewRequest {
        id: "order".into(),
        signer: "a".into(),
        wallet: "hot".into(),
        kind: RequestKind::Sign,
        member: None,
        body: canonical::to_vec(&RequestBody::Wallets),
        not_before: world.now,
    };
    world.store.add_request(order, world.now).await.unwrap();
    assert_eq!(world.handed().await.len(), 2, "the question and the order");
    // The link lost it; meanwhile something else was booted.
    world.reply(&id, &Machine::new(1).booted(11, 9).says(&nonce)).await;
    assert_eq!(world.handed().await, vec![]);
}

#[test]
fn times_are_as_configured() {
    let table = AttestationTable { every: Span::from_ms(1_000), patience: Span::from_ms(100), retry: Span::from_ms(10) };
    let row = |request: Option<&str>, trusted_until| AttestationRow {
        asked_at: Some(5_000),
        request: request.map(str::to_owned),
        trusted_until,
        ..AttestationRow::default()
    };
    assert!(due(None, &table, 0));
    assert!(due(Some(&AttestationRow { asked_at: None, ..row(None, 0) }), &table, 0));
    for (row, after) in [(row(None, i64::MAX), 1_000), (row(Some("r"), i64::MAX), 100), (row(None, 0), 10)] {
        assert!(!due(Some(&row), &table, 5_000 + after - 1) && due(Some(&row), &table, 5_000 + after), "{row:?}");
    }
    assert!(now_ms() > 0 && table.trusted_until(5_000) == 6_100);
}
