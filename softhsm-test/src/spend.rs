//! PSBTs for the signer, made from descriptors and real transactions, and what becomes of them.

pub mod raw;

use std::str::FromStr as _;

use anyhow::{Context as _, Result, anyhow, bail};
use bitcoin::{
    Amount, OutPoint, Psbt, PublicKey, ScriptBuf, Sequence, TapLeafHash, Transaction, TxIn, TxOut, Txid, XOnlyPublicKey,
    absolute::LockTime, ecdsa, hashes::Hash as _, secp256k1::Secp256k1, taproot, transaction::Version,
};
use miniscript::{
    DefiniteDescriptorKey, Descriptor, DescriptorPublicKey,
    psbt::{PsbtExt as _, PsbtInputExt as _, PsbtOutputExt as _},
};
use postern_protocol::reply::{SignaturePlace, Signed};

/// A public descriptor, taken apart into its branches.
#[derive(Debug, Clone)]
pub struct Scripts {
    branches: Vec<Descriptor<DescriptorPublicKey>>,
}

impl Scripts {
    /// Parses a descriptor with or without `<0;1>` and `*`.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(descriptor: &str) -> Result<Self> {
        let parsed = Descriptor::<DescriptorPublicKey>::from_str(descriptor).with_context(|| format!("not a descriptor: {descriptor}"))?;
        Ok(Self { branches: parsed.into_single_descriptors()? })
    }

    /// How many branches it has.
    #[must_use]
    pub fn branches(&self) -> usize {
        self.branches.len()
    }

    /// The descriptor at a branch and index.
    ///
    /// # Errors
    /// When there is no such branch.
    pub fn at(&self, branch: u32, index: u32) -> Result<Descriptor<DefiniteDescriptorKey>> {
        let descriptor = self.branches.get(branch as usize).with_context(|| format!("no branch {branch}"))?;
        Ok(descriptor.at_derivation_index(index)?)
    }

    /// Where change goes: the second branch, or for a wallet of one script the script itself.
    ///
    /// # Errors
    /// When it cannot be derived.
    pub fn change(&self, index: u32) -> Result<Descriptor<DefiniteDescriptorKey>> {
        if self.branches.len() > 1 { self.at(1, index) } else { self.at(0, 0) }
    }

    /// The output script at a branch and index.
    ///
    /// # Errors
    /// When there is no such branch.
    pub fn script(&self, branch: u32, index: u32) -> Result<ScriptBuf> {
        Ok(self.at(branch, index)?.script_pubkey())
    }
}

/// An output to spend.
#[derive(Debug, Clone)]
pub struct Coin {
    /// The transaction that made it, whole.
    pub transaction: Transaction,
    /// Its index there.
    pub vout: u32,
    /// The descriptor of its script.
    pub descriptor: Descriptor<DefiniteDescriptorKey>,
    /// The sequence to spend it with.
    pub sequence: Sequence,
}

impl Coin {
    /// A coin that is spent with a replaceable sequence.
    #[must_use]
    pub fn new(transaction: &Transaction, vout: u32, descriptor: Descriptor<DefiniteDescriptorKey>) -> Self {
        Self { transaction: transaction.clone(), vout, descriptor, sequence: Sequence::ENABLE_RBF_NO_LOCKTIME }
    }

    /// Coins that no chain knows, as good as any to a signer, who knows no chain: all made by one transaction that
    /// spends nothing real.
    #[must_use]
    pub fn imagine(descriptors: &[Descriptor<DefiniteDescriptorKey>], sat: u64) -> Vec<Self> {
        let previous_output = OutPoint { txid: Txid::from_byte_array(rand::random()), vout: 0 };
        let value = Amount::from_sat(sat);
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn { previous_output, ..TxIn::default() }],
            output: descriptors.iter().map(|d| TxOut { value, script_pubkey: d.script_pubkey() }).collect(),
        };
        (0..).zip(descriptors).map(|(vout, d)| Self::new(&transaction, vout, d.clone())).collect()
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> Amount {
        self.output().map_or(Amount::ZERO, |o| o.value)
    }

    fn output(&self) -> Option<&TxOut> {
        self.transaction.output.get(self.vout as usize)
    }
}

/// Where money goes.
#[derive(Debug, Clone)]
pub enum Output {
    /// To anybody.
    Pay(ScriptBuf, u64),
    /// Back to a descriptor of ours, with the fields that prove it.
    Own(Box<Descriptor<DefiniteDescriptorKey>>, u64),
}

/// A complete version 0 PSBT: full previous transactions, witness outputs, derivations, scripts.
///
/// # Errors
/// When a coin's output does not exist or is not its descriptor's.
pub fn psbt(coins: &[Coin], outputs: &[Output]) -> Result<Psbt> {
    let unsigned = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins
            .iter()
            .map(|c| TxIn {
                previous_output: OutPoint { txid: c.transaction.compute_txid(), vout: c.vout },
                sequence: c.sequence,
                ..TxIn::default()
            })
            .collect(),
        output: outputs
            .iter()
            .map(|o| match o {
                Output::Pay(script_pubkey, sat) => TxOut { value: Amount::from_sat(*sat), script_pubkey: script_pubkey.clone() },
                Output::Own(descriptor, sat) => TxOut { value: Amount::from_sat(*sat), script_pubkey: descriptor.script_pubkey() },
            })
            .collect(),
    };
    let mut psbt = Psbt::from_unsigned_tx(unsigned)?;
    for (input, coin) in psbt.inputs.iter_mut().zip(coins) {
        let output = coin.output().context("a coin whose output does not exist")?;
        anyhow::ensure!(output.script_pubkey == coin.descriptor.script_pubkey(), "a coin that is not its descriptor's");
        input.non_witness_utxo = Some(coin.transaction.clone());
        if output.script_pubkey.is_witness_program() || output.script_pubkey.is_p2sh() {
            input.witness_utxo = Some(output.clone());
        }
        input.update_with_descriptor_unchecked(&coin.descriptor)?;
    }
    for (field, output) in psbt.outputs.iter_mut().zip(outputs) {
        if let Output::Own(descriptor, _) = output {
            field.update_with_descriptor_unchecked(descriptor)?;
        }
    }
    Ok(psbt)
}

/// Puts a signer's signatures where they belong.
///
/// # Errors
/// When one is no signature, or for an input that does not exist.
pub fn add_signatures(psbt: &mut Psbt, signed: &Signed) -> Result<()> {
    for signature in &signed.signatures {
        let input = psbt.inputs.get_mut(signature.input as usize).with_context(|| format!("no input {}", signature.input))?;
        match &signature.place {
            SignaturePlace::Partial => {
                let key = PublicKey::from_slice(&signature.public_key)?;
                input.partial_sigs.insert(key, ecdsa::Signature::from_slice(&signature.signature)?);
            }
            SignaturePlace::TapKey => input.tap_key_sig = Some(taproot::Signature::from_slice(&signature.signature)?),
            SignaturePlace::TapLeaf(leaf) => {
                let key = XOnlyPublicKey::from_slice(&signature.public_key)?;
                let leaf = TapLeafHash::from_byte_array(*leaf);
                input.tap_script_sigs.insert((key, leaf), taproot::Signature::from_slice(&signature.signature)?);
            }
        }
    }
    Ok(())
}

/// Finalises (BIP 174) and extracts.
///
/// # Errors
/// When signatures are missing or do not verify.
pub fn finish(mut psbt: Psbt) -> Result<Transaction> {
    let secp = Secp256k1::verification_only();
    if let Err(errors) = psbt.finalize_mut(&secp) {
        bail!("cannot be finalised: {}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    }
    psbt.extract(&secp).map_err(|e| anyhow!("cannot be extracted: {e}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::{Network, bip32::Xpriv};

    use super::*;
    use crate::{Bitcoind, TempRun};

    fn keys(n: u8) -> (Xpriv, String) {
        let secp = Secp256k1::new();
        let master = Xpriv::new_master(Network::Regtest, &[n; 32]).unwrap();
        let path: bitcoin::bip32::DerivationPath = "84h/1h/0h".parse().unwrap();
        let account = bitcoin::bip32::Xpub::from_priv(&secp, &master.derive_priv(&secp, &path).unwrap());
        (master, format!("[{}/84h/1h/0h]{account}/<0;1>/*", master.fingerprint(&secp)))
    }

    /// When this holds and the same transactions fail with a signer's signatures, it is the signer's fault.
    #[test]
    fn what_is_made_here_is_accepted_by_bitcoind_when_it_is_signed_with_plain_keys() {
        let run = TempRun::new("plain_keys").unwrap();
        let node = Bitcoind::start(&run).unwrap();
        let secp = Secp256k1::new();
        let ((one, a), (two, b)) = (keys(1), keys(2));
        let unspendable = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0";
        let descriptors = [
            format!("pkh({a})"),
            format!("sh(wpkh({a}))"),
            format!("wpkh({a})"),
            format!("wsh(sortedmulti(2,{a},{b}))"),
            format!("wsh(and_v(v:pk({a}),older(3)))"),
            format!("tr({a})"),
            format!("tr({unspendable},pk({a}))"),
        ];
        for descriptor in &descriptors {
            let scripts = Scripts::new(descriptor).unwrap();
            let funding = node.fund_confirmed(&scripts.script(0, 5).unwrap(), 1_000_000).unwrap();
            node.mine(3).unwrap();
            let mut coin = Coin::new(&funding.transaction, funding.outpoint().vout, scripts.at(0, 5).unwrap());
            coin.sequence = Sequence::from_height(3);
            let elsewhere = Output::Pay(Scripts::new(&descriptors[2]).unwrap().script(0, 0).unwrap(), 600_000);
            let mut psbt = psbt(&[coin], &[elsewhere, Output::Own(Box::new(scripts.at(1, 0).unwrap()), 399_000)]).unwrap();
            for key in [&one, &two] {
                // Whoever is not in the descriptor has nothing to sign.
                let _ = psbt.sign(key, &secp);
            }
            node.accepts(&finish(psbt).unwrap()).unwrap_or_else(|e| panic!("{descriptor}: {e:#}"));
        }
    }
}
