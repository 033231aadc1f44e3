//! `check`, and what all commands have in common.

use std::path::Path;

use crate::desk::{Desk, program, say};

fn example() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/signer.toml")
}

#[test]
fn check_says_the_policy_in_english_its_hash_and_what_to_think_of() {
    let said = say(program("postern-signer").arg("check").arg(example()).arg("--elsewhere")).done();
    assert!(said.starts_with("Signer `vault-1` on signet.\nAll wallets together:\n  At most 0.4 BTC at once"), "{said}");
    assert!(said.contains("\nGood: policy "), "{said}");
    assert!(!said.contains('\u{1b}'), "colours without a terminal");
    let json = say(program("postern-signer").arg("check").arg(example()).args(["--elsewhere", "--json"])).json();
    let hash = json["policy_hash"].as_str().unwrap();
    assert_eq!(hash.len(), 64);
    assert!(said.contains(hash));
}

#[test]
fn check_looks_for_secrets_and_says_what_cannot_be_told_here() {
    let desk = Desk::new("check_machine");
    let said = desk.check(&[]).done();
    assert!(said.contains("Warning: no [anchor]") && said.contains("Warning: no [commands]"), "{said}");
    std::fs::remove_file(desk.token.pin_file()).unwrap();
    let error = desk.check(&[]).failed(1);
    assert!(error.contains("signer.toml:15:7: the secret ") && error.contains("cannot be read"), "{error}");
    desk.check(&["--elsewhere"]).done();
}

#[test]
fn check_names_every_protection_and_whether_it_is_on() {
    let desk = Desk::new("check_protections");
    desk.configure("[sandbox]\ndangerous_network = true\n\n[commands]\nquorum = 1\nmanagers = [\n    { name = \"one\", key = \"ed25519:8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c\" },\n]\n");
    let said = desk.check(&[]).done();
    let (_, protections) = said.split_once("\nProtections:\n").unwrap();
    for line in [
        "   on rate: ",
        "   on total: ",
        "  off anchor: no [anchor]: ",
        "   on raise-by-command: ",
        "  off quorum: [commands] quorum = 1: a single manager",
        "   on forgery-lock: ",
        "   on discreet: ",
        "   on core-dumps: ",
        "   on attach: ",
        "   on new-privileges: ",
        " secret-memory: ",
        " swap: ",
        " files: ",
        " system-calls: ",
        "  off network: [sandbox] dangerous_network: ",
    ] {
        assert!(protections.contains(line), "{line}: {said}");
    }
    let json = desk.check(&["--json"]).json();
    let list = json["protections"].as_array().unwrap();
    let on = |name: &str| list.iter().find(|p| p["name"] == name).unwrap()["on"].as_bool().unwrap();
    assert_eq!((on("rate"), on("anchor"), on("quorum"), on("network"), on("core-dumps")), (true, false, false, false, true));
    // What another machine has cannot be told here.
    let elsewhere = desk.check(&["--elsewhere"]).done();
    assert!(elsewhere.contains("off quorum: ") && !elsewhere.contains("core-dumps"), "{elsewhere}");
}

#[test]
fn check_of_a_wrong_file_ends_with_1_the_line_and_a_hint() {
    let desk = Desk::new("check_wrong");
    desk.configure("[wallet.hot]\nkeystore = \"hsm\"\nkind = \"seed\"\ndescripter = \"\"\n");
    let error = desk.check(&[]).failed(1);
    assert!(error.starts_with("error: "), "{error}");
    assert!(
        error.contains("signer.toml:19:1: unknown key `descripter`; did you mean `descriptor`?\n    19 | descripter = \"\""),
        "{error}"
    );
    // The daemon does not start with it either, says the same, and that starting it again is of no use.
    let daemon = say(program("postern-signer").arg("run").arg("--config").arg(desk.config())).failed(78);
    assert!(daemon.contains("did you mean `descriptor`?"), "{daemon}");
    let missing = say(program("postern").args(["wallet", "show", "--config", "/does/not/exist.toml"])).failed(1);
    assert!(missing.contains("/does/not/exist.toml: cannot be read"), "{missing}");
}

#[test]
fn wrong_arguments_end_with_1_because_2_means_refused() {
    for (name, arguments) in [("postern", vec!["sgin"]), ("postern", vec!["simulate"]), ("postern-signer", vec!["run", "--what"])] {
        let error = say(program(name).args(&arguments)).failed(1);
        assert!(error.contains("Usage:") || error.contains("--help"), "{error}");
    }
}

#[test]
fn help_version_and_completions_are_there() {
    for name in ["postern", "postern-signer"] {
        let help = say(program(name).arg("--help")).done();
        assert!(help.contains("Examples:\n"), "{help}");
        let version = say(program(name).arg("--version")).done();
        assert_eq!(version, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
        for shell in ["bash", "zsh", "fish"] {
            assert!(say(program(name).args(["completions", shell])).done().contains(name));
        }
    }
}

#[test]
fn every_command_has_help() {
    let commands = [
        "init",
        "wallet new",
        "wallet show",
        "wallet export",
        "wallet address",
        "simulate",
        "sign",
        "status",
        "ledger verify",
        "ledger show",
        "command keygen",
        "command new add-total",
        "command new set-total",
        "command new set-rate",
        "command new freeze",
        "command new unfreeze",
        "command sign",
        "command show",
        "command apply",
    ];
    for command in commands {
        let said = say(program("postern").args(command.split(' ')).arg("--help")).done();
        assert!(said.contains(&format!("Usage: postern {command}")), "{said}");
    }
}
