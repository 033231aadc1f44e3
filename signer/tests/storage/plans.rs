//! Transactions to charge, proven by the signer's own analysis.

use std::{collections::BTreeMap, sync::Arc};

use bitcoin::{
    Amount, Network, OutPoint, Psbt, PublicKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    absolute::LockTime,
    hashes::Hash as _,
    secp256k1::{Secp256k1, SecretKey},
    transaction::Version,
};
use postern_protocol::{
    command::{Action, Rate},
    reply::{InputSignature, SignaturePlace},
};
use postern_signer::{
    analysis::{SpendPlan, analyze},
    keystore::BoundKeys,
    ledger::VerifiedCommand,
    policy::rules::{Limits, PolicyRules, Raise, SpendRules, WalletPolicy},
    wallet::Wallet,
};

/// The wallet's name.
pub(crate) const HOT: &str = "hot";
/// What every coin is worth, in satoshi.
const COIN_SAT: u64 = 100_000_000;
/// The fee of every transaction, in satoshi; it is in the outflow.
const FEE_SAT: u64 = 300;

/// Makes plans of one wallet of one key.
#[derive(Debug)]
pub(crate) struct Plans {
    wallet: Wallet,
    own: ScriptBuf,
}

impl Plans {
    pub(crate) fn new() -> Self {
        let key = PublicKey::new(SecretKey::from_slice(&[7; 32]).unwrap().public_key(&Secp256k1::new()));
        let wallet = Wallet::new(HOT, Network::Regtest, &format!("wpkh({key})"), 1, BoundKeys::Hsm { public_key: key }).unwrap();
        Self { wallet, own: ScriptBuf::new_p2wpkh(&key.wpubkey_hash().unwrap()) }
    }

    /// Spends a coin; another salt is another transaction.
    pub(crate) fn plan(&self, coin: u64, outflow_sat: u64, salt: u8) -> Arc<SpendPlan> {
        let own = |sat| TxOut { value: Amount::from_sat(sat), script_pubkey: self.own.clone() };
        let from = OutPoint { txid: Txid::hash(&coin.to_le_bytes()), vout: 0 };
        let coin = transaction(from, vec![own(COIN_SAT)]);
        let to = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([salt; 20]));
        let pay = TxOut { value: Amount::from_sat(outflow_sat - FEE_SAT), script_pubkey: to };
        let spend = transaction(OutPoint { txid: coin.compute_txid(), vout: 0 }, vec![pay, own(COIN_SAT - outflow_sat)]);
        let mut psbt = Psbt::from_unsigned_tx(spend).unwrap();
        psbt.inputs[0].non_witness_utxo = Some(coin);
        Arc::new(analyze(&self.wallet, &SpendRules::default(), &psbt.serialize()).unwrap())
    }
}

fn transaction(previous_output: OutPoint, output: Vec<TxOut>) -> Transaction {
    let input = vec![TxIn { previous_output, sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, ..TxIn::default() }];
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// A signer with this total and a bucket that an hour fills.
pub(crate) fn rules(total_sat: u64, burst_sat: u64) -> PolicyRules {
    let rate = Rate { amount_sat: burst_sat, per_ms: 3_600_000, burst_sat };
    let signer = Limits { rates: vec![rate], total_sat: Some(total_sat) };
    PolicyRules { raise: Raise::Command, signer, wallets: BTreeMap::from([(HOT.into(), WalletPolicy::default())]) }
}

pub(crate) fn command(serial: u64, action: Action) -> VerifiedCommand {
    VerifiedCommand { serial, action, managers: vec!["cfo".into(), "cto".into()], base: None }
}

/// Bytes in a signature's place; the ledger keeps them and looks into none.
pub(crate) fn signature(n: usize) -> Vec<InputSignature> {
    let signature = vec![u8::try_from(n % 251).unwrap(); 71];
    (0..20)
        .map(|input| InputSignature { input, public_key: vec![2; 33], signature: signature.clone(), place: SignaturePlace::Partial })
        .collect()
}
