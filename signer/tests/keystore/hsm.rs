//! Keys that are born in the token and stay there.

use std::time::Duration;

use bitcoin::{Network, PublicKey, TapLeafHash, hashes::Hash as _, secp256k1::SecretKey};
use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass},
};
use postern_signer::{
    analysis::{Scheme, SigningTask},
    keystore::{BoundKeys, Keystore as _, KeystoreError, WalletBinding},
    wallet::KeyLocator,
};
use postern_testkit::wait::wait_until;

use crate::site::{assert_ecdsa, code, on_token, task};

pub(crate) fn binding(wallet: &str, public_key: PublicKey) -> WalletBinding {
    WalletBinding { wallet: wallet.into(), network: Network::Regtest, keys: BoundKeys::Hsm { public_key } }
}

pub(crate) fn tasks(key: PublicKey, count: u32) -> Vec<SigningTask> {
    (0..count).map(|input| task(input, KeyLocator::Hsm, key, Scheme::Ecdsa)).collect()
}

#[test]
fn signatures_are_low_s_verified_and_in_order() {
    on_token("hsm::signatures_are_low_s_verified_and_in_order", |site| {
        let keystore = site.open();
        let key = keystore.create_hsm_key("hot").unwrap();
        keystore.bind(binding("hot", key)).unwrap();
        // Half of what the token makes is high-S: that none of 200 had to be mended has a chance of 2^-200.
        let tasks = tasks(key, 200);
        assert_ecdsa(&tasks, &keystore.sign_tasks("hot", &tasks).unwrap());
        assert_eq!(keystore.sign_tasks("hot", &[]).unwrap(), []);
        let status = keystore.status();
        assert!(status.ready && status.state == "ready" && status.token.contains(&site.serial), "{status:?}");
    });
}

#[test]
fn a_key_outlives_the_process_and_is_found_by_its_public_key() {
    on_token("hsm::a_key_outlives_the_process_and_is_found_by_its_public_key", |site| {
        let keystore = site.open();
        let (key, other) = (keystore.create_hsm_key("hot").unwrap(), keystore.create_hsm_key("cold").unwrap());
        assert_ne!(key, other);
        drop(keystore);
        // Under another wallet's name too: labels are for people.
        let keystore = site.open_bound(binding("renamed", key));
        let tasks = tasks(key, 3);
        assert_ecdsa(&tasks, &keystore.sign_tasks("renamed", &tasks).unwrap());
    });
}

#[test]
fn a_point_without_its_der_wrapping_is_the_same_key() {
    on_token("hsm::a_point_without_its_der_wrapping_is_the_same_key", |site| {
        let keystore = site.open();
        let key = keystore.create_hsm_key("hot").unwrap();
        let (_context, session) = site.thief();
        let public = session.find_objects(&[Attribute::Class(ObjectClass::PUBLIC_KEY)]).unwrap()[0];
        let attributes = session.get_attributes(public, &[AttributeType::Id, AttributeType::EcParams]).unwrap();
        session.destroy_object(public).unwrap();
        let mut raw = attributes;
        raw.extend([
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(KeyType::EC),
            Attribute::Token(true),
            Attribute::EcPoint(key.inner.serialize_uncompressed().to_vec()),
        ]);
        session.create_object(&raw).unwrap();
        keystore.bind(binding("hot", key)).unwrap();
        let tasks = tasks(key, 1);
        assert_ecdsa(&tasks, &keystore.sign_tasks("hot", &tasks).unwrap());
    });
}

#[test]
fn a_key_is_never_made_twice_and_never_leaves() {
    on_token("hsm::a_key_is_never_made_twice_and_never_leaves", |site| {
        let keystore = site.open();
        keystore.create_hsm_key("hot").unwrap();
        let before = site.token_files();
        assert!(matches!(keystore.create_hsm_key("hot"), Err(KeystoreError::Exists { .. })));
        assert_eq!(site.token_files(), before);

        let (_context, session) = site.thief();
        let private = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap()[0];
        let value = session.get_attributes(private, &[AttributeType::Value]).unwrap_or_default();
        assert!(value.iter().all(|attribute| matches!(attribute, Attribute::Value(value) if value.is_empty())), "the key was read");
        let thiefs = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(32.into()),
            Attribute::Token(false),
            Attribute::Wrap(true),
        ];
        let thiefs = session.generate_key(&Mechanism::AesKeyGen, &thiefs).unwrap();
        assert!(session.wrap_key(&Mechanism::AesKeyWrapPad, thiefs, private).is_err(), "the key was wrapped out");
        assert!(session.update_attributes(private, &[Attribute::Extractable(true)]).is_err());
        assert!(session.copy_object(private, &[Attribute::Sensitive(false), Attribute::Extractable(true)]).is_err());
    });
}

#[test]
fn a_wrong_or_missing_key_signs_nothing_and_is_told_apart() {
    on_token("hsm::a_wrong_or_missing_key_signs_nothing_and_is_told_apart", |site| {
        let keystore = site.open();
        let key = keystore.create_hsm_key("hot").unwrap();
        let stranger = PublicKey::new(SecretKey::from_slice(&[7; 32]).unwrap().public_key(&bitcoin::secp256k1::Secp256k1::new()));
        let before = site.token_files();

        assert_eq!(code(keystore.bind(binding("hot", stranger))), "refused.key_mismatch");
        assert_eq!(code(keystore.sign_tasks("hot", &tasks(stranger, 1))), "refused.key_mismatch");
        assert_eq!(code(keystore.bind(binding("cold", stranger))), "refused.key_missing");
        assert_eq!(code(keystore.sign_tasks("cold", &tasks(stranger, 1))), "refused.key_missing");
        assert_eq!(code(keystore.sign_tasks("unknown", &tasks(key, 1))), "refused.wallet_unknown");
        assert!(!keystore.status().ready, "{:?}", keystore.status());
        assert_eq!(site.token_files(), before, "something was made or deleted");

        keystore.bind(binding("hot", key)).unwrap();
        assert_eq!(code(keystore.sign_tasks("hot", &tasks(stranger, 1))), "refused.key_mismatch");
        let leaf = TapLeafHash::from_byte_array([1; 32]);
        for scheme in [Scheme::SchnorrKeyPath { merkle_root: None }, Scheme::SchnorrLeaf { leaf }] {
            assert!(matches!(keystore.sign_tasks("hot", &[task(0, KeyLocator::Hsm, key, scheme)]), Err(KeystoreError::Unsupported { .. })));
        }
    });
}

#[test]
fn a_pinned_public_key_does_not_vouch_for_another_private_key() {
    on_token("hsm::a_pinned_public_key_does_not_vouch_for_another_private_key", |site| {
        let keystore = site.open();
        let key = keystore.create_hsm_key("hot").unwrap();
        // Somebody with the PIN deletes the private key and puts his own under its id.
        let (_context, session) = site.thief();
        let private = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap()[0];
        let id = session.get_attributes(private, &[AttributeType::Id]).unwrap().remove(0);
        session.destroy_object(private).unwrap();
        let curve = vec![0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
        let hidden = [Attribute::Token(true), Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false), id];
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &[Attribute::EcParams(curve), Attribute::Token(false)], &hidden).unwrap();
        // The first look may take it for a token that has gone, and connects again.
        assert!(keystore.bind(binding("hot", key)).is_err());
        wait_until("a verdict", Duration::from_secs(20), || Ok(code(keystore.sign_tasks("hot", &tasks(key, 1))) == "refused.key_mismatch"))
            .unwrap();
    });
}
