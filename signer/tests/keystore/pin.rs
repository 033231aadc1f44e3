//! PINs: tried once, never shown.

use std::{fs, time::Duration};

use bitcoin::PublicKey;
use cryptoki::types::AuthPin;
use postern_signer::keystore::{Keystore as _, KeystoreError, PinSource, Pkcs11Config, Pkcs11Keystore};

use crate::{
    hsm::{binding, tasks},
    site::{child, code, on_token},
};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_wrong_pin_is_tried_once() {
    on_token("pin::a_wrong_pin_is_tried_once", |site| {
        let keystore = site.open();
        let key: PublicKey = keystore.create_hsm_key("hot").unwrap();
        drop(keystore);
        let right = fs::read_to_string(site.pin_file()).unwrap();
        fs::write(site.pin_file(), "wrong-pin-4711").unwrap();

        let keystore = Pkcs11Keystore::open_with(site.config(), vec![binding("hot", key)]).unwrap();
        let error = keystore.wait_ready(LONG).unwrap_err();
        assert!(matches!(error, KeystoreError::Pin { .. }), "{error}");
        for _ in 0..20 {
            assert_eq!(code(keystore.sign_tasks("hot", &tasks(key, 1))), "refused.keystore_pin");
            assert_eq!(code(keystore.bind(binding("hot", key))), "refused.keystore_pin");
            assert_eq!(code(keystore.create_hsm_key("new")), "refused.keystore_pin");
        }
        let status = keystore.status();
        assert!(!status.ready && status.state.contains("PIN"), "{status:?}");
        assert!(!format!("{status:?} {error} {keystore:?}").contains("4711"), "the PIN is shown");
        assert_eq!(keystore.login_attempts(), 1);
        drop(keystore);

        fs::write(site.pin_file(), right).unwrap();
        site.open_bound(binding("hot", key)).sign_tasks("hot", &tasks(key, 1)).unwrap();
    });
}

#[test]
fn a_pin_that_stops_being_right_ends_the_attempts() {
    on_token("pin::a_pin_that_stops_being_right_ends_the_attempts", |site| {
        let keystore = site.open();
        let key = keystore.create_hsm_key("hot").unwrap();
        keystore.bind(binding("hot", key)).unwrap();
        let (_context, session) = site.thief();
        let old = AuthPin::from(fs::read_to_string(site.pin_file()).unwrap());
        session.set_pin(&old, &AuthPin::from("another-pin-0815".to_owned())).unwrap();
        session.logout().unwrap();
        postern_testkit::wait::wait_until("the PIN to be refused", LONG, || {
            Ok(matches!(keystore.sign_tasks("hot", &tasks(key, 1)), Err(KeystoreError::Pin { .. })))
        })
        .unwrap();
        for _ in 0..20 {
            assert_eq!(code(keystore.sign_tasks("hot", &tasks(key, 1))), "refused.keystore_pin");
        }
        assert_eq!(keystore.login_attempts(), 2, "once when it was right, once when it was not");
    });
}

#[test]
fn a_pin_comes_from_a_systemd_credential() {
    const NAME: &str = "pin::a_pin_comes_from_a_systemd_credential";
    on_token(NAME, |site| {
        // systemd sets this variable; here the test does, for one more child.
        if std::env::var_os("CREDENTIALS_DIRECTORY").is_none() {
            let output = child(NAME).env("CREDENTIALS_DIRECTORY", &site.run).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        let open = |name: &str| Pkcs11Keystore::open(Pkcs11Config { pin: PinSource::Credential(name.into()), ..site.config() });
        open("vault.pin").unwrap().wait_ready(LONG).unwrap();
        assert!(matches!(open("other.pin"), Err(KeystoreError::PinSource { .. })));
    });
}
