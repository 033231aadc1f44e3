//! Seeds that only the token opens.

use std::{fs, os::unix::fs::PermissionsExt as _, str::FromStr as _};

use bitcoin::{
    Network, PublicKey, TapNodeHash,
    bip32::{ChildNumber, DerivationPath},
    key::TapTweak as _,
    secp256k1::{Message, Secp256k1, XOnlyPublicKey, schnorr},
};
use postern_signer::{
    analysis::{Scheme, SigningTask},
    keystore::{AccountKey, BoundKeys, Keystore as _, KeystoreError, Pkcs11Keystore, WalletBinding},
    wallet::KeyLocator,
};

use crate::site::{assert_ecdsa, code, on_token, task};

pub(crate) const ACCOUNT: &str = "m/84h/1h/0h";

pub(crate) fn path(text: &str) -> DerivationPath {
    DerivationPath::from_str(text).unwrap()
}

pub(crate) fn binding(wallet: &str, accounts: &[AccountKey]) -> WalletBinding {
    WalletBinding { wallet: wallet.into(), network: Network::Regtest, keys: BoundKeys::Seed { accounts: accounts.to_vec() } }
}

pub(crate) fn account(keystore: &Pkcs11Keystore, wallet: &str, account: &str) -> AccountKey {
    keystore.account_key(wallet, Network::Regtest, &path(account)).unwrap()
}

/// A task for a key that the account's public half says.
pub(crate) fn derived(input: u32, account: &AccountKey, branch: u32, index: u32, scheme: Scheme) -> SigningTask {
    let steps = [ChildNumber::from_normal_idx(branch).unwrap(), ChildNumber::from_normal_idx(index).unwrap()];
    let public_key = PublicKey::new(account.xpub.derive_pub(&Secp256k1::new(), &steps).unwrap().public_key);
    task(input, KeyLocator::Seed(account.path.extend(steps)), public_key, scheme)
}

#[test]
fn a_seed_signs_what_its_public_account_derives() {
    on_token("seed::a_seed_signs_what_its_public_account_derives", |site| {
        let keystore = site.open();
        keystore.create_seed("hot", Network::Regtest, None).unwrap();
        let segwit = account(&keystore, "hot", ACCOUNT);
        let taproot = account(&keystore, "hot", "m/86h/1h/0h");
        assert_eq!(segwit.fingerprint, taproot.fingerprint);
        keystore.bind(binding("hot", &[segwit.clone(), taproot.clone()])).unwrap();

        let tasks: Vec<SigningTask> = (0..50).map(|input| derived(input, &segwit, input % 2, input, Scheme::Ecdsa)).collect();
        assert_ecdsa(&tasks, &keystore.sign_tasks("hot", &tasks).unwrap());

        let merkle_root = Some(TapNodeHash::assume_hidden([3; 32]));
        let task = derived(0, &taproot, 0, 7, Scheme::SchnorrKeyPath { merkle_root });
        let answer = keystore.sign_tasks("hot", std::slice::from_ref(&task)).unwrap().remove(0);
        let curve = Secp256k1::new();
        let key = XOnlyPublicKey::from(task.key.public_key.inner).tap_tweak(&curve, merkle_root).0.to_x_only_public_key();
        let signature = schnorr::Signature::from_slice(&answer.signature).unwrap();
        curve.verify_schnorr(&signature, &Message::from_digest(task.digest), &key).unwrap();
    });
}

#[test]
fn a_seed_outlives_the_process_and_is_never_made_twice() {
    on_token("seed::a_seed_outlives_the_process_and_is_never_made_twice", |site| {
        let keystore = site.open();
        keystore.create_seed("hot", Network::Regtest, None).unwrap();
        keystore.create_seed("cold", Network::Regtest, None).unwrap();
        let before = account(&keystore, "hot", ACCOUNT);
        assert_ne!(before.xpub, account(&keystore, "cold", ACCOUNT).xpub, "two wallets have one seed");
        let file = site.state().join("seed-hot.sealed");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let (bytes, objects) = (fs::read(&file).unwrap(), site.token_files());
        assert!(matches!(keystore.create_seed("hot", Network::Regtest, None), Err(KeystoreError::Exists { .. })));
        // Nor in the place of a file that was lost.
        fs::remove_file(&file).unwrap();
        assert!(matches!(keystore.create_seed("hot", Network::Regtest, None), Err(KeystoreError::Exists { .. })));
        fs::write(&file, &bytes).unwrap();
        assert_eq!(site.token_files(), objects);
        drop(keystore);

        let keystore = site.open();
        assert_eq!(account(&keystore, "hot", ACCOUNT), before);
        keystore.bind(binding("hot", &[before])).unwrap();
    });
}

#[test]
fn a_changed_seed_file_never_opens() {
    on_token("seed::a_changed_seed_file_never_opens", |site| {
        let keystore = site.open();
        keystore.create_seed("hot", Network::Regtest, None).unwrap();
        keystore.create_seed("cold", Network::Regtest, None).unwrap();
        let good = account(&keystore, "hot", ACCOUNT);
        let file = site.state().join("seed-hot.sealed");
        let bytes = fs::read(&file).unwrap();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            fs::write(&file, &changed).unwrap();
            let told = code(keystore.account_key("hot", Network::Regtest, &path(ACCOUNT)));
            assert!(matches!(told, "refused.key_mismatch" | "refused.key_missing"), "byte {place}: {told}");
        }
        for cut in [0, 1, bytes.len() - 1] {
            fs::write(&file, &bytes[..cut]).unwrap();
            assert_eq!(code(keystore.account_key("hot", Network::Regtest, &path(ACCOUNT))), "refused.key_mismatch");
        }
        fs::copy(site.state().join("seed-cold.sealed"), &file).unwrap();
        assert_eq!(code(keystore.account_key("hot", Network::Regtest, &path(ACCOUNT))), "refused.key_mismatch");
        fs::remove_file(&file).unwrap();
        assert_eq!(code(keystore.account_key("hot", Network::Regtest, &path(ACCOUNT))), "refused.key_missing");
        fs::write(&file, &bytes).unwrap();
        assert_eq!(code(keystore.account_key("hot", Network::Signet, &path(ACCOUNT))), "refused.key_mismatch");
        assert_eq!(account(&keystore, "hot", ACCOUNT), good, "the token is as it was");
        assert_eq!(keystore.login_attempts(), 1, "a bad file is not the token's fault");
    });
}

#[test]
fn a_seed_that_is_not_the_descriptors_signs_nothing() {
    on_token("seed::a_seed_that_is_not_the_descriptors_signs_nothing", |site| {
        let keystore = site.open();
        keystore.create_seed("hot", Network::Regtest, None).unwrap();
        keystore.create_seed("cold", Network::Regtest, None).unwrap();
        let good = account(&keystore, "hot", ACCOUNT);
        let stranger = account(&keystore, "cold", ACCOUNT);
        assert_eq!(code(keystore.bind(binding("hot", std::slice::from_ref(&stranger)))), "refused.key_mismatch");
        assert_eq!(code(keystore.sign_tasks("hot", &[derived(0, &stranger, 0, 0, Scheme::Ecdsa)])), "refused.key_mismatch");
        assert_eq!(code(keystore.bind(binding("hot", &[]))), "refused.key_mismatch");
        let elsewhere = AccountKey { path: path("m/84h/1h/1h"), ..good.clone() };
        assert_eq!(code(keystore.bind(binding("hot", &[good.clone(), elsewhere]))), "refused.key_mismatch");

        keystore.bind(binding("hot", std::slice::from_ref(&good))).unwrap();
        let mut wrong = derived(0, &good, 0, 0, Scheme::Ecdsa);
        wrong.key.public_key = derived(0, &good, 0, 1, Scheme::Ecdsa).key.public_key;
        assert_eq!(code(keystore.sign_tasks("hot", &[wrong])), "refused.key_mismatch");
    });
}
