//! `simulate`, `sign`, `status`, `ledger`, `wallet address`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bitcoin::Psbt;
use postern_testkit::spend;

use crate::desk::{Desk, program, say};

#[test]
fn simulate_says_yes_no_or_cannot_tell_and_charges_nothing() {
    let desk = Desk::new("simulate");
    desk.postern(&["init"]).done();
    let table = desk.postern(&["wallet", "new", "hot", "--keystore", "hsm", "--kind", "seed", "--script", "wpkh"]).done();
    desk.configure(&format!("{table}fee = {{ max = \"500 sat\" }}\n"));
    desk.payment("pay.psbt", 500_000);
    let simulate = |more: &[&str]| desk.postern(&[&["simulate", "--psbt", "pay.psbt"], more].concat());
    let no = simulate(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&no.out).unwrap();
    assert_eq!((no.code, json["verdict"].as_str(), json["refusal"]["code"].as_str()), (2, Some("refused"), Some("refused.fee_absolute")));

    // Neither the token nor the ledger is needed.
    desk.configure(&table);
    desk.token.pull_out().unwrap();
    std::fs::rename(desk.run.join("state"), desk.run.join("away")).unwrap();
    let yes = simulate(&[]).done();
    for wanted in [
        "Would be signed: wallet hot",
        "pays     0.00499 BTC to bcrt1qw508",
        "change   0.095 BTC to 1/0",
        "fee      0.00001 BTC",
        "outflow  0.005 BTC",
    ] {
        assert!(yes.contains(wanted), "{wanted}: {yes}");
    }
    let json = simulate(&["--json"]).json();
    assert_eq!(
        (json["outflow_sat"].as_u64(), json["fee_sat"].as_u64(), json["wallet"].as_str()),
        (Some(500_000), Some(1_000), Some("hot"))
    );

    desk.payment("pay.psbt", 1_100_000);
    let burst = simulate(&[]);
    assert!(burst.out.contains("refused.rate_burst"), "{}", burst.out);
    burst.failed(2);

    for (name, content) in [("pay.psbt", &b"rubbish"[..]), ("pay.psbt", b"")] {
        std::fs::write(desk.run.join(name), content).unwrap();
        assert!(simulate(&[]).failed(1).contains("not a PSBT"));
    }
    assert!(simulate(&["--wallet", "other"]).failed(1).contains("not a PSBT"));
    std::fs::write(desk.run.join("pay.psbt"), b"psbt\xff\x00").unwrap();
    let malformed = simulate(&["--json"]);
    assert!(malformed.out.contains("\"kind\": \"malformed\""), "{}", malformed.out);
    malformed.failed(2);
}

#[test]
fn sign_adds_the_signatures_in_the_form_that_the_file_had_and_a_repeat_is_free() {
    let (desk, mut signer) = Desk::open("sign", "");
    let unsigned = desk.payment("pay.psbt", 500_000);
    let said = desk.postern(&["sign", "pay.psbt", "-o", "signed.psbt"]);
    assert!(said.err.contains("Signed 1 of 1 inputs."), "{}", said.err);
    said.done();
    let signed = Psbt::deserialize(&std::fs::read(desk.run.join("signed.psbt")).unwrap()).unwrap();
    spend::finish(signed.clone()).unwrap();

    std::fs::write(desk.run.join("pay.base64"), STANDARD.encode(unsigned.serialize())).unwrap();
    desk.postern(&["sign", "pay.base64", "-o", "signed.base64", "--wallet", "hot"]).done();
    let text = std::fs::read_to_string(desk.run.join("signed.base64")).unwrap();
    assert_eq!(Psbt::deserialize(&STANDARD.decode(text.trim()).unwrap()).unwrap(), signed);
    let printed = desk.postern(&["sign", "pay.psbt"]).done();
    assert_eq!(printed, text);

    let status = desk.postern(&["status", "--json"]).json();
    assert_eq!((status["charged_sat"].as_u64(), status["charged_transactions"].as_u64()), (Some(500_000), Some(1)));
    let shown = desk.postern(&["status"]).done();
    assert!(shown.contains("charged   0.005 BTC in 1 transaction, ever") && shown.contains("█"), "{shown}");

    desk.payment("more.psbt", 900_000);
    let refused = desk.postern(&["sign", "more.psbt", "-o", "never.psbt"]).failed(2);
    assert!(refused.contains("Refused: refused.rate_wait") && refused.contains("It will pass in "), "{refused}");
    assert!(!desk.run.join("never.psbt").exists());
    assert!(desk.postern(&["status"]).done().contains("refused.rate_wait"));
    assert!(desk.postern(&["sign", "pay.psbt", "--wallet", "cold"]).failed(2).contains("refused.wallet_unknown"));

    signer.stop().unwrap();
    assert!(desk.postern(&["sign", "pay.psbt"]).failed(1).contains("does postern-signer run"));
}

#[test]
fn addresses_come_from_the_signer_and_continue_over_a_thousand() {
    let (desk, _signer) = Desk::open("address", "");
    let shown = desk.postern(&["wallet", "show", "hot", "--json"]).json();
    let first = desk.postern(&["wallet", "address", "hot"]).done();
    assert_eq!(shown[0]["addresses"][0]["address"].as_str().unwrap(), first.trim());
    let many = desk.postern(&["wallet", "address", "hot", "--branch", "1", "--start", "2", "--count", "1500"]).done();
    assert_eq!(many.lines().count(), 1_500);
    assert!(desk.postern(&["wallet", "address", "hot", "--branch", "7"]).failed(2).contains("refused.address_out_of_range"));
    assert!(desk.postern(&["wallet", "address", "cold"]).failed(1).contains("there is hot"));
}

#[test]
fn the_ledger_is_verified_and_read_while_the_signer_runs_and_a_changed_one_is_noticed() {
    let (desk, mut signer) = Desk::open("ledger", "");
    desk.payment("pay.psbt", 500_000);
    desk.postern(&["sign", "pay.psbt", "-o", "signed.psbt"]).done();
    let report = desk.postern(&["ledger", "verify", "--json"]).json();
    assert_eq!(report["charged_sat"].as_u64(), Some(500_000));
    let shown = desk.postern(&["ledger", "show"]).done();
    assert!(shown.contains("charged 0.005 BTC to hot: 0.005 BTC leave, 0.00001 BTC of it fee"), "{shown}");
    let lines = desk.postern(&["ledger", "show", "--json", "--from", "2", "--count", "1"]).done();
    let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!((line["seq"].as_u64(), line["kind"].as_str()), (Some(2), Some("started")));
    // Whoever reads no further ends it without a complaint.
    let config = desk.config();
    let shell = format!("{} ledger show --config {} | head -n 1", env!("CARGO_BIN_EXE_postern"), config.display());
    let piped = say(std::process::Command::new("sh").args(["-c", &shell]));
    assert_eq!((piped.out.lines().count(), piped.err.as_str()), (1, ""));

    signer.stop().unwrap();
    let file = desk.run.join("state/ledger.db");
    let mut bytes = std::fs::read(&file).unwrap();
    // The wallet's name in the charge's entry.
    let at = bytes.windows(4).rposition(|w| w == b"\x63hot").unwrap();
    bytes[at + 1] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = desk.postern(&["ledger", "verify"]).failed(1);
    assert!(error.contains("entry") || error.contains("table"), "{error}");
    assert!(say(program("postern").args(["ledger", "verify", "--file", "/does/not/exist"])).failed(1).contains("ledger"));
}
