//! What a machine booted, told to somebody elsewhere.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use postern_protocol::{
    attest::Statement,
    refusal::{Refusal, RefusalCode},
    reply::ReplyBody,
    request::{AttestRequest, RequestBody},
};
use postern_signer::client::Client;
use postern_testkit::{
    TpmDevice,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

use crate::daemon::Desk;

const NONCE: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// The statement of this moment.
fn statement(desk: &Desk, nonce: &str) -> Value {
    serde_json::from_str(&desk.done(&["attest", "--nonce", nonce, "--json"])).unwrap()
}

/// What `verify` says of a statement, against a good one.
fn verify(desk: &Desk, statement: &Value, nonce: &str, good: &Value, more: &[&str]) -> (i32, String) {
    desk.board.run.write("statement.json", statement.to_string()).unwrap();
    desk.board.run.write("good.json", good.to_string()).unwrap();
    let verify = [&["attest", "verify", "statement.json", "--nonce", nonce, "--expect", "good.json"], more].concat();
    let (code, out, err) = desk.postern(&verify);
    (code, out + &err)
}

#[test]
fn a_statement_of_the_same_boot_verifies_and_one_of_another_boot_says_which_pcr_changed() {
    let desk = Desk::new("attest");
    let good = statement(&desk, OTHER);
    let now = statement(&desk, NONCE);
    let (code, said) = verify(&desk, &now, NONCE, &good, &[]);
    assert_eq!(code, 0, "{said}");
    for wanted in
        ["signed by the pinned attestation key p256:", "answers this nonce", "PCR 11 (kernel image) holds", "booted what is expected"]
    {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    desk.board.measure(11, 1);
    let changed = statement(&desk, NONCE);
    let (code, said) = verify(&desk, &changed, NONCE, &good, &[]);
    assert!(code == 2 && said.contains("Bad:  PCR 11 (kernel image) holds"), "{said}");
    assert!(said.contains("Good: PCR 7"), "{said}");
    // An update that is known.
    let value = changed["pcrs"]["11"].as_str().unwrap();
    let (code, said) = verify(&desk, &changed, NONCE, &good, &["--pcr", &format!("11={value}")]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn whatever_is_changed_in_a_statement_is_noticed() {
    let desk = Desk::new("changed_statement");
    let good = statement(&desk, OTHER);
    let now = statement(&desk, NONCE);
    let bad = |statement: &Value, nonce: &str, why: &str| {
        let (code, said) = verify(&desk, statement, nonce, &good, &[]);
        assert!(code != 0 && said.contains(why), "{why}: {said}");
    };
    bad(&now, OTHER, "answers another nonce");
    bad(&good, NONCE, "answers another nonce");
    for (field, place) in [("attest", 0), ("attest", 60), ("attest", 100), ("signature", 3), ("signature", 70)] {
        let mut changed = now.clone();
        let mut text = changed[field].as_str().unwrap().to_owned().into_bytes();
        text[place] = if text[place] == b'0' { b'1' } else { b'0' };
        changed[field] = json!(String::from_utf8(text).unwrap());
        bad(&changed, NONCE, "not signed by the pinned attestation key");
    }
    let mut lying = now.clone();
    lying["pcrs"]["11"] = json!("11".repeat(32));
    bad(&lying, NONCE, "not those that the TPM signed");
    let mut fewer = now.clone();
    fewer["pcrs"].as_object_mut().unwrap().remove("11");
    bad(&fewer, NONCE, "not those that the TPM signed");
    for rubbish in [json!({}), json!("x"), json!({ "postern_attestation": 1, "signer": "no" })] {
        bad(&rubbish, NONCE, "not an attestation");
    }
    let mut unreadable = now.clone();
    unreadable["attest"] = json!("zz");
    bad(&unreadable, NONCE, "not an attestation");
    let mut stranger = now.clone();
    stranger["identity_signature"] = good["identity_signature"].clone();
    bad(&stranger, NONCE, "not vouched for by the signer's identity");
    // A nonce that repeats by chance is none.
    assert_eq!(desk.postern(&["attest", "--nonce", "1"]).0, 1);
}

#[test]
fn another_boards_statement_and_another_signers_do_not_pass() {
    let desk = Desk::new("this_one");
    let other = Desk::new("other_one");
    let good = statement(&desk, OTHER);
    let foreign = statement(&other, NONCE);
    let (code, said) = verify(&desk, &foreign, NONCE, &good, &[]);
    assert!(code == 2 && said.contains("not signed by the pinned attestation key"), "{said}");
    // The other board speaks for our signer: it may have its own key believed, and its nonce is bound to its own identity.
    let mut claims = foreign.clone();
    claims["signer"] = good["signer"].clone();
    let (code, said) = verify(&desk, &claims, NONCE, &good, &["--key", foreign["key"].as_str().unwrap()]);
    assert!(code == 2 && said.contains("speaks for another signer"), "{said}");
}

#[test]
fn the_attestation_key_is_made_once_and_only_its_tpm_uses_it() {
    let desk = Desk::new("ak");
    let key = statement(&desk, NONCE)["key"].clone();
    desk.done(&["init"]);
    assert_eq!(statement(&desk, NONCE)["key"], key);
    let other = Desk::new("ak_other");
    std::fs::copy(desk.board.run.join("state/attest-board.key"), other.board.run.join("state/attest-board.key")).unwrap();
    let (code, _, err) = other.postern(&["attest", "--nonce", NONCE]);
    assert!(code == 1 && err.contains("another TPM"), "{err}");
    std::fs::remove_file(desk.board.run.join("state/attest-board.key")).unwrap();
    let (code, _, err) = desk.postern(&["attest", "--nonce", NONCE]);
    assert!(code == 1 && err.contains("`postern init` makes one"), "{err}");
    desk.done(&["init"]);
    assert_ne!(statement(&desk, NONCE)["key"], key);
}

#[test]
fn another_program_verifies_the_quote() {
    let desk = Desk::new("tpm2_tools");
    let now = statement(&desk, NONCE);
    // openssl knows nothing of TPMs and nothing of us: a P-256 signature over what the TPM said.
    let key = hex::decode(now["key"].as_str().unwrap().strip_prefix("p256:").unwrap()).unwrap();
    let prefix = hex::decode("3039301306072a8648ce3d020106082a8648ce3d030107032200").unwrap();
    desk.board.run.write("key.der", [prefix, key].concat()).unwrap();
    desk.board.run.write("attest.bin", hex::decode(now["attest"].as_str().unwrap()).unwrap()).unwrap();
    let signature = hex::decode(now["signature"].as_str().unwrap()).unwrap();
    desk.board.run.write("signature.der", der(&signature)).unwrap();
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-keyform", "DER", "-verify", "key.der", "-signature", "signature.der", "attest.bin"]);
    let output = openssl.current_dir(desk.board.run.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Asks the running signer, as a gate does.
fn ask(desk: &Desk, nonce: &str) -> Result<Statement, Refusal> {
    let mut client = Client::connect(desk.board.run.join("signer.sock")).unwrap();
    match client.ask(RequestBody::Attest(AttestRequest { nonce: nonce.into() })).unwrap() {
        ReplyBody::Attested(said) => Ok(*said),
        ReplyBody::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_running_signer_says_what_was_booted_also_after_something_else_was_measured() {
    let desk = Desk::new("socket");
    let good = statement(&desk, OTHER);
    let mut signer = desk.start();
    let now = serde_json::to_value(ask(&desk, NONCE).unwrap()).unwrap();
    let (code, said) = verify(&desk, &now, NONCE, &good, &[]);
    assert!(code == 0 && said.contains("vouched for by the signer's identity"), "{said}");
    desk.board.measure(11, 1);
    let changed = serde_json::to_value(ask(&desk, NONCE).unwrap()).unwrap();
    let (code, said) = verify(&desk, &changed, NONCE, &good, &[]);
    assert!(code == 2 && said.contains("Bad:  PCR 11"), "{said}");
    assert_eq!(ask(&desk, "short").unwrap_err().code, RefusalCode::FrameMalformed);
    signer.stop().unwrap();
}

#[test]
fn a_gate_that_asks_all_the_time_is_refused_and_learns_when_and_nobody_else_waits() {
    let desk = Desk::new("often");
    let mut signer = desk.start();
    let refused: Vec<Refusal> = (0..40).filter_map(|_| ask(&desk, NONCE).err()).collect();
    assert_eq!(refused.len(), 34);
    assert!(refused.iter().all(|r| r.code == RefusalCode::AttestUnavailable && r.wait_ms.is_some_and(|ms| ms <= 60_000)), "{refused:?}");
    desk.done(&["status"]);
    signer.stop().unwrap();
}

#[test]
fn a_signer_without_its_attestation_key_or_its_tpm_says_which() {
    let mut desk = Desk::new("no_key");
    let mut signer = desk.start();
    let file = desk.board.run.join("state/attest-board.key");
    let key = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let no = ask(&desk, NONCE).unwrap_err();
    assert!(no.code == RefusalCode::AttestKey, "{no:?}");
    std::fs::write(&file, key).unwrap();
    ask(&desk, NONCE).unwrap();
    desk.board.swtpm.kill().unwrap();
    assert_eq!(ask(&desk, NONCE).unwrap_err().code, RefusalCode::AttestUnavailable);
    desk.board.swtpm.start_again().unwrap();
    wait_until("the TPM to be asked again", PATIENCE, || Ok(ask(&desk, NONCE).is_ok())).unwrap();
    signer.kill().unwrap();
}

#[test]
fn a_signer_behind_its_walls_reaches_the_tpm_for_a_statement() {
    let desk = Desk::new("walls");
    let device = TpmDevice::start(&desk.board.run, "chip").unwrap();
    desk.move_to(&device.tcti());
    let mut signer = desk.start();
    assert_eq!(ask(&desk, NONCE).unwrap().nonce, NONCE);
    signer.stop().unwrap();
}

/// What firmware would have written of these measurements, SHA-256 alone.
fn event_log(measured: &[(u8, u8, &str)]) -> Vec<u8> {
    let mut log = [&[0, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &[33, 0, 0, 0], b"Spec ID Event03\0"].concat();
    log.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0]);
    for (pcr, what, words) in measured {
        log.extend([*pcr, 0, 0, 0, 0x0d, 0, 0, 0, 1, 0, 0, 0, 0x0b, 0]);
        log.extend([*what; 32]);
        log.extend([words.len() as u8, 0, 0, 0]);
        log.extend(words.as_bytes());
    }
    log
}

#[test]
fn an_event_log_explains_which_measurement_changed_and_another_program_reads_it_in_the_same_way() {
    let desk = Desk::new("event_log");
    let with_log = |nonce: &str, measured: &[(u8, u8, &str)]| {
        let mut said = statement(&desk, nonce);
        said["event_log"] = json!(STANDARD.encode(event_log(measured)));
        said
    };
    desk.board.measure(7, 1);
    desk.board.measure(11, 2);
    let measured = [(7, 1, "policy"), (11, 2, "kernel")];
    let good = with_log(OTHER, &measured);
    let (code, said) = verify(&desk, &with_log(NONCE, &measured), NONCE, &good, &[]);
    assert!(code == 0 && said.contains("PCR 11 (kernel image): the log's 1 measurements give its value"), "{said}");
    assert!(!said.contains("new EV_"), "{said}");
    // Measured by the firmware, and in its log.
    desk.board.measure(11, 3);
    let measured = [(7, 1, "policy"), (11, 2, "kernel"), (11, 3, "module")];
    let now = with_log(NONCE, &measured);
    let (code, said) = verify(&desk, &now, NONCE, &good, &[]);
    assert!(code == 2 && said.contains(&format!("PCR 11: new EV_IPL `module` {}", "03".repeat(32))), "{said}");
    // tpm2-tools knows nothing of us.
    let file = desk.board.run.write("log.bin", event_log(&measured)).unwrap();
    let told = desk.board.swtpm.tool(&["eventlog", &file.to_string_lossy()]).unwrap();
    for pcr in ["7", "11"] {
        assert!(told.to_lowercase().contains(now["pcrs"][pcr].as_str().unwrap()), "PCR {pcr}: {told}");
    }
    // A log that leaves something out explains nothing, and changes no verdict.
    let (code, said) = verify(&desk, &with_log(NONCE, &measured[..2]), NONCE, &good, &[]);
    assert!(code == 2 && said.contains("PCR 11 (kernel image): the log's 1 measurements do not give its value"), "{said}");
    assert!(!said.contains("module"), "{said}");
    let (code, said) = verify(&desk, &statement(&desk, NONCE), NONCE, &good, &[]);
    assert!(code == 2 && said.contains("no event log came with it"), "{said}");
}

/// ECDSA-Sig-Value (RFC 3279 §2.2.3).
fn der(signature: &[u8]) -> Vec<u8> {
    let integers: Vec<u8> = signature
        .chunks(32)
        .flat_map(|number| {
            let number: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
            let sign: &[u8] = if number[0] & 0x80 == 0 { &[] } else { &[0] };
            [&[2, (number.len() + sign.len()) as u8], sign, &number].concat()
        })
        .collect();
    [&[0x30, integers.len() as u8], integers.as_slice()].concat()
}
