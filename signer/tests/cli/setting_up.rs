//! `init` and `wallet …`: nothing is replaced, nothing is made before it is known to be right.

use std::os::unix::fs::PermissionsExt as _;

use crate::desk::Desk;

#[test]
fn init_makes_everything_once_and_for_this_user_only() {
    let desk = Desk::new("init");
    let first = desk.postern(&["init"]).done();
    for step in ["Making the state folder ", "Making an empty ledger", "Making the signer's identity key"] {
        assert!(first.contains(step), "{first}");
    }
    let state = desk.run.join("state");
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    let identity = |said: &str| said.lines().find(|line| line.starts_with("Identity: ed25519:")).unwrap().to_owned();
    let again = desk.postern(&["init"]).done();
    assert!(again.contains("exist already; they are kept") && !again.contains("Making"), "{again}");
    assert_eq!(identity(&first), identity(&again));
}

#[test]
fn init_makes_no_new_ledger_for_an_old_identity_and_no_new_identity_for_an_old_ledger() {
    for (lost, why) in [("ledger.db", "would forget what was spent"), ("identity.pem", "would make every command and pairing void")] {
        let (desk, mut signer) = Desk::open("init_half", "");
        signer.stop().unwrap();
        std::fs::remove_file(desk.run.join("state").join(lost)).unwrap();
        let error = desk.postern(&["init"]).failed(1);
        assert!(error.contains(why) && error.contains("restore"), "{error}");
        assert!(!desk.run.join("state").join(lost).exists());
    }
}

#[test]
fn init_that_was_interrupted_anywhere_is_finished_by_the_next_one() {
    let desk = Desk::new("init_again");
    let state = desk.run.join("state");
    // Interrupted after the folder, within the ledger, after the ledger.
    desk.postern(&["init"]).done();
    let ledger = std::fs::read(state.join("ledger.db")).unwrap();
    for left in [None, Some("ledger.new"), Some("ledger.db")] {
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::create_dir(&state).unwrap();
        if let Some(file) = left {
            std::fs::write(state.join(file), &ledger).unwrap();
        }
        let said = desk.postern(&["init"]).done();
        assert!(said.contains("Making the signer's identity key"), "{said}");
        assert_eq!(said.contains("it is kept"), left == Some("ledger.db"), "{said}");
        assert!(desk.postern(&["ledger", "verify"]).done().contains("Sound: 1 entr"));
        assert!(desk.postern(&["init"]).done().contains("exist already; they are kept"));
    }
    // Whatever stands in the way is named, and nothing is in the way afterwards.
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::create_dir_all(state.join("identity.pem")).unwrap();
    let error = desk.postern(&["init"]).failed(1);
    assert!(error.contains("identity.pem"), "{error}");
    std::fs::remove_dir(state.join("identity.pem")).unwrap();
    desk.postern(&["init"]).done();
}

#[test]
fn a_new_wallet_of_each_kind_is_a_table_that_the_configuration_takes() {
    let desk = Desk::new("wallet_new");
    desk.postern(&["init"]).done();
    let new = |name: &str, kind: &str, script: &str| {
        desk.postern(&["wallet", "new", name, "--keystore", "hsm", "--kind", kind, "--script", script])
    };
    let mut tables = String::new();
    for (name, kind, script) in [
        ("hot", "seed", "wpkh"),
        ("old", "seed", "pkh"),
        ("tap", "seed", "tr"),
        ("one", "hsm", "sh-wpkh"),
        ("many", "pool", "wpkh"),
        ("late", "pool", "wsh(and_v(v:pk(@),older(144)))"),
    ] {
        let said = new(name, kind, script);
        assert!(said.err.contains("Making "), "each step is said: {}", said.err);
        tables.push_str(&said.done());
    }
    desk.configure(&tables);
    desk.check(&[]).done();

    let shown = desk.postern(&["wallet", "show"]).done();
    assert!(shown.contains("hot: seed on keystore hsm, regtest") && shown.contains("0/0  bcrt1q"), "{shown}");
    let one = desk.postern(&["wallet", "show", "tap", "--json"]).json();
    assert!(one[0]["addresses"][0]["address"].as_str().unwrap().starts_with("bcrt1p"));
    let core = desk.postern(&["wallet", "export", "hot", "--format", "core"]).json();
    assert_eq!(core.as_array().unwrap().len(), 2);
    assert!(desk.postern(&["wallet", "export", "many"]).failed(1).contains("wallet address many --json"));

    // The name is taken: in the configuration, and on the token.
    assert!(new("hot", "seed", "wpkh").failed(1).contains("[wallet.hot] is configured already"));
    desk.configure("");
    assert!(new("hot", "seed", "wpkh").failed(1).contains("never replaced"));
    assert!(new("one", "hsm", "wpkh").failed(1).contains("never replaced"));
    let again = desk.postern(&["wallet", "new", "hot", "--keystore", "hsm", "--kind", "seed", "--script", "wpkh", "--existing"]).done();
    assert!(tables.contains(&again), "{again}");
}

#[test]
fn a_wallet_that_would_be_wrong_makes_no_key() {
    let desk = Desk::new("wallet_wrong");
    let new = |arguments: &[&str]| desk.postern(&[&["wallet", "new"], arguments].concat());
    let right = ["w", "--keystore", "hsm", "--kind", "hsm", "--script", "wpkh"];
    assert!(new(&right).failed(1).contains("run `postern init` first"));
    desk.postern(&["init"]).done();
    let wrong = [
        (["w", "--keystore", "hsm", "--kind", "hsm", "--script", "tr"], "BIP-340"),
        (["w", "--keystore", "hsm", "--kind", "hsm", "--script", "wpkh(02)"], "@ stands for this signer's key"),
        (["w", "--keystore", "hsm", "--kind", "hsm", "--script", "wsh(or_i(pk(@),pk(@)))"], "not safe"),
        (["w", "--keystore", "hms", "--kind", "hsm", "--script", "wpkh"], "no [keystore.hms]"),
        (["w w", "--keystore", "hsm", "--kind", "hsm", "--script", "wpkh"], "no name for a wallet"),
        (["signer", "--keystore", "hsm", "--kind", "hsm", "--script", "wpkh"], "no name for a wallet"),
        (["w", "--keystore", "hsm", "--kind", "tpm", "--script", "wpkh"], "possible values"),
    ];
    for (arguments, why) in wrong {
        let said = new(&arguments);
        assert!(!said.out.contains("[wallet."), "{}", said.out);
        let error = said.failed(1);
        assert!(error.contains(why), "{arguments:?}: {error}");
    }
    // Had one of them made a key, this would find it.
    new(&right).done();
}
