//! Everything else that strangers write: frames, commands, reports, bodies, files.

use std::path::Path;

use bitcoin::{Address, Network};
use postern_protocol::{
    api,
    attest::{self, EventLog, Statement},
    canonical,
    command::{COMMAND_MAX, SignedCommand},
    frame::{self, FRAME_MAX, PREFIX},
    heartbeat,
    key::PublicKey,
    reply::{Reply, ReplyBody},
    request::{Request, RequestBody},
    units::MAX_MONEY_SAT,
};
use postern_signer::{
    command::{CommandRules, Manager},
    config::Config,
    intake::{self, Role},
    ledger::{self, Entry},
};

use super::wish::{ApproveOrder, CreateAddress, CreateOrder, ID_MAX};

/// A frame with its prefix, as the socket gets it, and as the link reads a reply.
pub fn frame(bytes: &[u8]) {
    let Some((prefix, body)) = bytes.split_first_chunk::<PREFIX>() else { return };
    match frame::body_length(*prefix, FRAME_MAX) {
        Ok(length) => assert!(length <= FRAME_MAX),
        Err(too_large) => assert!(too_large.announced > FRAME_MAX),
    }
    for role in [Role::Gate, Role::Operator] {
        match intake::admit(body, role) {
            Ok(admitted) => {
                let _ = (intake::name(admitted.body()), intake::wallet(admitted.body()));
                assert!(role == Role::Operator || !matches!(admitted.body(), RequestBody::Status), "a gate may not ask for the status");
                let again = Request { version: postern_protocol::PROTOCOL_VERSION, id: admitted.id(), body: admitted.into_body() };
                assert_eq!(canonical::to_vec(&again), body, "a second encoding of one request");
            }
            Err(rejected) => assert!(rejected.refusal.message.is_some()),
        }
    }
    if let Ok(reply) = canonical::from_slice::<Reply>(body) {
        assert_eq!(canonical::to_vec(&reply), body, "a second encoding of one reply");
    }
}

/// `signer.toml`. Files that it names are read, so nothing is asserted about those.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A path would make the outcome depend on this machine.
    if text.contains("file") || text.len() > 16 * 1024 {
        return;
    }
    match Config::parse(Path::new("/nowhere/signer.toml"), text) {
        Ok(config) => {
            let hash = config.policy_hash();
            assert_eq!(hash.len(), 64);
            assert!(!config.policy_text().is_empty());
            assert_eq!(config.policy_hash(), hash);
            let _ = config.policy_rules();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn key(n: u8) -> PublicKey {
    // Public halves of the secret keys that hold this byte alone; the seeds in the corpus are signed with them.
    KEYS[usize::from(n) % KEYS.len()].parse().unwrap()
}

const KEYS: [&str; 2] = [
    "ed25519:8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
    "ed25519:8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
];

/// A command file, and whether it is believed.
pub fn command(bytes: &[u8]) {
    let parsed = SignedCommand::from_bytes(bytes);
    if let Ok(signed) = &parsed {
        assert!(bytes.len() <= COMMAND_MAX);
        assert_eq!(signed.to_bytes().unwrap(), bytes, "a second encoding of one command");
    }
    let rules = CommandRules {
        signer: key(0),
        network: "regtest".into(),
        managers: vec![Manager { name: "cfo".into(), key: key(0) }, Manager { name: "cto".into(), key: key(1) }],
        quorum: 2,
    };
    if let Ok(believed) = rules.verify(bytes, 1_800_000_000) {
        let signed = parsed.unwrap();
        assert_eq!(&believed.action, &signed.command().action);
        assert!(signed.verify(&[key(0), key(1)]).is_ok_and(|who| !who.is_empty() && who.len() == believed.managers.len()));
    }
}

/// A signed report, as the coordinator gets it.
pub fn heartbeat(bytes: &[u8]) {
    if let Ok(report) = heartbeat::verify(bytes, &key(0), &[1, 2, 3]) {
        assert_eq!(report.nonce, [1, 2, 3]);
    }
    if let Ok(report) = canonical::from_slice::<heartbeat::Heartbeat>(bytes) {
        assert_eq!(canonical::to_vec(&report), bytes);
    }
}

/// The JSON bodies between link and coordinator, and the CBOR that they carry.
pub fn bodies(bytes: &[u8]) {
    let _ = serde_json::from_slice::<api::Pull>(bytes);
    let _ = serde_json::from_slice::<api::Pulled>(bytes);
    let _ = serde_json::from_slice::<api::Heartbeat>(bytes);
    if let Ok(reply) = serde_json::from_slice::<api::Reply>(bytes) {
        assert_eq!(serde_json::from_slice::<api::Reply>(&serde_json::to_vec(&reply).unwrap()).unwrap(), reply);
        if let Ok(body) = canonical::from_slice::<ReplyBody>(&reply.body.0) {
            assert_eq!(canonical::to_vec(&body), reply.body.0);
            if let ReplyBody::Attested(said) = body {
                statement(&said);
            }
        }
    }
    if let Ok(said) = Statement::parse(bytes) {
        statement(&said);
    }
    let _ = attest::quoted(bytes);
    if let Ok(log) = EventLog::parse(bytes) {
        (0..24).for_each(|pcr| drop(log.of(pcr).map(ToString::to_string).collect::<Vec<_>>()));
        assert!((0..24).all(|pcr| log.of(pcr).next().is_none() || log.replay(pcr) != [0; 32]));
    }
    if let Ok(request) = serde_json::from_slice::<api::Request>(bytes)
        && let Ok(body) = canonical::from_slice::<RequestBody>(&request.body.0)
    {
        assert_eq!(canonical::to_vec(&body), request.body.0);
    }
}

/// The JSON bodies of the coordinator's own API.
pub fn wishes(bytes: &[u8]) {
    let _ = serde_json::from_slice::<ApproveOrder>(bytes);
    if let Ok(wish) = serde_json::from_slice::<CreateAddress>(bytes) {
        assert!(wish.check().is_err() || (1..=ID_MAX).contains(&wish.reference.chars().count()));
    }
    let Ok(wish) = serde_json::from_slice::<CreateOrder>(bytes) else { return };
    let again: CreateOrder = serde_json::from_slice(&serde_json::to_vec(&wish).unwrap()).unwrap();
    for network in [Network::Bitcoin, Network::Signet, Network::Regtest] {
        let script = wish.script(network);
        assert_eq!(script, again.script(network), "an order's canonical body means something else");
        let Ok(script) = script else { continue };
        assert!((1..=MAX_MONEY_SAT).contains(&wish.amount_sat) && !wish.external_id.contains(char::is_control));
        // It is how that network writes the script, but for capitals (BIP 173).
        let address = Address::from_script(&script, network).unwrap();
        let written = address.to_string();
        assert!(wish.address == written || (script.is_witness_program() && wish.address.to_lowercase() == written), "{written}");
        assert!(!script.is_op_return() && address.is_spend_standard());
    }
}

/// What a TPM is said to have said, held against itself: the most that can hold.
fn statement(said: &Statement) {
    let _ = attest::explain(said, Some(said));
    let Ok(findings) = said.verify(&said.expected_of_itself(&said.nonce, said.signer)) else { return };
    if findings.iter().all(|finding| finding.holds) {
        assert!(attest::quoted(&said.attest).is_some_and(|quote| quote.pcrs == Some(said.pcrs.set())));
        assert_eq!(Statement::parse(&serde_json::to_vec(said).unwrap()).unwrap(), *said, "a statement that JSON does not carry");
        assert_eq!(canonical::from_slice::<Statement>(&canonical::to_vec(said)).unwrap(), *said);
    }
}

/// A journal's entry.
pub fn entry(bytes: &[u8]) {
    if let Ok(entry) = canonical::from_slice::<Entry>(bytes) {
        assert_eq!(canonical::to_vec(&entry), bytes, "a second encoding of one entry");
    }
}

/// A ledger's file, as `postern ledger verify` and `show` read it.
pub fn ledger(bytes: &[u8]) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::TempDir::new_in(memory) } else { tempfile::TempDir::new() }.unwrap();
    std::fs::write(folder.path().join("ledger.db"), bytes).unwrap();
    let _ = ledger::verify(folder.path());
    let _ = ledger::show(folder.path(), 0, |_| true);
}
