//! Sign requests as they travel: one p2wpkh input each, no outpoint twice.

use anyhow::Result;
use bitcoin::{
    Amount, OutPoint, Psbt, PublicKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, absolute::LockTime, hashes::Hash as _,
    transaction::Version,
};
use postern_protocol::{
    PROTOCOL_VERSION, canonical, frame,
    reply::Address,
    request::{Request, RequestBody, SignRequest},
};

pub(crate) struct Requests {
    own: ScriptBuf,
    next: u64,
}

impl Requests {
    pub(crate) fn new(public_key: &str) -> Result<Self> {
        let key: PublicKey = public_key.parse()?;
        Ok(Self { own: ScriptBuf::new_p2wpkh(&key.wpubkey_hash()?), next: 1 })
    }

    /// Frames for each of some clients.
    pub(crate) fn frames(&mut self, clients: usize, each: usize) -> Result<Vec<Vec<Vec<u8>>>> {
        (0..clients).map(|_| self.take(each)).collect()
    }

    /// This many frames that were never sent before.
    pub(crate) fn take(&mut self, count: usize) -> Result<Vec<Vec<u8>>> {
        (0..count).map(|_| self.one()).collect()
    }

    fn one(&mut self) -> Result<Vec<u8>> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.next.to_le_bytes());
        self.next += 1;
        let own = |sat| TxOut { value: Amount::from_sat(sat), script_pubkey: self.own.clone() };
        let coin = transaction(OutPoint { txid: Txid::from_byte_array(seed), vout: 0 }, vec![own(1_000_000), own(5_000)]);
        let pay = TxOut { value: Amount::from_sat(20_000), script_pubkey: ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::all_zeros()) };
        let spend = transaction(OutPoint { txid: coin.compute_txid(), vout: 0 }, vec![pay, own(979_000)]);
        let mut psbt = Psbt::from_unsigned_tx(spend)?;
        psbt.inputs[0].witness_utxo = Some(coin.output[0].clone());
        psbt.inputs[0].non_witness_utxo = Some(coin);
        let body = RequestBody::Sign(SignRequest { wallet: "hot".into(), psbt: psbt.serialize() });
        Ok(frame::wrap(&canonical::to_vec(&Request { version: PROTOCOL_VERSION, id: self.next, body }))?)
    }
}

/// A PSBT that spends a coin of each of these addresses.
pub(crate) fn of_many_inputs(own: &[Address], salt: u32) -> Result<Vec<u8>> {
    let coins: Vec<Transaction> = own
        .iter()
        .map(|address| {
            let mut seed = [0xff; 32];
            seed[..4].copy_from_slice(&salt.to_le_bytes());
            let coin = TxOut { value: Amount::from_sat(1_000_000), script_pubkey: ScriptBuf::from(address.script_pubkey.clone()) };
            transaction(OutPoint { txid: Txid::from_byte_array(seed), vout: address.index }, vec![coin])
        })
        .collect();
    let pay = TxOut { value: Amount::from_sat(20_000_000), script_pubkey: ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::all_zeros()) };
    let mut spend = transaction(OutPoint::null(), vec![pay]);
    spend.input = coins
        .iter()
        .map(|coin| TxIn {
            previous_output: OutPoint { txid: coin.compute_txid(), vout: 0 },
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            ..TxIn::default()
        })
        .collect();
    let mut psbt = Psbt::from_unsigned_tx(spend)?;
    for (fields, coin) in psbt.inputs.iter_mut().zip(coins) {
        fields.non_witness_utxo = Some(coin);
    }
    Ok(psbt.serialize())
}

fn transaction(previous_output: OutPoint, output: Vec<TxOut>) -> Transaction {
    let input = vec![TxIn { previous_output, sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, ..TxIn::default() }];
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}
