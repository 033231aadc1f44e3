//! Wallets whose seed a TPM seals.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, str::FromStr as _, time::Duration};

use bitcoin::{
    Network, PublicKey,
    bip32::{ChildNumber, DerivationPath},
    key::TapTweak as _,
    secp256k1::{Message, Secp256k1, XOnlyPublicKey, schnorr},
};
use postern_signer::{
    analysis::{SIGHASH_ALL, Scheme, SigningTask},
    keystore::{AccountKey, BoundKeys, Keystore as _, KeystoreError, PinSource, TpmConfig, TpmKeystore, TypedEntropy, WalletBinding},
    wallet::{KeyLocator, KeyRef},
};
use postern_testkit::wait::{PATIENCE, wait_until};

use crate::board::{Board, pcrs};

const ACCOUNT: &str = "m/84h/1h/0h";
const REGTEST: Network = Network::Regtest;

impl Board {
    fn config(&self) -> TpmConfig {
        TpmConfig {
            name: "tpm".into(),
            tcti: self.swtpm.tcti().parse().unwrap(),
            pcrs: pcrs(),
            auth: PinSource::File(self.run.join("tpm.auth")),
            state: self.run.folder("state").unwrap(),
        }
    }

    fn with_auth(label: &str) -> Self {
        let board = Self::new(label);
        board.run.write("tpm.auth", "correct horse").unwrap();
        board
    }

    fn open(&self) -> TpmKeystore {
        let keystore = TpmKeystore::open(self.config()).unwrap();
        keystore.wait_ready(Duration::from_secs(20)).unwrap();
        keystore
    }

    /// A keystore with the wallet `hot`, and its account.
    fn with_hot(label: &str) -> (Self, TpmKeystore, AccountKey) {
        let board = Self::with_auth(label);
        let keystore = board.open();
        keystore.create_seed("hot", REGTEST, None).unwrap();
        let account = account(&keystore, "hot", ACCOUNT);
        keystore.bind(binding("hot", std::slice::from_ref(&account))).unwrap();
        (board, keystore, account)
    }
}

fn path(text: &str) -> DerivationPath {
    DerivationPath::from_str(text).unwrap()
}

fn account(keystore: &TpmKeystore, wallet: &str, account: &str) -> AccountKey {
    keystore.account_key(wallet, REGTEST, &path(account)).unwrap()
}

fn binding(wallet: &str, accounts: &[AccountKey]) -> WalletBinding {
    WalletBinding { wallet: wallet.into(), network: REGTEST, keys: BoundKeys::Seed { accounts: accounts.to_vec() } }
}

fn task(account: &AccountKey, index: u32, scheme: Scheme) -> SigningTask {
    let steps = [ChildNumber::from_normal_idx(0).unwrap(), ChildNumber::from_normal_idx(index).unwrap()];
    let public_key = PublicKey::new(account.xpub.derive_pub(&Secp256k1::new(), &steps).unwrap().public_key);
    let sighash_byte = matches!(scheme, Scheme::Ecdsa).then_some(SIGHASH_ALL);
    let key = KeyRef { locator: KeyLocator::Seed(account.path.extend(steps)), public_key };
    SigningTask { input: index, key, digest: [0x42; 32], scheme, sighash_byte }
}

/// Signs with ECDSA and checks the signature.
fn sign(keystore: &TpmKeystore, account: &AccountKey) -> Result<(), KeystoreError> {
    let task = task(account, 5, Scheme::Ecdsa);
    let answer = keystore.sign_tasks("hot", std::slice::from_ref(&task))?.remove(0);
    let signature = bitcoin::ecdsa::Signature::from_slice(&answer.signature).unwrap().signature;
    Secp256k1::new().verify_ecdsa(&Message::from_digest(task.digest), &signature, &task.key.public_key.inner).unwrap();
    Ok(())
}

fn code<T: std::fmt::Debug>(result: Result<T, KeystoreError>) -> &'static str {
    result.unwrap_err().code().as_str()
}

fn wait_for_signatures(keystore: &TpmKeystore, account: &AccountKey) {
    wait_until("signatures", PATIENCE, || Ok(sign(keystore, account).is_ok())).unwrap();
}

#[test]
fn a_sealed_seed_signs_what_its_public_account_derives() {
    let (_board, keystore, segwit) = Board::with_hot("signs");
    let taproot = account(&keystore, "hot", "m/86h/1h/0h");
    assert_eq!(segwit.fingerprint, taproot.fingerprint);
    sign(&keystore, &segwit).unwrap();
    keystore.bind(binding("hot", &[segwit, taproot.clone()])).unwrap();
    let task = task(&taproot, 7, Scheme::SchnorrKeyPath { merkle_root: None });
    let answer = keystore.sign_tasks("hot", std::slice::from_ref(&task)).unwrap().remove(0);
    let curve = Secp256k1::new();
    let key = XOnlyPublicKey::from(task.key.public_key.inner).tap_tweak(&curve, None).0.to_x_only_public_key();
    curve.verify_schnorr(&schnorr::Signature::from_slice(&answer.signature).unwrap(), &Message::from_digest(task.digest), &key).unwrap();
    assert!(keystore.status().ready, "{:?}", keystore.status());
}

#[test]
fn a_sealed_seed_outlives_the_process_and_is_never_made_twice() {
    let (board, keystore, before) = Board::with_hot("outlives");
    keystore.create_seed("cold", REGTEST, None).unwrap();
    assert_ne!(before.xpub, account(&keystore, "cold", ACCOUNT).xpub, "two wallets have one seed");
    let file = board.config().state.join("seed-hot.sealed");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&file).unwrap();
    assert!(matches!(keystore.create_seed("hot", REGTEST, None), Err(KeystoreError::Exists { .. })));
    assert_eq!(fs::read(&file).unwrap(), bytes);
    drop(keystore);
    let keystore = board.open();
    assert_eq!(account(&keystore, "hot", ACCOUNT), before);
    keystore.bind(binding("hot", &[before])).unwrap();
}

#[test]
fn dice_change_the_seed_and_do_not_replace_the_other_sources() {
    let board = Board::with_auth("dice");
    let keystore = board.open();
    keystore.prove_random().unwrap();
    let rolls = "1234563216543216543213546213546213546213546132465132465";
    for wallet in ["one", "two"] {
        keystore.create_seed(wallet, REGTEST, Some(&TypedEntropy::dice(rolls.as_bytes()).unwrap())).unwrap();
    }
    assert_ne!(account(&keystore, "one", ACCOUNT).xpub, account(&keystore, "two", ACCOUNT).xpub, "the same rolls made the same seed");
}

#[test]
fn a_tpm_that_went_away_is_found_again_without_a_restart() {
    let (mut board, keystore, account) = Board::with_hot("went_away");
    for _ in 0..2 {
        board.swtpm.kill().unwrap();
        wait_until("the keystore to notice", PATIENCE, || Ok(!keystore.status().ready)).unwrap();
        assert_eq!(code(sign(&keystore, &account)), "refused.keystore_unavailable");
        board.swtpm.start_again().unwrap();
        wait_for_signatures(&keystore, &account);
        assert!(keystore.status().ready);
    }
}

#[test]
fn another_boot_is_refused_with_the_pcrs_that_changed_and_what_mends_it() {
    let (board, keystore, account) = Board::with_hot("another_boot");
    drop(keystore);
    board.measure(11, 1);
    let keystore = board.open();
    let error = keystore.bind(binding("hot", std::slice::from_ref(&account))).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.code().as_str(), "refused.key_mismatch");
    assert!(text.contains("PCR 11 (kernel image) holds") && text.contains("postern wallet reseal"), "{text}");
    assert!(!text.contains("PCR 7"), "{text}");
    assert_eq!(board.tpm().with(|tpm| tpm.lockout()).unwrap().failed, 0, "an auth value was spent on it");
}

#[test]
fn a_seed_sealed_to_the_boot_after_an_update_opens_in_both_until_the_old_one_is_dropped() {
    let (mut board, keystore, account) = Board::with_hot("update");
    use sha2::{Digest as _, Sha256};
    let after: [u8; 32] = Sha256::new().chain_update([0; 32]).chain_update([2; 32]).finalize().into();
    keystore.reseal("hot", REGTEST, &BTreeMap::from([(11, after)]), false).unwrap();
    drop(keystore);
    let reopen = |board: &Board| {
        let keystore = board.open();
        keystore.bind(binding("hot", std::slice::from_ref(&account))).map(|()| keystore)
    };
    reopen(&board).unwrap();
    board.measure(11, 2);
    let updated = reopen(&board).unwrap();
    updated.reseal("hot", REGTEST, &BTreeMap::new(), true).unwrap();
    drop(updated);
    reopen(&board).unwrap();
    // Back to the old boot.
    board.swtpm.kill().unwrap();
    board.swtpm.start_again().unwrap();
    assert_eq!(code(reopen(&board)), "refused.key_mismatch");
}

#[test]
fn a_wrong_auth_value_is_tried_once_and_never_again_by_itself() {
    let (board, keystore, account) = Board::with_hot("wrong");
    drop(keystore);
    board.run.write("tpm.auth", "incorrect horse").unwrap();
    let failed = || board.tpm().with(|tpm| tpm.lockout()).unwrap().failed;
    let keystore = board.open();
    assert_eq!(code(keystore.bind(binding("hot", std::slice::from_ref(&account)))), "refused.keystore_pin");
    for _ in 0..3 {
        assert_eq!(code(sign(&keystore, &account)), "refused.keystore_pin");
        assert_eq!(code(keystore.account_key("hot", REGTEST, &path(ACCOUNT))), "refused.keystore_pin");
    }
    // Longer than the watch looks.
    let looked = std::time::Instant::now();
    wait_until("the watch to look again", PATIENCE, || Ok(looked.elapsed() > Duration::from_secs(5))).unwrap();
    assert_eq!(failed(), 1);
    assert!(keystore.status().state.contains("refused the auth value"), "{:?}", keystore.status());
}

#[test]
fn in_lockout_the_keystore_waits_and_comes_back_by_itself() {
    let (board, keystore, account) = Board::with_hot("lockout");
    drop(keystore);
    // Two wrong tries of three, by somebody else; one is forgiven each second.
    board.set_lockout(3, 3);
    for _ in 0..2 {
        board.run.write("tpm.auth", "wrong").unwrap();
        let _ = board.open().account_key("hot", REGTEST, &path(ACCOUNT));
    }
    board.run.write("tpm.auth", "correct horse").unwrap();
    let keystore = board.open();
    let error = keystore.bind(binding("hot", std::slice::from_ref(&account))).unwrap_err();
    assert_eq!(error.code().as_str(), "refused.keystore_unavailable");
    assert!(error.to_string().contains("come back in"), "{error}");
    wait_for_signatures(&keystore, &account);
}

#[test]
fn a_seed_file_that_is_not_this_wallets_never_opens() {
    let (board, keystore, good) = Board::with_hot("file");
    keystore.create_seed("cold", REGTEST, None).unwrap();
    let file = board.config().state.join("seed-hot.sealed");
    let bytes = fs::read(&file).unwrap();
    let open = || keystore.account_key("hot", REGTEST, &path(ACCOUNT));
    for place in (0..bytes.len()).step_by(3) {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        fs::write(&file, &changed).unwrap();
        if let Ok(key) = open() {
            panic!("byte {place} does not matter: {key}");
        }
    }
    for cut in [0, 1, bytes.len() - 1] {
        fs::write(&file, &bytes[..cut]).unwrap();
        assert_eq!(code(open()), "refused.key_mismatch");
    }
    fs::copy(board.config().state.join("seed-cold.sealed"), &file).unwrap();
    assert_eq!(code(open()), "refused.key_mismatch");
    fs::remove_file(&file).unwrap();
    assert_eq!(code(open()), "refused.key_missing");
    fs::write(&file, &bytes).unwrap();
    assert_eq!(code(keystore.account_key("hot", Network::Signet, &path(ACCOUNT))), "refused.key_mismatch");
    assert_eq!(open().unwrap(), good);
    assert_eq!(board.tpm().with(|tpm| tpm.lockout()).unwrap().failed, 0, "a bad file cost a try");
}

#[test]
fn another_boards_seed_and_other_kinds_of_keys_are_refused() {
    let (board, keystore, account) = Board::with_hot("kinds");
    let other = Board::with_auth("other");
    fs::copy(board.config().state.join("seed-hot.sealed"), other.config().state.join("seed-hot.sealed")).unwrap();
    let error = other.open().bind(binding("hot", std::slice::from_ref(&account))).unwrap_err();
    assert!(error.to_string().contains("another TPM"), "{error}");
    let public_key = PublicKey::new(account.xpub.public_key);
    let hsm = WalletBinding { wallet: "one".into(), network: REGTEST, keys: BoundKeys::Hsm { public_key } };
    assert_eq!(code(keystore.bind(hsm)), "refused.key_missing");
    assert_eq!(code(keystore.pool_keys("hot", 0, 0, 1)), "refused.wallet_unknown");
    let stranger = AccountKey { path: path("m/84h/1h/1h"), ..account.clone() };
    assert_eq!(code(keystore.bind(binding("hot", &[stranger]))), "refused.key_mismatch");
    keystore.bind(binding("hot", std::slice::from_ref(&account))).unwrap();
    sign(&keystore, &account).unwrap();
}
