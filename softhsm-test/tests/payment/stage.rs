//! One signer, one wallet, and payees of whom the chain tells what they got.

use anyhow::{Context as _, Result};
use bitcoin::{Address, KnownHrp, PrivateKey, secp256k1};
use postern_testkit::{
    Bitcoind, TempRun, VaultPlan, WalletPlan,
    site::{Site, SitePlan, Way},
};
use serde_json::{Value, json};

/// Enough for any test here.
pub(crate) const BTC: u64 = 100_000_000;

/// A vault with one `seed` wallet called `hot`.
pub(crate) fn vault(limits: &str) -> VaultPlan {
    VaultPlan::default().limits(limits).wallet(WalletPlan::new("hot", "seed", "wpkh(@)"))
}

/// The lines of the coordinator's wallet: small orders need nobody, batches close at once, few confirmations.
pub(crate) const LINES: &str = "approval = { automatic_up_to = \"1 BTC\" }\nbatch = { wait = \"300 ms\" }\n\
    deposit_confirmations = 1\npayment_confirmations = 2";

/// A site with 1 BTC in its wallet.
pub(crate) fn site(label: &str, limits: &str) -> Site {
    site_over(label, limits, Way::Direct)
}

pub(crate) fn site_over(label: &str, limits: &str, way: Way) -> Site {
    let run = TempRun::new(label).unwrap();
    let site = SitePlan::new([vault(limits)]).way(way).wallet_lines(LINES).start(&run).unwrap();
    site.deposit("hot", "first", BTC).unwrap();
    site
}

/// More coins of 1 BTC, so that no payment has to wait for another's change.
pub(crate) fn more_coins(site: &Site, coins: usize) {
    for n in 0..coins {
        site.deposit("hot", &format!("more {n}"), BTC).unwrap();
    }
}

/// The address of a payee, another one for each name.
pub(crate) fn payee(name: &str) -> Address {
    use bitcoin::hashes::Hash as _;
    let secret = bitcoin::hashes::sha256::Hash::hash(name.as_bytes());
    let key = secp256k1::SecretKey::from_slice(secret.as_byte_array()).unwrap();
    let public = PrivateKey::new(key, bitcoin::Network::Regtest).public_key(&secp256k1::Secp256k1::signing_only());
    Address::p2wpkh(&public.try_into().unwrap(), KnownHrp::Regtest)
}

/// Every unspent output that pays an address, confirmed, in satoshi.
pub(crate) fn received(node: &Bitcoind, address: &Address) -> Result<Vec<u64>> {
    let found: Value = node.rpc().call("scantxoutset", &[json!("start"), json!([format!("addr({address})")])])?;
    let outputs = found["unspents"].as_array().context("no list of outputs")?;
    outputs.iter().map(|o| Ok(bitcoin::Amount::from_btc(o["amount"].as_f64().context("no amount")?)?.to_sat())).collect()
}

/// Orders a payment to the payee of that name.
pub(crate) fn order(site: &Site, name: &str, sat: u64) -> String {
    site.order("hot", name, &payee(name), sat).unwrap()
}
