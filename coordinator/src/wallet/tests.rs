#![allow(clippy::unwrap_used)]

use super::*;

const TPUB: &str =
    "[73c5da0a/84h/1h/0h]tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M";
const A: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
const B: &str = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
const C: &str = "02f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";

fn wallet(descriptor: &str) -> Result<Wallet, WalletError> {
    Wallet::new("w", Network::Regtest, descriptor)
}

#[test]
fn a_descriptor_with_two_branches_gives_bip84_addresses() {
    // BIP 84's own test vector, master 73c5da0a, on a test network.
    let wallet = wallet(&format!("wpkh({TPUB}/<0;1>/*)")).unwrap();
    let first = wallet.script(RECEIVE, 0, None).unwrap();
    assert_eq!(wallet.address(&first.script).unwrap().to_string(), "bcrt1q6rz28mcfaxtmd6v789l9rrlrusdprr9pz3cppk");
    assert_ne!(first.script, wallet.script(CHANGE, 0, None).unwrap().script);
    assert_eq!(wallet.change_branch(), CHANGE);
    assert_eq!(wallet.quorum(1), 1);
}

#[test]
fn the_pool_word_takes_the_place_of_the_key_and_of_nothing_else() {
    assert_eq!(fill_pool("wsh(and_v(v:pk(pool),older(144)))", "K").unwrap(), "wsh(and_v(v:pk(K),older(144)))");
    assert_eq!(fill_pool("wsh(multi(1,pool,poolX))", "K").unwrap(), "wsh(multi(1,K,poolX))");
    assert!(fill_pool("wpkh(poolpool)", "K").is_none());
    let wallet = wallet("wpkh(pool)").unwrap();
    assert!(wallet.is_pool());
    assert!(matches!(wallet.script(0, 7, None), Err(WalletError::PoolKey { branch: 0, index: 7 })));
    assert!(matches!(wallet.script(0, 7, Some(&[2; 12])), Err(WalletError::Key)));
    assert!(wallet.script(0, 7, Some(&hex::decode(A).unwrap())).unwrap().script.is_p2wpkh());
}

#[test]
fn a_descriptor_without_a_wildcard_is_one_address_and_its_own_change() {
    let wallet = wallet(&format!("wpkh({A})")).unwrap();
    assert!(wallet.is_single());
    assert_eq!(wallet.change_branch(), RECEIVE);
    assert!(wallet.at(RECEIVE, 1, None).is_err());
}

#[test]
fn scripts_that_no_signer_signs_are_refused_before_anybody_deposits_to_them() {
    for descriptor in [format!("sh(wsh(sortedmulti(1,{A},{B})))"), format!("sh(sortedmulti(1,{A},{B}))"), format!("pk({A})")] {
        let refused = wallet(&descriptor).unwrap_err();
        assert!(matches!(refused, WalletError::Script(_)), "{descriptor}: {refused}");
    }
}

#[test]
fn a_quorum_is_read_from_the_descriptor() {
    assert_eq!(wallet(&format!("wsh(sortedmulti(2,{A},{B}))")).unwrap().quorum(2), 2);
    assert_eq!(wallet(&format!("wsh(sortedmulti(1,{A},{B}))")).unwrap().quorum(2), 1);
    assert_eq!(wallet(&format!("wsh(multi(2,{A},{B}))")).unwrap().quorum(3), 2);
    assert_eq!(wallet(&format!("wsh(and_v(v:pk({A}),pk({B})))")).unwrap().quorum(2), 2, "all, where it is not a plain multisig");
}

#[test]
fn waiting_is_put_into_the_transaction_only_when_there_is_no_other_way() {
    let waiting = wallet(&format!("wsh(and_v(v:pk({A}),older(144)))")).unwrap().shape();
    assert_eq!((waiting.sequence, waiting.min_age), (Sequence::from_height(144), 144));
    let either = wallet(&format!("wsh(or_d(multi(2,{A},{B}),and_v(v:pkh({C}),older(1000))))")).unwrap();
    assert_eq!((either.shape().sequence, either.shape().min_age), (REPLACEABLE, 0));
    let after = wallet(&format!("wsh(and_v(v:pk({A}),after(500)))")).unwrap().shape();
    assert_eq!(after.lock_time, absolute::LockTime::from_height(500).unwrap());
    assert_eq!(wallet(&format!("wsh(and_v(v:pk({A}),after(1700000000)))")).unwrap_err(), WalletError::TimeLock);
}

#[test]
fn wrong_descriptors_are_named_for_what_is_wrong() {
    assert!(matches!(wallet("wpkh(nonsense)"), Err(WalletError::Descriptor(_))));
    assert!(matches!(wallet(&format!("wpkh({TPUB}/*)")), Err(WalletError::Branches)));
    assert!(matches!(wallet(&format!("wpkh({TPUB}/<0;1;2>/*)")), Err(WalletError::Branches)));
    assert!(matches!(Wallet::new("w", Network::Bitcoin, &format!("wpkh({TPUB}/<0;1>/*)")), Err(WalletError::Network { .. })));
    assert!(wallet("").is_err());
}
