//! Good inputs, from which the fuzzer starts. They are written once and kept; this makes them anew after a format has changed:
//! `cargo test -p postern-testkit --test findings -- --ignored`.

use std::{fs, path::Path};

use bitcoin::{Address, Network, ScriptBuf, psbt::Psbt};
use ed25519_dalek::{Signer as _, SigningKey};
use postern_protocol::{
    PROTOCOL_VERSION, api,
    attest::{EventLog, PcrValues, Statement, qualifying, quoted, vouched},
    canonical,
    command::{Action, Command, Rate, Scope, SignedCommand},
    frame,
    heartbeat::{self, Heartbeat},
    key::PublicKey,
    refusal::{Refusal, RefusalCode},
    reply::{InputSignature, Reply, ReplyBody, SignaturePlace, Signed},
    request::{AddressRequest, AttestRequest, HeartbeatRequest, Request, RequestBody, SignRequest},
};
use postern_signer::{
    analysis::analyze,
    anchor::NoAnchor,
    clock::Uptime,
    ledger::{self, Ledger, LedgerOptions},
    policy::rules::{Limits, PolicyRules, WalletPolicy},
};
use postern_testkit::spend::{self, Coin, Output, Scripts};

use crate::targets::{wallets, wish::CreateOrder};

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = super::fuzz().join("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

/// What each wallet would sign; coins of which no chain knows.
fn payments() -> Vec<Psbt> {
    let payment = |site: &wallets::Site| {
        let scripts = Scripts::new(&site.wallet.descriptor()).unwrap();
        let coins =
            Coin::imagine(&[scripts.at(0, 0).unwrap(), scripts.at(0, if scripts.branches() == 1 { 0 } else { 2 }).unwrap()], 1_000_000);
        let somebody = ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").unwrap();
        spend::psbt(&coins, &[Output::Pay(somebody, 1_500_000), Output::Own(Box::new(scripts.change(1).unwrap()), 498_000)]).unwrap()
    };
    wallets::all().iter().map(payment).collect()
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

#[test]
#[ignore = "writes fuzz/corpus"]
fn the_seeds_are_written() {
    let payments = payments();
    for (n, (psbt, site)) in payments.iter().zip(wallets::all()).enumerate() {
        analyze(&site.wallet, &site.rules, &psbt.serialize()).unwrap();
        write("psbt", &format!("wallet-{n}"), &psbt.serialize());
    }
    write("psbt_structured", "plan", &[0; 64]);

    let requests = [
        RequestBody::Sign(SignRequest { wallet: "hot".into(), psbt: vec![1, 2, 3] }),
        RequestBody::Addresses(AddressRequest { wallet: "hot".into(), branch: 0, start: 0, count: 20 }),
        RequestBody::Wallets,
        RequestBody::Status,
        RequestBody::Heartbeat(HeartbeatRequest { nonce: vec![1, 2, 3] }),
        RequestBody::Command(vec![1, 2, 3]),
        RequestBody::Attest(AttestRequest { nonce: NONCE.into() }),
    ];
    for (n, body) in requests.iter().enumerate() {
        let request = Request { version: PROTOCOL_VERSION, id: 7, body: body.clone() };
        write("frame", &format!("request-{n}"), &frame::wrap(&canonical::to_vec(&request)).unwrap());
        let json = api::Request { id: "1".into(), body: api::Base64(canonical::to_vec(body)) };
        write("bodies", &format!("request-{n}"), &serde_json::to_vec(&json).unwrap());
    }
    let signature = InputSignature { input: 0, public_key: vec![2; 33], signature: vec![7; 71], place: SignaturePlace::TapLeaf([7; 32]) };
    let replies = [
        ReplyBody::Signed(Signed { unsigned_txid: [7; 32], signatures: vec![signature.clone()] }),
        ReplyBody::Refused(Refusal::new(RefusalCode::RateWait, "later").wait_ms(7)),
        ReplyBody::Attested(Box::new(statement())),
    ];
    for (n, body) in replies.iter().enumerate() {
        write(
            "frame",
            &format!("reply-{n}"),
            &frame::wrap(&canonical::to_vec(&Reply { version: PROTOCOL_VERSION, id: 7, body: body.clone() })).unwrap(),
        );
        let json = api::Reply { id: "1".into(), body: api::Base64(canonical::to_vec(body)) };
        write("bodies", &format!("reply-{n}"), &serde_json::to_vec(&json).unwrap());
    }
    write("bodies", "statement", &serde_json::to_vec(&statement()).unwrap());
    write("bodies", "quote", &statement().attest);
    write("bodies", "event_log", &event_log());
    let pull = api::Pull { capacity: 4, wait_ms: 25_000, in_flight: vec!["1".into()] };
    write("bodies", "pull", &serde_json::to_vec(&pull).unwrap());
    write("bodies", "heartbeat", &serde_json::to_vec(&api::Heartbeat { cose: api::Base64(vec![1, 2, 3]) }).unwrap());

    let example = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("configs/signer.toml");
    // Without comments, and without what names files.
    let text = fs::read_to_string(example).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty());
    let text: String = lines.map(|line| format!("{}\n", line.replace("{ file =", "{ credential ="))).collect();
    write("config", "example", text.as_bytes());

    commands_and_reports();
    wishes();
    journal(&payments[0]);
}

/// An order for each kind of script and network; an approval; a wish for an address.
fn wishes() {
    let scripts = [
        "76a914751e76e8199196d454941c45d1b3a323f1433bd688ac",
        "a914751e76e8199196d454941c45d1b3a323f1433bd687",
        "0014751e76e8199196d454941c45d1b3a323f1433bd6",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ];
    for (n, script) in scripts.into_iter().enumerate() {
        for network in [Network::Bitcoin, Network::Signet, Network::Regtest] {
            let address = Address::from_script(&ScriptBuf::from_hex(script).unwrap(), network).unwrap().to_string();
            let (external_id, note) = (format!("invoice-{n}"), (n % 2 == 0).then(|| "for people".to_owned()));
            let wish = CreateOrder { external_id, wallet: "hot".into(), address, amount_sat: 100_000, note };
            assert!(wish.script(network).is_ok());
            write("wishes", &format!("order-{n}-{network}"), &serde_json::to_vec(&wish).unwrap());
        }
    }
    write("wishes", "approval", format!("{{\"approval_hash\":\"{}\"}}", "0".repeat(64)).as_bytes());
    write("wishes", "address", br#"{"wallet":"hot","reference":"customer-7"}"#);
}

const NONCE: &str = "0123456789abcdef0123456789abcdef";

/// A statement that holds in everything but the TPM's signature, for which a TPM would be needed.
fn statement() -> Statement {
    let signer = PublicKey::from(key(1).verifying_key());
    let name = format!("p256:03{}", "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
    let pcrs = PcrValues([(7, [1; 32]), (11, [2; 32])].into());
    // Magic, kind, name, nonce, clock and version, one selection of the SHA-256 bank, digest.
    let mut attest = [&[0xff, 0x54, 0x43, 0x47, 0x80, 0x18, 0, 2, 7, 7, 0, 32][..], &qualifying(NONCE, &signer), &[0; 25]].concat();
    attest.extend([0, 0, 0, 1, 0, 0x0b, 3, 0x80, 0x08, 0, 0, 32]);
    attest.extend(pcrs.digest());
    assert!(quoted(&attest).is_some_and(|quote| quote.pcrs == Some(pcrs.set())));
    Statement {
        postern_attestation: 1,
        signer,
        nonce: NONCE.into(),
        identity_signature: key(1).sign(&vouched(&name, &attest)).to_bytes().to_vec(),
        key: name,
        pcrs,
        attest,
        signature: vec![7; 64],
        event_log: Some(event_log()),
    }
}

/// The firmware's log of one measurement, SHA-256 alone.
fn event_log() -> Vec<u8> {
    let mut log = [&[0, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &[33, 0, 0, 0], b"Spec ID Event03\0"].concat();
    log.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0]);
    log.extend([7, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0x0b, 0]);
    log.extend([7; 32]);
    log.extend([4, 0, 0, 0, 0, 0, 0, 0]);
    assert!(EventLog::parse(&log).is_ok_and(|log| log.of(7).count() == 1));
    log
}

fn commands_and_reports() {
    let rate = Rate { amount_sat: 4_000_000, per_ms: 60_000, burst_sat: 40_000_000 };
    let actions = [
        Action::AddTotal(Scope::Signer, 7),
        Action::SetTotal(Scope::Wallet("hot".into()), 7),
        Action::SetRate(Scope::Signer, vec![rate; 2]),
        Action::Freeze(Scope::Signer),
        Action::Unfreeze(Scope::Wallet("hot".into())),
    ];
    for (n, action) in actions.into_iter().enumerate() {
        let signer = PublicKey::from(key(1).verifying_key()).to_bytes();
        let command = Command { signer, network: "regtest".into(), serial: 7, expires: 1_800_000_100, base: None, action };
        let mut signed = SignedCommand::new(command);
        signed.sign(&key(1)).unwrap();
        signed.sign(&key(2)).unwrap();
        write("command", &format!("command-{n}"), &signed.to_bytes().unwrap());
    }
    let report = Heartbeat {
        nonce: vec![1, 2, 3],
        signer: "vault".into(),
        network: "regtest".into(),
        policy_hash: "00".into(),
        ledger_seq: 7,
        ledger_head: "00".into(),
        limits: vec![],
        charged_sat: 5,
        uptime_ms: 1,
        keystores_down: vec!["hsm".into()],
        frozen: vec![],
    };
    write("heartbeat", "signed", &heartbeat::sign(&report, &key(1)).unwrap());
    write("heartbeat", "plain", &canonical::to_vec(&report));
}

/// A ledger with a charge and its signature, and its entries.
fn journal(psbt: &Psbt) {
    let folder = tempfile::TempDir::new().unwrap();
    Ledger::create(folder.path()).unwrap();
    let rules = PolicyRules { signer: Limits { rates: vec![], total_sat: Some(10_000_000) }, ..PolicyRules::default() };
    let rules = PolicyRules { wallets: [("fuzz".into(), WalletPolicy::default())].into(), ..rules };
    let options = LedgerOptions { folder: folder.path().into(), rules, lease_sat: None, policy_hash: "00".into() };
    let open = Ledger::open(options, Box::new(NoAnchor)).unwrap();
    let site = &wallets::all()[0];
    let plan = analyze(&site.wallet, &site.rules, &psbt.serialize()).unwrap();
    let charged = open.charge(plan.into(), Uptime::from_millis(7)).unwrap();
    open.record(
        &charged,
        vec![InputSignature { input: 0, public_key: vec![2; 33], signature: vec![7; 71], place: SignaturePlace::Partial }],
    );
    open.stop(Uptime::from_millis(9)).unwrap();
    write("ledger", "charged", &fs::read(folder.path().join("ledger.db")).unwrap());
    let mut n = 0;
    ledger::show(folder.path(), 0, |line| {
        write("entry", &format!("entry-{n}"), &canonical::to_vec(&line.entry));
        n += 1;
        true
    })
    .unwrap();
    assert!(n > 3);
}
