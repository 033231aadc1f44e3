//! Managers' commands from key to effect, each manager at a desk of his own.

use crate::desk::{Desk, program, say};

/// Makes a manager's key and gives the line for the configuration.
fn keygen(desk: &Desk, name: &str, more: &[&str]) -> String {
    let file = format!("{name}.key");
    let made = say(program("postern").args(["command", "keygen", "-o", &file, "--name", name]).args(more).current_dir(desk.run.path()));
    made.done().trim().to_owned()
}

fn open(label: &str) -> (Desk, postern_testkit::Process, String) {
    let desk = Desk::new(label);
    desk.run.write("cfo.pass", "a long enough passphrase\n").unwrap();
    let managers = [keygen(&desk, "cfo", &["--passphrase-file", "cfo.pass"]), keygen(&desk, "cto", &["--no-passphrase"])];
    let init = desk.postern(&["init"]).done();
    let key = init.lines().find_map(|line| line.strip_prefix("Identity: ")).unwrap().to_owned();
    let table = desk.postern(&["wallet", "new", "hot", "--keystore", "hsm", "--kind", "seed", "--script", "wpkh"]).done();
    desk.configure(&format!("{table}\n[commands]\nquorum = 2\nmanagers = [{}]\n", managers.join(", ")));
    let signer = desk.start();
    (desk, signer, key)
}

#[test]
fn a_command_is_made_signed_by_a_quorum_read_in_words_and_applied_once() {
    let (desk, _signer, key) = open("command");
    let new = ["command", "new", "add-total", "1.5 BTC", "--signer-key", &key, "--network", "regtest", "-o", "more.command"];
    let said = desk.postern(&new).done();
    assert!(said.contains("Command: let 1.5 BTC more leave the whole signer than its total allows so far"), "{said}");
    assert!(said.contains("  expires     2") && said.contains("signed by nobody yet"), "{said}");
    assert!(desk.postern(&new).failed(1).contains("more.command exists"));

    // Unsigned, then signed by one: the signer refuses, and says what is missing.
    assert!(desk.postern(&["command", "apply", "more.command"]).failed(2).contains("refused.command_quorum"));
    let sign = ["command", "sign", "more.command", "--key", "cto.key"];
    assert!(desk.postern(&sign).failed(1).contains("--yes signs without asking"));
    desk.postern(&[&sign[..], &["--yes"]].concat()).done();
    assert!(desk.postern(&[&sign[..], &["--yes"]].concat()).failed(1).contains("signed twice"));
    assert!(desk.postern(&["command", "apply", "more.command"]).failed(2).contains("refused.command_quorum"));

    // The other manager is elsewhere and has no configuration.
    let signed = say(program("postern")
        .args(["command", "sign", "more.command", "--key", "cfo.key", "--passphrase-file", "cfo.pass", "--yes", "--config", "none.toml"])
        .current_dir(desk.run.path()))
    .done();
    assert!(signed.contains("now has 2 signatures"), "{signed}");
    let shown = desk.postern(&["command", "show", "more.command"]).done();
    assert!(shown.contains("signed by   cto, cfo") || shown.contains("signed by   cfo, cto"), "{shown}");
    assert!(std::fs::metadata(desk.run.join("more.command")).unwrap().len() <= 700);

    let applied = desk.postern(&["command", "apply", "more.command"]).done();
    assert!(applied.starts_with("Applied command "), "{applied}");
    let status = desk.postern(&["status", "--json"]).json();
    let total = status["limits"].as_array().unwrap().iter().find(|limit| limit["name"] == "total").unwrap();
    assert_eq!(total["available_sat"].as_u64(), Some(250_000_000));
    assert!(desk.postern(&["command", "apply", "more.command"]).failed(2).contains("refused.command_serial_used"));
    assert!(desk.postern(&["ledger", "show"]).done().contains("let 1.5 BTC more leave the whole signer"));
}

#[test]
fn a_freeze_takes_one_manager_and_the_running_signer_can_be_asked_who_it_is() {
    let (desk, _signer, _) = open("freeze");
    desk.postern(&["command", "new", "freeze", "--scope", "hot", "--expires", "1 h", "-o", "stop.command"]).done();
    desk.postern(&["command", "sign", "stop.command", "--key", "cto.key", "--yes", "-o", "signed.command"]).done();
    desk.postern(&["command", "apply", "signed.command"]).done();
    desk.payment("pay.psbt", 500_000);
    assert!(desk.postern(&["sign", "pay.psbt"]).failed(2).contains("refused.frozen"));
    assert!(desk.postern(&["status"]).done().contains("Stopped\n  wallet hot"));
}

#[test]
fn what_is_no_command_or_no_key_is_said_to_be_none() {
    let desk = Desk::new("command_wrong");
    desk.run.write("rubbish", [0xff; 100]).unwrap();
    desk.run.write("long", [0; 5_000]).unwrap();
    assert!(desk.postern(&["command", "show", "rubbish"]).failed(1).contains("rubbish is not a command"));
    assert!(desk.postern(&["command", "show", "long"]).failed(1).contains("at most 700"));
    keygen(&desk, "cto", &["--no-passphrase"]);
    let again = say(program("postern").args(["command", "keygen", "-o", "cto.key", "--no-passphrase"]).current_dir(desk.run.path()));
    assert!(again.failed(1).contains("keys are never replaced"));

    let key = format!("ed25519:{}", "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c");
    let new = |action: &[&str], more: &[&str]| {
        let place = ["--signer-key", &key, "--network", "regtest", "-o", "new.command"];
        desk.postern(&[&["command", "new"], action, &place[..], more].concat())
    };
    let wrong = [
        (&["add-total", "1"][..], &[][..], "is not an amount such as"),
        (&["set-rate", "1 BTC"], &[], "is not a rate such as"),
        (&["set-rate"], &[], "required"),
        (&["freeze"], &["--expires", "1 year"], "is not a time such as"),
        (&["freeze"], &["--expires", "91 days"], "valid for 1 min to 90 days"),
    ];
    for (action, more, why) in wrong {
        let error = new(action, more).failed(1);
        assert!(error.contains(why), "{action:?}: {error}");
        assert!(!desk.run.join("new.command").exists());
    }
    new(&["set-rate", "0.04 BTC per 1 min, burst 0.4 BTC", "2 BTC per 1 day"], &["--scope", "hot"]).done();
    assert!(desk.postern(&["command", "sign", "new.command", "--key", "rubbish", "--yes"]).failed(1).contains("rubbish"));
    let shown = desk.postern(&["command", "show", "new.command"]).done();
    assert!(
        shown.contains("replace the rates of wallet hot by: 0.04 BTC per 1 min, burst 0.4 BTC; 2 BTC per 1 day, burst 2 BTC"),
        "{shown}"
    );
}
