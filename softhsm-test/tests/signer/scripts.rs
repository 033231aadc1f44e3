//! Signatures for every kind of script are accepted by bitcoind.

use bitcoin::Sequence;
use postern_testkit::{
    Bitcoind, TempRun, VaultPlan, WalletPlan,
    spend::{self, Coin, Output},
};

const COSIGNER: &str =
    "[73c5da0a/84h/1h/0h]tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M";
const NOBODY: &str = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0";

/// Funds the wallet's first address, spends it with change through the socket, and lets bitcoind judge.
fn is_accepted(kind: &'static str, script: &str) {
    let run = TempRun::new("script").unwrap();
    let vault = VaultPlan::default().wallet(WalletPlan::new("hot", kind, script)).start(&run).unwrap();
    let node = Bitcoind::start(&run).unwrap();
    let own = vault.at("hot", 0, 0).unwrap();
    let funding = node.fund_confirmed(&own.script_pubkey(), 1_000_000).unwrap();
    node.mine(2).unwrap();
    let mut coin = Coin::new(&funding.transaction, funding.outpoint().vout, own);
    if script.contains("older") {
        coin.sequence = Sequence::from_height(2);
    }
    let change = vault.at("hot", 1, 0).unwrap();
    let elsewhere = node.fund(&change.script_pubkey(), 10_000).unwrap().transaction.output[1].script_pubkey.clone();
    let mut psbt = spend::psbt(&[coin], &[Output::Pay(elsewhere, 600_000), Output::Own(Box::new(change), 398_000)]).unwrap();
    let signed = vault.connect().unwrap().sign("hot", &psbt.serialize()).unwrap().unwrap();
    assert_eq!(signed.signatures.len(), 1);
    spend::add_signatures(&mut psbt, &signed).unwrap();
    let transaction = spend::finish(psbt).unwrap();
    node.accepts(&transaction).unwrap();
}

macro_rules! accepted {
    ($($name:ident: $kind:literal, $script:expr;)+) => {
        $(#[test] fn $name() { is_accepted($kind, &$script); })+
    };
}

accepted! {
    p2pkh_of_a_seed: "seed", "pkh(@)";
    p2sh_p2wpkh_of_a_seed: "seed", "sh(wpkh(@))";
    p2wpkh_of_a_seed: "seed", "wpkh(@)";
    p2wsh_multisig_one_of_two_of_a_seed: "seed", format!("wsh(sortedmulti(1,@,{COSIGNER}/<0;1>/*))");
    p2wsh_miniscript_of_a_seed: "seed", format!("wsh(or_d(pk({COSIGNER}/<0;1>/*),and_v(v:pkh(@),older(2))))");
    p2tr_key_path_of_a_seed: "seed", "tr(@)";
    p2tr_script_path_of_a_seed: "seed", format!("tr({NOBODY},pk(@))");
    p2pkh_of_a_pool: "pool", "pkh(@)";
    p2sh_p2wpkh_of_a_pool: "pool", "sh(wpkh(@))";
    p2wpkh_of_a_pool: "pool", "wpkh(@)";
    p2wsh_miniscript_of_a_pool: "pool", "wsh(and_v(v:pk(@),older(2)))";
    p2pkh_of_a_token_key: "hsm", "pkh(@)";
    p2sh_p2wpkh_of_a_token_key: "hsm", "sh(wpkh(@))";
    p2wpkh_of_a_token_key: "hsm", "wpkh(@)";
    p2wsh_multisig_one_of_two_of_a_token_key: "hsm", format!("wsh(sortedmulti(1,@,{COSIGNER}/0/0))");
    p2wsh_miniscript_of_a_token_key: "hsm", "wsh(and_v(v:pk(@),older(2)))";
}
