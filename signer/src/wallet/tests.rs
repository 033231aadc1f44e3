//! Descriptors that make a wallet, and those that do not.
#![allow(clippy::unwrap_used)]

use std::str::FromStr as _;

use bitcoin::{
    Network, PublicKey,
    bip32::{ChildNumber, DerivationPath, Xpriv, Xpub},
    secp256k1::{Secp256k1, SecretKey},
};
use miniscript::{Descriptor, DescriptorPublicKey};

use super::{BRANCH_MAX, GAP_MAX, KeyLocator, Position, SpendScript, Wallet, WalletError};
use crate::keystore::{AccountKey, BoundKeys};

fn master(network: Network) -> Xpriv {
    Xpriv::new_master(network, &[7; 32]).unwrap()
}

fn account_of(network: Network, path: &str) -> AccountKey {
    let secp = Secp256k1::new();
    let path = DerivationPath::from_str(path).unwrap();
    let master = master(network);
    let xpub = Xpub::from_priv(&secp, &master.derive_priv(&secp, &path).unwrap());
    AccountKey { fingerprint: master.fingerprint(&secp), path, xpub }
}

fn account() -> AccountKey {
    account_of(Network::Regtest, "84'/1'/0'")
}

fn cosigner() -> AccountKey {
    account_of(Network::Regtest, "48'/1'/3'")
}

fn key() -> PublicKey {
    PublicKey::new(SecretKey::from_slice(&[9; 32]).unwrap().public_key(&Secp256k1::new()))
}

fn seed(descriptor: &str) -> Result<Wallet, WalletError> {
    let descriptor = descriptor.replace("KEY", &account().to_string()).replace("OTHER", &cosigner().to_string());
    Wallet::new("w", Network::Regtest, &descriptor, 5, BoundKeys::Seed { accounts: vec![account()] })
}

fn hsm(descriptor: &str) -> Result<Wallet, WalletError> {
    let descriptor = descriptor.replace("KEY", &key().to_string()).replace("OTHER", &cosigner().to_string());
    Wallet::new("w", Network::Regtest, &descriptor, 5, BoundKeys::Hsm { public_key: key() })
}

fn pool(descriptor: &str) -> Result<Wallet, WalletError> {
    Wallet::new("w", Network::Regtest, descriptor, 5, BoundKeys::Pool)
}

#[test]
fn the_table_holds_what_miniscript_derives() {
    let wallet = seed("wsh(sortedmulti(2,KEY/<0;1>/*,OTHER/<0;1>/*))").unwrap();
    let branches = Descriptor::<DescriptorPublicKey>::from_str(&wallet.descriptor()).unwrap().into_single_descriptors().unwrap();
    for (branch, descriptor) in (0..).zip(&branches) {
        for index in 0..7 {
            let position = Position { branch, index };
            let script = descriptor.at_derivation_index(index).unwrap().script_pubkey();
            let own = wallet.at(position).unwrap();
            assert_eq!(own.script_pubkey, script);
            assert_eq!(wallet.find(&script).is_some(), index < 5, "only the table up to the gap is searched");
            let path = format!("84'/1'/0'/{branch}/{index}").parse().unwrap();
            assert_eq!(own.keys.iter().map(|k| &k.locator).collect::<Vec<_>>(), [&KeyLocator::Seed(path)]);
        }
    }
}

#[test]
fn a_single_address_is_receive_and_change() {
    let wallet = hsm("wpkh(KEY)").unwrap();
    let only = Position { branch: 0, index: 0 };
    assert_eq!((wallet.branches(), wallet.end(0), wallet.end(1)), (1, 1, 0));
    assert!(wallet.is_change(only));
    assert!(wallet.at(Position { branch: 0, index: 1 }).is_err());
    assert!(wallet.at(Position { branch: 1, index: 0 }).is_err());
    wallet.note_used(only);
    wallet.note_used(Position { branch: 1, index: 0 });
    assert_eq!(wallet.end(0), 1);
    assert!(!seed("wpkh(KEY/<0;1>/*)").unwrap().is_change(only));
}

#[test]
fn used_positions_move_the_end_of_their_branch_only() {
    let wallet = seed("wpkh(KEY/<0;1>/*)").unwrap();
    assert_eq!((wallet.end(0), wallet.last_used(0)), (5, None));
    wallet.note_used(Position { branch: 0, index: 3 });
    assert_eq!((wallet.end(0), wallet.end(1), wallet.last_used(0)), (9, 5, Some(3)));
    wallet.note_used(Position { branch: 0, index: 1 });
    assert_eq!((wallet.end(0), wallet.last_used(0)), (9, Some(3)));
    wallet.note_used(Position { branch: 0, index: 200 });
    assert_eq!(wallet.end(0), 206);
    wallet.note_used(Position { branch: 2, index: 1 });
    wallet.note_used(Position { branch: 1, index: u32::MAX });
    assert_eq!(wallet.end(1), 5);
}

/// Found in review: payments without a fee to the end of the window cost nothing and moved it by a gap each, until the memory was full,
/// and full again at every start.
#[test]
fn the_window_of_recognised_scripts_does_not_move_without_end() {
    let wallet = seed("wpkh(KEY/<0;1>/*)").unwrap();
    for gap in [1, GAP_MAX] {
        assert_eq!(wallet.template.end(Some(BRANCH_MAX - 1), gap), BRANCH_MAX);
        assert_eq!(wallet.template.end(Some(u32::MAX), gap), BRANCH_MAX);
    }
    assert_eq!(wallet.template.end(Some(BRANCH_MAX - 3), 1), BRANCH_MAX - 1);
    // What lies past it can still be told from fraud.
    assert!(wallet.at(Position { branch: 1, index: BRANCH_MAX }).is_ok() && wallet.at(Position { branch: 1, index: 1 << 31 }).is_err());
}

#[test]
fn readers_and_those_who_extend_do_not_disturb_each_other() {
    let wallet = seed("wpkh(KEY/<0;1>/*)").unwrap();
    let script = wallet.at(Position { branch: 0, index: 60 }).unwrap().script_pubkey.clone();
    std::thread::scope(|scope| {
        for start in 0..4 {
            let wallet = &wallet;
            scope.spawn(move || (0..15).for_each(|step| wallet.note_used(Position { branch: 0, index: start + step * 4 })));
        }
    });
    assert_eq!(wallet.end(0), 65);
    assert_eq!(wallet.find(&script).unwrap().position.index, 60);
}

#[test]
fn the_exported_descriptor_makes_the_same_wallet() {
    for wallet in [seed("tr(KEY/<0;1>/*,pk(OTHER/<0;1>/*))").unwrap(), hsm("wsh(multi(1,KEY,OTHER/<0;1>/*))").unwrap()] {
        let text = wallet.descriptor();
        assert!(text.contains('#'));
        let again = Wallet::new("w", Network::Regtest, &text, 5, wallet.binding().keys.clone()).unwrap();
        let position = Position { branch: 1, index: 4 };
        assert_eq!(again.at(position), wallet.at(position));
    }
    let text = pool("wsh(and_v(v:pk(pool),older(144)))").unwrap().descriptor();
    assert!(text.starts_with("wsh(and_v(v:pk(pool),older(144)))#"), "{text}");
    pool(&text).unwrap();
    assert!(matches!(pool(&text.replace("144", "145")), Err(WalletError::Syntax { .. })), "a checksum that does not fit passes");
}

#[test]
fn a_public_key_or_checksum_that_happens_to_hold_the_letters_of_a_private_key_is_not_refused() {
    let any = account().xpub;
    let by_chance =
        (0..1_000_000_u32).map(|n| Xpub { child_number: ChildNumber::from(n), ..any }).find(|key| key.to_string().contains("prv")).unwrap();
    assert!(Wallet::account_keys(&format!("wpkh([d34db33f/84h/1h/0h]{by_chance}/<0;1>/*)")).is_ok(), "{by_chance}");
    let checksum = "sh(wpkh([39621882/49h/1h/0h]tpubDCYdkrdsy3SmG63J3K82JAPSPeUWxFsKoLkPhgZDNFimz8PTA3ivMzLaPPD2ifaSt8z7ZWnayrdvQUn9dN3\
                    CrncYYFqRW2vwtWscfY1KhTD/<0;1>/*))#l9emprvc";
    assert!(Wallet::account_keys(checksum).is_ok());
}

#[test]
fn a_private_key_is_refused_and_never_shown() {
    let secret = master(Network::Regtest).to_string();
    let wif = bitcoin::PrivateKey::new(SecretKey::from_slice(&[9; 32]).unwrap(), Network::Regtest).to_wif();
    for private in [&secret, &wif] {
        for descriptor in [format!("wpkh({private})"), format!("wpkh({private}/<0;1>/*)"), format!("nonsense {private}"), private.clone()] {
            let error = seed(&descriptor).unwrap_err();
            assert_eq!(error, WalletError::PrivateKey);
            assert!(!error.to_string().contains(&private[4..20]));
            assert_eq!(Wallet::account_keys(&descriptor).unwrap_err(), WalletError::PrivateKey);
        }
    }
}

#[test]
fn descriptors_that_are_not_safe_are_refused_with_what_mends_them() {
    let mainnet = account_of(Network::Bitcoin, "84'/0'/0'");
    let other_origin = account().to_string().replace("84'", "86'");
    let uncompressed = PublicKey::new_uncompressed(key().inner);
    let cases: Vec<(Result<Wallet, WalletError>, &str)> = vec![
        (seed("wpkh(KEY/<0;1>/*h)"), "hardened"),
        (seed("wpkh(KEY/0h/<0;1>/*)"), "hardened"),
        (seed(&format!("wpkh({mainnet}/<0;1>/*)")), "not a key for regtest"),
        (seed("wpkh(KEY/*)"), "<0;1>/*"),
        (seed("wpkh(KEY/0/*)"), "<0;1>/*"),
        (seed("wpkh(KEY/<0;1>)"), "no `*`"),
        (seed("wpkh(KEY/<0;1;2>/*)"), "3 branches"),
        (seed("wpkh(OTHER/<0;1>/*)"), "does not stand in the descriptor"),
        (seed(&format!("wpkh({other_origin}/<0;1>/*)")), "its origin is"),
        (seed("wsh(sortedmulti(2,KEY/<0;1>/*,KEY/<1;0>/*))"), "have the same script"),
        (seed("wsh(multi(2,KEY/<0;1>/*,KEY/0/*))"), "not safe"),
        (seed("wsh(multi(2,KEY/<0;1>/*,KEY/<0;1>/*))"), "not safe"),
        (seed("wsh(older(144))"), "not"),
        (seed("wsh(or_i(pk(KEY/<0;1>/*),1))"), "not"),
        (seed("sh(wsh(pk(KEY/<0;1>/*)))"), "not supported"),
        (seed("sh(multi(1,KEY/<0;1>/*,OTHER/<0;1>/*))"), "not supported"),
        (seed("pk(KEY/<0;1>/*)"), "not supported"),
        (seed("wpkh(pool)"), "pool"),
        (seed("wpkh(KEY/<0;1>/*"), "not a descriptor"),
        (seed(""), "not a descriptor"),
        (seed("wpkh()"), "not a descriptor"),
        (seed(&"wsh(".repeat(10_000)), "not a descriptor"),
        (hsm("wpkh(OTHER/<0;1>/*)"), "does not stand"),
        (hsm("tr(KEY)"), "BIP-340"),
        (hsm(&format!("pkh({uncompressed})")), "uncompressed"),
        (pool("tr(pool)"), "BIP-340"),
        (pool(&format!("wpkh({})", key())), "pool"),
        (pool("wsh(multi(2,pool,pool))"), "not safe"),
        (Wallet::new("w", Network::Regtest, "wpkh(pool)", 0, BoundKeys::Pool), "1 to"),
        (Wallet::new("w", Network::Regtest, "wpkh(pool)", super::GAP_MAX + 1, BoundKeys::Pool), "1 to"),
        (
            Wallet::new("w", Network::Regtest, &format!("wpkh({}/<0;1>/*)", account()), 5, BoundKeys::Seed { accounts: vec![] }),
            "none was given",
        ),
        (
            Wallet::new("w", Network::Bitcoin, &format!("wpkh({}/<0;1>/*)", account()), 5, BoundKeys::Seed { accounts: vec![account()] }),
            "xpub",
        ),
    ];
    for (number, (made, says)) in cases.into_iter().enumerate() {
        let error = made.err().unwrap_or_else(|| panic!("case {number} ({says}) makes a wallet")).to_string();
        assert!(error.contains(says), "case {number}: `{error}` does not say `{says}`");
    }
}

#[test]
fn an_account_without_origin_is_its_own_master() {
    let xpub = Xpub::from_priv(&Secp256k1::new(), &master(Network::Regtest));
    let text = format!("wpkh({xpub}/<0;1>/*)");
    let accounts = Wallet::account_keys(&text).unwrap();
    assert_eq!(accounts, [AccountKey { fingerprint: xpub.fingerprint(), path: DerivationPath::master(), xpub }]);
    let wallet = Wallet::new("w", Network::Regtest, &text, 5, BoundKeys::Seed { accounts }).unwrap();
    let own = wallet.at(Position { branch: 1, index: 2 }).unwrap();
    assert_eq!(own.keys[0].locator, KeyLocator::Seed("m/1/2".parse().unwrap()));
}

#[test]
fn account_keys_are_listed_once_each() {
    let text = format!("wsh(or_d(multi(2,{0}/<0;1>/*,{1}/<0;1>/*),and_v(v:pk({0}/<2;3>/*),older(9))))", account(), cosigner());
    assert_eq!(Wallet::account_keys(&text).unwrap(), [account(), cosigner()]);
    assert_eq!(Wallet::account_keys("wpkh(pool)").unwrap(), []);
}

#[test]
fn a_leaf_is_kept_only_when_a_key_of_ours_is_in_it() {
    let wallet = seed("tr(OTHER/<0;1>/*,{pk(KEY/<0;1>/*),and_v(v:pk(OTHER/<2;3>/*),older(9))})").unwrap();
    let own = wallet.at(Position { branch: 0, index: 0 }).unwrap();
    let SpendScript::Taproot { key_path, leaves, merkle_root, .. } = &own.spend else { panic!("{:?}", own.spend) };
    assert!(key_path.is_none() && merkle_root.is_some());
    assert_eq!(leaves.iter().map(|leaf| &leaf.keys).collect::<Vec<_>>(), [&own.keys]);
    assert_eq!(wallet.timelocks().older_blocks, Some(9));
}

#[test]
fn lock_times_are_found_in_every_place() {
    let locks = |script: &str| seed(script).unwrap().timelocks();
    let found = locks("wsh(or_d(pk(KEY/<0;1>/*),or_i(and_v(v:pk(OTHER/<0;1>/*),older(144)),and_v(v:pk(OTHER/<2;3>/*),older(4194400)))))");
    assert_eq!((found.older_blocks, found.older_512s), (Some(144), Some(96)));
    let found = locks("tr(KEY/<0;1>/*,{and_v(v:pk(OTHER/<0;1>/*),after(800000)),and_v(v:pk(OTHER/<2;3>/*),after(1900000000))})");
    assert_eq!((found.after_height, found.after_seconds), (Some(800_000), Some(1_900_000_000)));
}
