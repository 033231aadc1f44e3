//! What a transaction does, proven. Only [`crate::analysis`] makes a [`SpendPlan`].

use bitcoin::{OutPoint, ScriptBuf, TapLeafHash, Transaction, Txid, taproot::TapNodeHash};

use crate::wallet::{KeyRef, Position};

/// A transaction that passed every check of the analysis.
#[derive(Debug, Clone)]
pub struct SpendPlan {
    pub(super) wallet: String,
    pub(super) transaction: Transaction,
    pub(super) unsigned_txid: Txid,
    pub(super) inputs: Vec<ProvenInput>,
    pub(super) change: Vec<ProvenChange>,
    pub(super) payments: Vec<Payment>,
    pub(super) fee_sat: u64,
    pub(super) relay_fee_sat: u64,
    pub(super) outflow_sat: u64,
    pub(super) weight_wu: u64,
    pub(super) tasks: Vec<SigningTask>,
}

/// An input of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenInput {
    /// Its index in the transaction.
    pub input: u32,
    /// What it spends.
    pub outpoint: OutPoint,
    /// From the full previous transaction, or committed to by BIP 341.
    pub value_sat: u64,
    /// Where its script stands in the wallet.
    pub position: Position,
}

/// An output that returns to the wallet's change branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenChange {
    /// Its index in the transaction.
    pub output: u32,
    /// Its value.
    pub value_sat: u64,
    /// Where its script stands in the wallet.
    pub position: Position,
}

/// An output that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Its index in the transaction.
    pub output: u32,
    /// Its value.
    pub value_sat: u64,
    /// To whom.
    pub script_pubkey: ScriptBuf,
}

/// One signature to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningTask {
    /// The input.
    pub input: u32,
    /// With which key.
    pub key: KeyRef,
    /// Signature hash, computed over our own scripts (legacy, BIP 143 or BIP 341).
    pub digest: [u8; 32],
    /// How.
    pub scheme: Scheme,
    /// What follows the signature: [`SIGHASH_ALL`] for ECDSA. For Taproot nothing (SIGHASH_DEFAULT), or [`SIGHASH_ALL`] where
    /// the PSBT asks for it by name; the digest says the same.
    pub sighash_byte: Option<u8>,
}

/// The signature commits to the whole transaction.
pub const SIGHASH_ALL: u8 = 0x01;

/// The kind of signature, always over the whole transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// ECDSA, low-S.
    Ecdsa,
    /// BIP 340 by the key tweaked with this root (BIP 341).
    SchnorrKeyPath {
        /// None for a wallet without scripts.
        merkle_root: Option<TapNodeHash>,
    },
    /// BIP 340 by the untweaked key for this leaf (BIP 342).
    SchnorrLeaf {
        /// The leaf.
        leaf: TapLeafHash,
    },
}

impl SpendPlan {
    /// The wallet that spends.
    #[must_use]
    pub fn wallet(&self) -> &str {
        &self.wallet
    }
    /// The unsigned transaction.
    #[must_use]
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }
    /// Its txid: what the ledger knows it by.
    #[must_use]
    pub fn unsigned_txid(&self) -> Txid {
        self.unsigned_txid
    }
    /// Inputs of ours.
    #[must_use]
    pub fn inputs(&self) -> &[ProvenInput] {
        &self.inputs
    }
    /// Proven change.
    #[must_use]
    pub fn change(&self) -> &[ProvenChange] {
        &self.change
    }
    /// Everything else, own addresses on the receive branch included.
    #[must_use]
    pub fn payments(&self) -> &[Payment] {
        &self.payments
    }
    /// All inputs minus all outputs.
    #[must_use]
    pub fn fee_sat(&self) -> u64 {
        self.fee_sat
    }
    /// The least fee at which nodes relay it: no entry in the ledger costs less.
    #[must_use]
    pub fn relay_fee_sat(&self) -> u64 {
        self.relay_fee_sat
    }
    /// Own inputs minus proven change: the charge. The fee is in it. With foreign inputs more may return than was ours; then
    /// it is 0. Later the same transaction may have more inputs of ours, and more outflow: once the gap reaches them.
    #[must_use]
    pub fn outflow_sat(&self) -> u64 {
        self.outflow_sat
    }
    /// Upper bound of the signed transaction's weight.
    #[must_use]
    pub fn weight_wu(&self) -> u64 {
        self.weight_wu
    }
    /// The signatures to make.
    #[must_use]
    pub fn tasks(&self) -> &[SigningTask] {
        &self.tasks
    }
}

#[cfg(test)]
impl SpendPlan {
    /// For unit tests of the rooms behind the analysis: spends `own` outpoints of the wallet and `foreign` ones, pays
    /// `outflow_sat` less a fee of 1 sat to one script, and differs in its txid by `salt`.
    pub(crate) fn for_tests(wallet: &str, own: &[OutPoint], foreign: &[OutPoint], outflow_sat: u64, salt: u32) -> Self {
        use bitcoin::{Amount, Sequence, TxIn, TxOut, Witness, absolute::LockTime, transaction::Version};
        let input =
            |o: &OutPoint| TxIn { previous_output: *o, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness: Witness::new() };
        let fee_sat = outflow_sat.min(1);
        let script_pubkey = ScriptBuf::from_bytes([&[0x00, 0x14][..], &[7; 20]].concat());
        let paid = TxOut { value: Amount::from_sat(outflow_sat - fee_sat), script_pubkey: script_pubkey.clone() };
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_height(salt).unwrap(),
            input: own.iter().chain(foreign).map(input).collect(),
            output: vec![paid],
        };
        let position = Position { branch: 0, index: salt };
        let inputs = own.iter().zip(0..).map(|(o, input)| ProvenInput { input, outpoint: *o, value_sat: outflow_sat, position });
        Self {
            wallet: wallet.into(),
            unsigned_txid: transaction.compute_txid(),
            inputs: inputs.collect(),
            change: vec![],
            payments: vec![Payment { output: 0, value_sat: outflow_sat - fee_sat, script_pubkey }],
            fee_sat,
            relay_fee_sat: 0,
            outflow_sat,
            weight_wu: 440,
            tasks: vec![],
            transaction,
        }
    }

    /// The same with another least fee.
    pub(crate) fn with_relay_fee(mut self, sat: u64) -> Self {
        self.relay_fee_sat = sat;
        self
    }

    /// The same with another payment in its place.
    pub(crate) fn with_payment(mut self, value_sat: u64, script_pubkey: ScriptBuf) -> Self {
        self.payments = vec![Payment { output: 0, value_sat, script_pubkey }];
        self
    }

    /// The same transaction as the other wallet in it sees it.
    pub(crate) fn swap_own_and_foreign(&mut self) {
        let own = std::mem::take(&mut self.inputs);
        let position = Position { branch: 0, index: 0 };
        for (txin, input) in self.transaction.input.iter().zip(0..) {
            let outpoint = txin.previous_output;
            if own.iter().all(|o| o.outpoint != outpoint) {
                self.inputs.push(ProvenInput { input, outpoint, value_sat: self.outflow_sat, position });
            }
        }
    }
}
