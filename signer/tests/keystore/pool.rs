//! Numbered keys that are wrapped under a token key.

use std::{fs, thread};

use bitcoin::{Network, PublicKey};
use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use postern_signer::{
    analysis::{Scheme, SigningTask},
    keystore::{BoundKeys, Keystore as _, KeystoreError, WalletBinding},
    wallet::{KeyLocator, Position},
};
use rusqlite::Connection;

use crate::site::{Site, assert_ecdsa, code, on_token, task};

pub(crate) fn binding(wallet: &str) -> WalletBinding {
    WalletBinding { wallet: wallet.into(), network: Network::Regtest, keys: BoundKeys::Pool }
}

pub(crate) fn tasks(branch: u32, keys: &[PublicKey]) -> Vec<SigningTask> {
    (0..).zip(keys).map(|(index, key)| task(index, KeyLocator::Pool(Position { branch, index }), *key, Scheme::Ecdsa)).collect()
}

fn file(site: &Site) -> Connection {
    Connection::open(site.state().join("pool-hot.sqlite")).unwrap()
}

#[test]
fn every_key_of_a_pool_signs_and_outlives_the_process() {
    on_token("pool::every_key_of_a_pool_signs_and_outlives_the_process", |site| {
        let keystore = site.open();
        keystore.create_pool("hot", Network::Regtest).unwrap();
        let objects = site.token_files();
        keystore.bind(binding("hot")).unwrap();
        assert_eq!(keystore.pool_keys("hot", 0, 0, 10).unwrap(), []);
        assert_eq!(keystore.extend_pool("hot", 0, 60).unwrap(), 60);
        assert_eq!(keystore.extend_pool("hot", 1, 5).unwrap(), 5);
        assert_eq!(keystore.extend_pool("hot", 0, 40).unwrap(), 60, "asking for less makes nothing");
        let receive = keystore.pool_keys("hot", 0, 0, 100).unwrap();
        let change = keystore.pool_keys("hot", 1, 0, 100).unwrap();
        assert_eq!((receive.len(), change.len()), (60, 5));
        assert_eq!(keystore.pool_keys("hot", 0, 58, 100).unwrap(), receive[58..]);
        let distinct: std::collections::BTreeSet<_> = receive.iter().chain(&change).collect();
        assert_eq!(distinct.len(), 65);
        assert_ecdsa(&tasks(0, &receive), &keystore.sign_tasks("hot", &tasks(0, &receive)).unwrap());
        // Once more, with some of them still unwrapped.
        assert_ecdsa(&tasks(0, &receive), &keystore.sign_tasks("hot", &tasks(0, &receive)).unwrap());
        drop(keystore);

        let keystore = site.open_bound(binding("hot"));
        assert_eq!(keystore.pool_keys("hot", 0, 0, 100).unwrap(), receive);
        assert_eq!(keystore.extend_pool("hot", 0, 61).unwrap(), 61);
        assert_eq!(keystore.pool_keys("hot", 0, 0, 60).unwrap(), receive);
        assert_ecdsa(&tasks(1, &change), &keystore.sign_tasks("hot", &tasks(1, &change)).unwrap());
        assert_eq!(site.token_files(), objects, "the token grows with the pool");
    });
}

#[test]
fn two_that_grow_a_pool_at_once_agree_on_every_key() {
    on_token("pool::two_that_grow_a_pool_at_once_agree_on_every_key", |site| {
        let first = site.open();
        first.create_pool("hot", Network::Regtest).unwrap();
        first.bind(binding("hot")).unwrap();
        let second = site.open_bound(binding("hot"));
        thread::scope(|scope| {
            for keystore in [&first, &second] {
                scope.spawn(move || {
                    for size in [10, 20, 30, 40] {
                        assert!(keystore.extend_pool("hot", 0, size).unwrap() >= size);
                    }
                });
            }
        });
        let keys = first.pool_keys("hot", 0, 0, 1000).unwrap();
        assert_eq!(keys.len(), 40);
        // The second may learn of the last ones only when it is asked to sign with them.
        assert_ecdsa(&tasks(0, &keys), &second.sign_tasks("hot", &tasks(0, &keys)).unwrap());
        assert_eq!(second.pool_keys("hot", 0, 0, 1000).unwrap(), keys);
    });
}

/// A blob as it lies in the file: the byte string after each public key.
fn some_blob(site: &Site) -> Vec<u8> {
    let body: Vec<u8> = file(site).query_row("SELECT body FROM batch", [], |row| row.get(0)).unwrap();
    // Canonical CBOR: {0: bytes(33), 1: bytes(n)}; n has one length byte.
    let key = body.windows(4).position(|window| window == [0xa2, 0x00, 0x58, 33]).unwrap();
    let blob = key + 4 + 33;
    assert_eq!(&body[blob..blob + 2], &[0x01, 0x58]);
    body[blob + 3..blob + 3 + usize::from(body[blob + 2])].to_vec()
}

/// The attack: the same blob as a key that can be read.
fn unwrap_readable(session: &Session, wrapping: ObjectHandle, blob: &[u8], wish: &[Attribute]) -> Option<Vec<u8>> {
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC), Attribute::Token(false)];
    template.extend_from_slice(wish);
    let key = session.unwrap_key(&Mechanism::AesKeyWrapPad, wrapping, blob, &template).ok()?;
    match session.get_attributes(key, &[AttributeType::Value]).ok()?.pop() {
        Some(Attribute::Value(value)) if !value.is_empty() => Some(value),
        _ => None,
    }
}

fn wrapping_key(session: &Session) -> ObjectHandle {
    session.find_objects(&[Attribute::Label(b"postern:hot:wrap".to_vec())]).unwrap()[0]
}

#[test]
fn a_wrapped_key_is_never_unwrapped_as_a_readable_one() {
    on_token("pool::a_wrapped_key_is_never_unwrapped_as_a_readable_one", |site| {
        let keystore = site.open();
        keystore.create_pool("hot", Network::Regtest).unwrap();
        keystore.bind(binding("hot")).unwrap();
        keystore.extend_pool("hot", 0, 1).unwrap();
        let blob = some_blob(site);
        let (_context, session) = site.thief();
        let wrapping = wrapping_key(&session);

        let wishes: [&[Attribute]; 5] = [
            &[Attribute::Sensitive(false)],
            &[Attribute::Sensitive(false), Attribute::Extractable(true)],
            &[Attribute::Sensitive(true), Attribute::Extractable(true)],
            &[Attribute::Private(false), Attribute::Sensitive(false)],
            &[],
        ];
        for wish in wishes {
            assert_eq!(unwrap_readable(&session, wrapping, &blob, wish), None, "{wish:?}");
        }
        // Nor as something else, to be used in another way.
        for class in [KeyType::GENERIC_SECRET, KeyType::AES] {
            let template = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(class), Attribute::Token(false)];
            assert!(session.unwrap_key(&Mechanism::AesKeyWrapPad, wrapping, &blob, &template).is_err(), "{class:?}");
        }
        let token = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC), Attribute::Token(true)];
        assert!(session.unwrap_key(&Mechanism::AesKeyWrapPad, wrapping, &blob, &token).is_err(), "kept in the token");

        // The wrapping key does nothing else, and stays as it is.
        assert!(session.decrypt(&Mechanism::AesEcb, wrapping, &[0; 16]).is_err());
        assert!(session.encrypt(&Mechanism::AesEcb, wrapping, &[0; 16]).is_err());
        assert!(session.update_attributes(wrapping, &[Attribute::Decrypt(true)]).is_err());
        assert!(session.copy_object(wrapping, &[Attribute::Decrypt(true)]).is_err());

        // The very attack works where the template is missing: this test can fail.
        let careless = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(32.into()),
            Attribute::Token(false),
            Attribute::Wrap(true),
            Attribute::Unwrap(true),
        ];
        let careless = session.generate_key(&Mechanism::AesKeyGen, &careless).unwrap();
        let curve = vec![0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
        let (_, private) = session
            .generate_key_pair(
                &Mechanism::EccKeyPairGen,
                &[Attribute::EcParams(curve), Attribute::Token(false)],
                &[Attribute::Token(false), Attribute::Sensitive(true), Attribute::Extractable(true)],
            )
            .unwrap();
        let blob = session.wrap_key(&Mechanism::AesKeyWrapPad, careless, private).unwrap();
        assert!(unwrap_readable(&session, careless, &blob, &[Attribute::Sensitive(false), Attribute::Extractable(true)]).is_some());
    });
}

#[test]
fn a_pool_file_that_was_touched_gives_no_address_and_no_signature() {
    on_token("pool::a_pool_file_that_was_touched_gives_no_address_and_no_signature", |site| {
        let keystore = site.open();
        keystore.create_pool("hot", Network::Regtest).unwrap();
        keystore.bind(binding("hot")).unwrap();
        keystore.extend_pool("hot", 0, 3).unwrap();
        keystore.extend_pool("hot", 0, 6).unwrap();
        keystore.extend_pool("hot", 1, 1).unwrap();
        let keys = keystore.pool_keys("hot", 0, 0, 6).unwrap();
        drop(keystore);
        let path = site.state().join("pool-hot.sqlite");
        let good = fs::read(&path).unwrap();
        let change = |sql: &str| {
            fs::write(&path, &good).unwrap();
            assert!(file(site).execute(sql, []).unwrap() > 0, "{sql}");
        };
        let planted = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
        let planted = format!(
            "UPDATE batch SET body = CAST(substr(body, 1, instr(body, x'a2005821') + 3) || x'{planted}' ||
                               substr(body, instr(body, x'a2005821') + 37) AS BLOB) WHERE first = 0 AND branch = 0"
        );
        for sql in [
            planted.as_str(),
            "UPDATE batch SET code = zeroblob(32) WHERE first = 3",
            "UPDATE batch SET code = x'' WHERE first = 3",
            "UPDATE batch SET body = (SELECT body FROM batch WHERE branch = 1), code = (SELECT code FROM batch WHERE branch = 1) WHERE branch = 0 AND first = 0",
            "DELETE FROM batch WHERE first = 0 AND branch = 0",
            "UPDATE batch SET branch = 7 WHERE branch = 1",
            "UPDATE pool SET network = 'bitcoin'",
            "UPDATE pool SET wallet = 'cold'",
        ] {
            change(sql);
            let keystore = site.open();
            assert_eq!(code(keystore.bind(binding("hot"))), "refused.key_mismatch", "{sql}");
            assert_eq!(code(keystore.sign_tasks("hot", &tasks(0, &keys))), "refused.key_mismatch", "{sql}");
            assert_eq!(code(keystore.extend_pool("hot", 0, 10)), "refused.key_mismatch", "{sql}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(code(site.open().bind(binding("hot"))), "refused.key_missing");
        fs::write(&path, &good).unwrap();
        assert_ecdsa(&tasks(0, &keys), &site.open_bound(binding("hot")).sign_tasks("hot", &tasks(0, &keys)).unwrap());
    });
}

#[test]
fn a_pool_key_that_is_not_the_pinned_one_signs_nothing() {
    on_token("pool::a_pool_key_that_is_not_the_pinned_one_signs_nothing", |site| {
        let keystore = site.open();
        keystore.create_pool("hot", Network::Regtest).unwrap();
        assert!(matches!(keystore.create_pool("hot", Network::Regtest), Err(KeystoreError::Exists { .. })));
        keystore.bind(binding("hot")).unwrap();
        keystore.extend_pool("hot", 0, 2).unwrap();
        let keys = keystore.pool_keys("hot", 0, 0, 2).unwrap();
        let swapped = [keys[1], keys[0]];
        assert_eq!(code(keystore.sign_tasks("hot", &tasks(0, &swapped))), "refused.key_mismatch");
        let beyond = task(0, KeyLocator::Pool(Position { branch: 0, index: 2 }), keys[0], Scheme::Ecdsa);
        assert_eq!(code(keystore.sign_tasks("hot", &[beyond])), "refused.key_missing");
        assert!(matches!(keystore.extend_pool("hot", 2, 1), Err(KeystoreError::Unsupported { .. })));
        let schnorr = task(0, KeyLocator::Pool(Position { branch: 0, index: 0 }), keys[0], Scheme::SchnorrKeyPath { merkle_root: None });
        assert!(matches!(keystore.sign_tasks("hot", &[schnorr]), Err(KeystoreError::Unsupported { .. })));
    });
}
