//! The miner's money: one key at a time, its rewards, and its change.

use std::collections::VecDeque;

use anyhow::{Context as _, Result, bail};
use bitcoin::{
    Amount, BlockHash, CompressedPublicKey, EcdsaSighashType, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, WPubkeyHash,
    Witness, absolute::LockTime, ecdsa, hashes::Hash as _, secp256k1, sighash::SighashCache, transaction::Version,
};
use secp256k1::{Message, Secp256k1, SecretKey};
use serde_json::{Value, json};

use super::Rpc;

const MATURE: u64 = 100;
const FEE_RATE_SAT_PER_VB: u64 = 5;
const INPUT_VB: u64 = 68;

/// Keeps the keys and remembers where the money is; whether it is still there is asked of the node.
#[derive(Debug, Default)]
pub(super) struct Miner {
    key: u32,
    rewards: VecDeque<Coin>,
    change: VecDeque<Coin>,
}

#[derive(Debug, Clone, Copy)]
struct Coin {
    outpoint: OutPoint,
    key: u32,
}

struct Checked {
    coin: Coin,
    value: Amount,
    confirmations: u64,
}

fn secret(key: u32) -> SecretKey {
    let digest = bitcoin::hashes::sha256::Hash::hash(format!("postern miner {key}").as_bytes());
    #[allow(clippy::expect_used, reason = "a SHA-256 is a valid key but with a chance of 2^-128")]
    SecretKey::from_slice(digest.as_byte_array()).expect("a valid key")
}

fn public(key: u32) -> CompressedPublicKey {
    CompressedPublicKey(secret(key).public_key(&Secp256k1::signing_only()))
}

fn script(key: u32) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&public(key).wpubkey_hash())
}

impl Miner {
    pub(super) fn descriptor(&self) -> String {
        format!("wpkh({})", public(self.key))
    }

    pub(super) fn next_key(&mut self) {
        self.key += 1;
    }

    pub(super) fn note_block(&mut self, rpc: &Rpc, hash: BlockHash) -> Result<()> {
        let block: Value = rpc.call("getblock", &[json!(hash), json!(1)])?;
        let txid: Txid = block.pointer("/tx/0").and_then(Value::as_str).context("a block without a coinbase")?.parse()?;
        self.rewards.push_back(Coin { outpoint: OutPoint { txid, vout: 0 }, key: self.key });
        Ok(())
    }

    /// The last output of a payment is the change.
    pub(super) fn note_change(&mut self, transaction: &Transaction) {
        let Some(last) = transaction.output.len().checked_sub(1) else { return };
        if transaction.output.get(last).is_some_and(|o| o.script_pubkey == script(self.key)) {
            let outpoint = OutPoint { txid: transaction.compute_txid(), vout: u32::try_from(last).unwrap_or(u32::MAX) };
            self.change.push_back(Coin { outpoint, key: self.key });
        }
    }

    /// A signed transaction with these outputs and change after them.
    pub(super) fn pay(&mut self, rpc: &Rpc, mut output: Vec<TxOut>) -> Result<Transaction> {
        let wanted: Amount = output.iter().map(|o| o.value).sum();
        let outputs_vb: u64 = output.iter().map(|o| 9 + o.script_pubkey.len() as u64).sum::<u64>() + 31 + 11;
        let (mut inputs, mut sum, mut fee) = (Vec::new(), Amount::ZERO, Amount::ZERO);
        while inputs.is_empty() || sum < wanted + fee + Amount::from_sat(1_000) {
            let Some(coin) = self.next_coin(rpc)? else { bail!("the miner cannot pay {wanted}: mine more blocks") };
            sum += coin.value;
            inputs.push(coin);
            fee = Amount::from_sat(FEE_RATE_SAT_PER_VB * (outputs_vb + INPUT_VB * inputs.len() as u64));
        }
        output.push(TxOut { value: sum - wanted - fee, script_pubkey: script(self.key) });
        let input = inputs
            .iter()
            .map(|c| TxIn { previous_output: c.coin.outpoint, sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, ..TxIn::default() })
            .collect();
        let mut transaction = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output };
        sign(&mut transaction, &inputs)?;
        Ok(transaction)
    }

    /// Confirmed change first, then rewards, then change that still waits. What is gone (spent elsewhere, or its block
    /// was replaced) is forgotten.
    fn next_coin(&mut self, rpc: &Rpc) -> Result<Option<Checked>> {
        let mut waiting = VecDeque::new();
        while let Some(coin) = self.change.pop_front() {
            match check(rpc, coin)? {
                Some(checked) if checked.confirmations > 0 => {
                    waiting.append(&mut self.change);
                    self.change = waiting;
                    return Ok(Some(checked));
                }
                Some(_) => waiting.push_back(coin),
                None => {}
            }
        }
        self.change = waiting;
        while let Some(coin) = self.rewards.pop_front() {
            match check(rpc, coin)? {
                // It can be spent in the next block, as its 101st.
                Some(checked) if checked.confirmations >= MATURE => return Ok(Some(checked)),
                Some(_) => {
                    self.rewards.push_front(coin);
                    break;
                }
                None => {}
            }
        }
        match self.change.pop_front() {
            Some(coin) => check(rpc, coin),
            None => Ok(None),
        }
    }
}

fn check(rpc: &Rpc, coin: Coin) -> Result<Option<Checked>> {
    let OutPoint { txid, vout } = coin.outpoint;
    let Some(output) = rpc.call::<Option<Value>>("gettxout", &[json!(txid), json!(vout), json!(true)])? else { return Ok(None) };
    let value = output.get("value").and_then(Value::as_f64).context("gettxout without a value")?;
    let confirmations = output.get("confirmations").and_then(Value::as_u64).unwrap_or(0);
    Ok(Some(Checked { coin, value: Amount::from_btc(value)?, confirmations }))
}

fn sign(transaction: &mut Transaction, inputs: &[Checked]) -> Result<()> {
    let secp = Secp256k1::signing_only();
    let mut cache = SighashCache::new(&mut *transaction);
    for (n, Checked { coin, value, .. }) in inputs.iter().enumerate() {
        let hash: WPubkeyHash = public(coin.key).wpubkey_hash();
        let sighash = cache.p2wpkh_signature_hash(n, &ScriptBuf::new_p2wpkh(&hash), *value, EcdsaSighashType::All)?;
        let signature = ecdsa::Signature::sighash_all(secp.sign_ecdsa(&Message::from_digest(sighash.to_byte_array()), &secret(coin.key)));
        *cache.witness_mut(n).context("an input without a witness")? = Witness::p2wpkh(&signature, &public(coin.key).0);
    }
    Ok(())
}
