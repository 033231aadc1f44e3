//! A token that goes and comes back, and the company that it keeps.

use std::{
    fs,
    time::{Duration, Instant},
};

use bitcoin::Network;
use postern_signer::{
    analysis::{Scheme, SigningTask},
    keystore::{Keystore as _, Pkcs11Config, Pkcs11Keystore},
};
use postern_testkit::wait::wait_until;

use crate::{
    hsm, pool, seed,
    site::{Site, assert_ecdsa, child, code, on_token},
};

const LONG: Duration = Duration::from_secs(40);

/// A keystore with a wallet of each kind, and tasks for each.
fn all_kinds(site: &Site) -> (Pkcs11Keystore, Vec<(&'static str, Vec<SigningTask>)>) {
    let keystore = site.open();
    let key = keystore.create_hsm_key("one").unwrap();
    keystore.create_seed("tree", Network::Regtest, None).unwrap();
    let account = seed::account(&keystore, "tree", seed::ACCOUNT);
    keystore.create_pool("hot", Network::Regtest).unwrap();
    keystore.bind(hsm::binding("one", key)).unwrap();
    keystore.bind(seed::binding("tree", std::slice::from_ref(&account))).unwrap();
    keystore.bind(pool::binding("hot")).unwrap();
    keystore.extend_pool("hot", 0, 4).unwrap();
    let pool = pool::tasks(0, &keystore.pool_keys("hot", 0, 0, 4).unwrap());
    let tree = (0..4).map(|index| seed::derived(index, &account, 0, index, Scheme::Ecdsa)).collect();
    (keystore, vec![("one", hsm::tasks(key, 4)), ("tree", tree), ("hot", pool)])
}

#[test]
fn a_token_that_comes_back_signs_again_without_a_restart() {
    on_token("recovery::a_token_that_comes_back_signs_again_without_a_restart", |site| {
        let (keystore, wallets) = all_kinds(site);
        let before = site.token_files();
        for round in 0..2 {
            for (wallet, tasks) in &wallets {
                assert_ecdsa(tasks, &keystore.sign_tasks(wallet, tasks).unwrap());
            }
            site.pull_out();
            for (wallet, tasks) in &wallets {
                // A seed needs no call to the token: it stops when the next look finds the token gone.
                wait_until("the loss to be noticed", LONG, || Ok(keystore.sign_tasks(wallet, tasks).is_err())).unwrap();
            }
            wait_until("an attempt to fail", LONG, || Ok(keystore.status().state.contains("no token labelled"))).unwrap();
            for (wallet, tasks) in &wallets {
                let since = Instant::now();
                assert_eq!(code(keystore.sign_tasks(wallet, tasks)), "refused.keystore_unavailable", "{wallet}");
                assert!(since.elapsed() < Duration::from_secs(4), "{wallet} waited {:?}", since.elapsed());
            }
            assert_eq!(code(keystore.extend_pool("hot", 0, 9)), "refused.keystore_unavailable");
            assert_eq!(code(keystore.create_seed("new", Network::Regtest, None)), "refused.keystore_unavailable");
            assert_eq!(keystore.pool_keys("hot", 0, 0, 9).unwrap().len(), 4, "addresses are known meanwhile");
            assert!(keystore.label("ledger").read().is_err(), "an empty find is not an answer");
            assert!(keystore.label("ledger").create("x").is_err());
            assert!(!keystore.status().ready);
            assert!(fs::read_dir(site.run.join("vault.tokens")).unwrap().next().is_none(), "something was made in the empty place");

            site.put_back();
            keystore.wait_ready(LONG).unwrap();
            for (wallet, tasks) in &wallets {
                assert_ecdsa(tasks, &keystore.sign_tasks(wallet, tasks).unwrap());
            }
            assert_eq!(site.token_files(), before, "round {round}: something was made or deleted");
        }
        assert!(keystore.status().ready, "{:?}", keystore.status());
        assert_eq!(keystore.login_attempts(), 3, "one for each time that the token was there");
    });
}

#[test]
fn an_empty_find_on_a_token_that_has_gone_is_no_answer() {
    on_token("recovery::an_empty_find_on_a_token_that_has_gone_is_no_answer", |site| {
        let keystore = site.open();
        keystore.create_seed("tree", Network::Regtest, None).unwrap();
        let key = keystore.create_hsm_key("one").unwrap();
        keystore.create_pool("hot", Network::Regtest).unwrap();
        keystore.label("ledger").create("x").unwrap();
        for round in 0..4 {
            site.pull_out();
            // At once, before anything else notices.
            let told = match round {
                0 => code(keystore.account_key("tree", Network::Regtest, &seed::path(seed::ACCOUNT))),
                1 => code(keystore.bind(hsm::binding("one", key))),
                2 => code(keystore.bind(pool::binding("hot"))),
                _ => code(keystore.label("ledger").read()),
            };
            assert_eq!(told, "refused.keystore_unavailable", "round {round}");
            site.put_back();
            wait_until("the token", LONG, || Ok(keystore.label("ledger").read().is_ok_and(|text| text.as_deref() == Some("x")))).unwrap();
        }
    });
}

#[test]
fn another_token_of_the_same_name_is_not_the_token() {
    on_token("recovery::another_token_of_the_same_name_is_not_the_token", |site| {
        let (keystore, wallets) = all_kinds(site);
        site.pull_out();
        let pin = fs::read_to_string(site.pin_file()).unwrap();
        let made = std::process::Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", &site.label, "--pin", &pin, "--so-pin", "12345678"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let foreign = site.token_files();
        wait_until("an attempt to fail", LONG, || {
            let _ = keystore.sign_tasks("one", &wallets[0].1);
            Ok(keystore.status().state.contains("no token labelled"))
        })
        .unwrap();
        for (wallet, tasks) in &wallets {
            assert_eq!(code(keystore.sign_tasks(wallet, tasks)), "refused.keystore_unavailable");
        }
        assert_eq!(site.token_files(), foreign, "something was made on a foreign token");
        assert_eq!(keystore.login_attempts(), 1, "the PIN was shown to a foreign token");
        site.put_back();
        keystore.wait_ready(LONG).unwrap();
        for (wallet, tasks) in &wallets {
            assert_ecdsa(tasks, &keystore.sign_tasks(wallet, tasks).unwrap());
        }
    });
}

#[test]
fn a_logout_behind_our_back_is_mended() {
    on_token("recovery::a_logout_behind_our_back_is_mended", |site| {
        let (keystore, wallets) = all_kinds(site);
        for close_all in [false, true] {
            let (_context, session) = site.thief();
            if close_all {
                site.close_all_sessions(session.get_session_info().unwrap().slot_id());
            } else {
                session.logout().unwrap();
            }
            for (wallet, tasks) in &wallets {
                wait_until("signatures", LONG, || Ok(keystore.sign_tasks(wallet, tasks).is_ok())).unwrap();
            }
        }
        assert!(keystore.login_attempts() <= 3, "{}", keystore.login_attempts());
    });
}

#[test]
fn a_missing_token_does_not_stop_its_neighbour() {
    on_token("recovery::a_missing_token_does_not_stop_its_neighbour", |site| {
        let (neighbour, wallets) = all_kinds(site);
        // Shares the module, and has it initialised anew at each attempt.
        let missing =
            Pkcs11Keystore::open(Pkcs11Config { name: "lost".into(), token_serial: "0000000000000000".into(), ..site.config() }).unwrap();
        let mut attempts = 0;
        let mut last = neighbour.login_attempts();
        wait_until("three attempts", LONG, || {
            for (wallet, tasks) in &wallets {
                assert_ecdsa(tasks, &neighbour.sign_tasks(wallet, tasks).unwrap());
            }
            let now = neighbour.login_attempts();
            attempts += u32::from(now != last);
            last = now;
            Ok(attempts >= 3)
        })
        .unwrap();
        assert!(!missing.status().ready);
    });
}

#[test]
fn processes_that_start_at_once_all_get_their_token() {
    const NAME: &str = "recovery::processes_that_start_at_once_all_get_their_token";
    const STARTER: &str = "POSTERN_KEYSTORE_STARTER";
    on_token(NAME, |site| {
        if std::env::var_os(STARTER).is_some() {
            site.open();
            return;
        }
        let key = site.open().create_hsm_key("one").unwrap();
        let starters: Vec<_> = (0..8)
            .map(|_| {
                let mut command = child(NAME);
                command.env(STARTER, "1").stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
                command.spawn().unwrap()
            })
            .collect();
        for starter in starters {
            let output = starter.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        let keystore = site.open_bound(hsm::binding("one", key));
        assert_ecdsa(&hsm::tasks(key, 1), &keystore.sign_tasks("one", &hsm::tasks(key, 1)).unwrap());
    });
}
