//! A PSBT of version 0 (BIP 174), read strictly and without a copy. No other module of the signer knows the format.
//!
//! rust-bitcoin's reader is made for software that works on PSBTs: it forgives trailing bytes, fields of version 2 and
//! ill-formed fields that it does not know. Here every byte is accounted for, or the whole is refused.

mod fields;
mod map;

use bitcoin::{
    Script, Transaction, TxIn, TxOut, absolute,
    bip32::{ChildNumber, Fingerprint},
    consensus::Decodable,
    transaction,
};
use postern_protocol::{
    frame::FRAME_MAX,
    refusal::{Refusal, RefusalCode},
};

use self::{
    fields::{global, input, output},
    map::{Map, Place},
};
use super::{WEIGHT_MAX, bytes::Bytes, refuse};

/// Largest PSBT that is read, in bytes: what fits in a frame.
pub const PSBT_MAX: usize = FRAME_MAX;
const MAGIC: [u8; 5] = *b"psbt\xff";

/// What a request holds, field by field. Nothing in it is proven.
#[derive(Debug)]
pub(super) struct Psbt<'a> {
    pub(super) transaction: Transaction,
    pub(super) inputs: Vec<InputFields<'a>>,
    pub(super) outputs: Vec<OutputFields<'a>>,
}

/// The fields of an input that occur once; the others are read from its map when they are asked for.
#[derive(Debug, Default)]
pub(super) struct InputFields<'a> {
    pub(super) previous_transaction: Option<&'a [u8]>,
    pub(super) witness_utxo: Option<&'a [u8]>,
    pub(super) sighash: Option<u32>,
    pub(super) redeem_script: Option<&'a Script>,
    pub(super) witness_script: Option<&'a Script>,
    pub(super) final_script_sig: bool,
    pub(super) final_witness: Option<&'a [u8]>,
    pub(super) tap_internal_key: Option<&'a [u8]>,
    pub(super) tap_merkle_root: Option<&'a [u8]>,
    pub(super) tap_key_signature: Option<&'a [u8]>,
    /// Any field of BIP 371 is there.
    pub(super) has_taproot: bool,
    map: Map<'a>,
}

/// The fields of an output.
#[derive(Debug, Default)]
pub(super) struct OutputFields<'a> {
    pub(super) redeem_script: Option<&'a Script>,
    pub(super) witness_script: Option<&'a Script>,
    pub(super) tap_internal_key: Option<&'a [u8]>,
    map: Map<'a>,
}

/// A key and where it claims to come from.
#[derive(Debug, Clone)]
pub(super) struct KeyOrigin<'a> {
    /// 33 or 65 bytes, or 32 for Taproot.
    pub(super) key: &'a [u8],
    pub(super) fingerprint: Fingerprint,
    path: &'a [u8],
    /// For Taproot: the hashes of the leaves that it signs.
    pub(super) leaf_hashes: &'a [u8],
}

impl KeyOrigin<'_> {
    /// From the master key.
    pub(super) fn path(&self) -> Vec<ChildNumber> {
        let (steps, _) = self.path.as_chunks::<4>();
        steps.iter().map(|step| ChildNumber::from(u32::from_le_bytes(*step))).collect()
    }

    fn plain<'a>((key, value): (&'a [u8], &'a [u8])) -> Option<KeyOrigin<'a>> {
        let (fingerprint, path) = value.split_first_chunk::<4>()?;
        Some(KeyOrigin { key, fingerprint: Fingerprint::from(fingerprint), path, leaf_hashes: &[] })
    }

    fn taproot<'a>((key, value): (&'a [u8], &'a [u8])) -> Option<KeyOrigin<'a>> {
        let mut rest = Bytes(value);
        let count = rest.compact_size().ok()?;
        let leaf_hashes = rest.take(count.checked_mul(32)?).ok()?;
        let (fingerprint, path) = rest.0.split_first_chunk::<4>()?;
        Some(KeyOrigin { key, fingerprint: Fingerprint::from(fingerprint), path, leaf_hashes })
    }
}

impl<'a> InputFields<'a> {
    /// Signatures that are there already (ECDSA): key and DER with the sighash byte.
    pub(super) fn partial_signatures(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.map.of(input::PARTIAL_SIG)
    }
    /// Signatures that are there already (BIP 342).
    pub(super) fn tap_script_signatures(&self) -> impl Iterator<Item = &'a [u8]> {
        self.map.of(input::TAP_SCRIPT_SIG).map(|(_, signature)| signature)
    }
    /// Control block, and the leaf's script with its version behind it.
    pub(super) fn leaf_scripts(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.map.of(input::TAP_LEAF_SCRIPT)
    }
    /// Where its ECDSA keys claim to come from.
    pub(super) fn key_origins(&self) -> impl Iterator<Item = KeyOrigin<'a>> {
        self.map.of(input::BIP32_DERIVATION).filter_map(KeyOrigin::plain)
    }
    /// Where its BIP-340 keys claim to come from.
    pub(super) fn tap_key_origins(&self) -> impl Iterator<Item = KeyOrigin<'a>> {
        self.map.of(input::TAP_BIP32_DERIVATION).filter_map(KeyOrigin::taproot)
    }

    fn read(map: Map<'a>) -> Self {
        let mut fields = Self { map, ..Self::default() };
        for (kind, _, value) in map.fields() {
            match kind {
                input::NON_WITNESS_UTXO => fields.previous_transaction = Some(value),
                input::WITNESS_UTXO => fields.witness_utxo = Some(value),
                input::SIGHASH_TYPE => fields.sighash = value.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)),
                input::REDEEM_SCRIPT => fields.redeem_script = Some(Script::from_bytes(value)),
                input::WITNESS_SCRIPT => fields.witness_script = Some(Script::from_bytes(value)),
                input::FINAL_SCRIPTSIG => fields.final_script_sig = true,
                input::FINAL_SCRIPTWITNESS => fields.final_witness = Some(value),
                input::TAP_INTERNAL_KEY => fields.tap_internal_key = Some(value),
                input::TAP_MERKLE_ROOT => fields.tap_merkle_root = Some(value),
                input::TAP_KEY_SIG => fields.tap_key_signature = Some(value),
                _ => {}
            }
            fields.has_taproot |= input::is_taproot(kind);
        }
        fields
    }
}

impl<'a> OutputFields<'a> {
    /// Where its keys claim to come from, ECDSA and BIP 340.
    pub(super) fn key_origins(&self) -> impl Iterator<Item = KeyOrigin<'a>> {
        let plain = self.map.of(output::BIP32_DERIVATION).filter_map(KeyOrigin::plain);
        plain.chain(self.map.of(output::TAP_BIP32_DERIVATION).filter_map(KeyOrigin::taproot))
    }

    fn read(map: Map<'a>) -> Self {
        let mut fields = Self { map, ..Self::default() };
        for (kind, _, value) in map.fields() {
            match kind {
                output::REDEEM_SCRIPT => fields.redeem_script = Some(Script::from_bytes(value)),
                output::WITNESS_SCRIPT => fields.witness_script = Some(Script::from_bytes(value)),
                output::TAP_INTERNAL_KEY => fields.tap_internal_key = Some(value),
                _ => {}
            }
        }
        fields
    }
}

impl<'a> Psbt<'a> {
    /// Reads the whole buffer.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        if bytes.len() > PSBT_MAX {
            return refuse(RefusalCode::PsbtTooLarge, format!("the PSBT has {} bytes; at most {PSBT_MAX} are read", bytes.len()));
        }
        let Some(rest) = bytes.strip_prefix(&MAGIC) else {
            return refuse(
                RefusalCode::PsbtMalformed,
                "the bytes do not begin like a PSBT (70736274ff); send it raw, not in base64 or hex, and not a plain transaction",
            );
        };
        let mut rest = Bytes(rest);
        let mut keys = Vec::new();
        let globals = Map::read(&mut rest, Place::Global, &mut keys)?;
        let transaction = unsigned_transaction(globals)?;
        let mut inputs = Vec::with_capacity(transaction.input.len());
        for number in 0..transaction.input.len() {
            inputs.push(InputFields::read(Map::read(&mut rest, Place::Input(number), &mut keys)?));
        }
        let mut outputs = Vec::with_capacity(transaction.output.len());
        for number in 0..transaction.output.len() {
            outputs.push(OutputFields::read(Map::read(&mut rest, Place::Output(number), &mut keys)?));
        }
        if !rest.is_empty() {
            return refuse(RefusalCode::PsbtTrailingBytes, format!("{} bytes follow the last output's fields", rest.0.len()));
        }
        Ok(Self { transaction, inputs, outputs })
    }
}

/// The transaction that is to be signed. Its size is capped before anything of it is allocated.
fn unsigned_transaction(globals: Map<'_>) -> Result<Transaction, Refusal> {
    let Some((_, bytes)) = globals.of(global::UNSIGNED_TX).next() else {
        return refuse(RefusalCode::PsbtMalformed, "the PSBT has no unsigned transaction (global field 0x00)");
    };
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX).saturating_mul(4) > WEIGHT_MAX {
        return refuse(
            RefusalCode::TxTooHeavy,
            format!("the unsigned transaction alone has {} bytes; at most {WEIGHT_MAX} weight units are signed: split it", bytes.len()),
        );
    }
    let transaction = match decode_without_witness(bytes) {
        Ok(transaction) if transaction.input.is_empty() => {
            return refuse(RefusalCode::TxNoInputs, "the unsigned transaction has no input");
        }
        Ok(transaction) => transaction,
        // Read as a transaction without witness, one with a witness has no inputs and an odd tail.
        Err(_) if bitcoin::consensus::deserialize::<Transaction>(bytes).is_ok() => {
            return refuse(RefusalCode::TxSigned, "the unsigned transaction carries a witness; send it unsigned");
        }
        Err(e) => return refuse(RefusalCode::PsbtMalformed, format!("the unsigned transaction cannot be read: {e}")),
    };
    if transaction.output.is_empty() {
        return refuse(RefusalCode::TxNoOutputs, "the unsigned transaction has no output");
    }
    Ok(transaction)
}

fn decode_without_witness(mut bytes: &[u8]) -> Result<Transaction, bitcoin::consensus::encode::Error> {
    let from = &mut bytes;
    let transaction = Transaction {
        version: transaction::Version::consensus_decode(from)?,
        input: Vec::<TxIn>::consensus_decode(from)?,
        output: Vec::<TxOut>::consensus_decode(from)?,
        lock_time: absolute::LockTime::consensus_decode(from)?,
    };
    if from.is_empty() { Ok(transaction) } else { Err(bitcoin::consensus::encode::Error::ParseFailed("bytes follow the transaction")) }
}
