//! From a case to the bytes that are asked for.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use bitcoin::{
    Amount, EcdsaSighashType, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute::LockTime,
    bip32::DerivationPath,
    consensus::encode,
    hashes::Hash as _,
    psbt::PsbtSighashType,
    secp256k1::{Message, Secp256k1},
    sighash::SighashCache,
    transaction::Version,
};
use miniscript::{DefiniteDescriptorKey, Descriptor};
use postern_testkit::spend::{
    self, Coin,
    raw::{Map, RawPsbt},
};

use crate::{
    case::{Ask, Change, Input, Output},
    wallets,
    words::Side,
};

/// Names of BIP 174, 370 and 371 with the type that begins a field's key: for each place.
const FIELDS: &[(&str, &str, u8)] = &[
    ("global", "unsigned_tx", 0x00),
    ("global", "xpub", 0x01),
    ("global", "version", 0xfb),
    ("input", "non_witness_utxo", 0x00),
    ("input", "witness_utxo", 0x01),
    ("input", "partial_sig", 0x02),
    ("input", "sighash_type", 0x03),
    ("input", "redeem_script", 0x04),
    ("input", "witness_script", 0x05),
    ("input", "bip32_derivation", 0x06),
    ("input", "final_scriptsig", 0x07),
    ("input", "final_scriptwitness", 0x08),
    ("input", "tap_key_sig", 0x13),
    ("input", "tap_script_sig", 0x14),
    ("input", "tap_leaf_script", 0x15),
    ("input", "tap_bip32_derivation", 0x16),
    ("input", "tap_internal_key", 0x17),
    ("input", "tap_merkle_root", 0x18),
    ("output", "redeem_script", 0x00),
    ("output", "witness_script", 0x01),
    ("output", "bip32_derivation", 0x02),
    ("output", "tap_internal_key", 0x05),
    ("output", "tap_tree", 0x06),
    ("output", "tap_bip32_derivation", 0x07),
];

/// Builds the requests of one case, one after the other.
#[derive(Debug)]
pub(crate) struct Builder<'w> {
    side: Side<'w>,
    /// Distinguishes the coins of this case from those of others.
    case: &'w str,
    /// The transaction that was asked for last, and the descriptors of its outputs that are ours.
    last: Option<(Transaction, OwnOutputs)>,
}

type OwnOutputs = BTreeMap<u32, Descriptor<DefiniteDescriptorKey>>;

impl<'w> Builder<'w> {
    pub(crate) fn new(side: Side<'w>, case: &'w str) -> Self {
        Self { side, case, last: None }
    }

    /// The bytes of a request.
    pub(crate) fn build(&mut self, ask: &Ask) -> Result<Vec<u8>> {
        let mut bytes = match &ask.raw {
            Some(words) => self.side.bytes(words)?,
            None => self.maps(ask)?.to_bytes(),
        };
        for change in &ask.changes {
            match change {
                Change::Append(words) => bytes.extend(self.side.bytes(words)?),
                Change::Truncate(length) => bytes.truncate(*length),
                Change::Base64(true) => {
                    use base64::Engine as _;
                    bytes = base64::engine::general_purpose::STANDARD.encode(&bytes).into_bytes();
                }
                _ => {}
            }
        }
        Ok(bytes)
    }

    fn maps(&mut self, ask: &Ask) -> Result<RawPsbt> {
        let coins = self.coins(ask)?;
        let (outputs, own) = self.outputs(ask)?;
        let psbt = spend::psbt(&coins, &outputs)?;
        let mut draft = Draft { transaction: psbt.unsigned_tx.clone(), given: None, raw: RawPsbt::new(&psbt)?, psbt, side: self.side };
        for change in &ask.changes {
            draft.change(change).with_context(|| format!("{change:?}"))?;
        }
        self.last = Some((draft.transaction.clone(), own));
        Ok(match draft.given {
            Some(bytes) => {
                let field = draft.raw.global.iter_mut().find(|(key, _)| key == &[0]).context("no unsigned transaction")?;
                field.1 = bytes;
                draft.raw
            }
            // Its bytes may have been changed instead.
            None if draft.transaction == draft.psbt.unsigned_tx => draft.raw,
            None => draft.raw.with_transaction(&draft.transaction),
        })
    }

    fn coins(&self, ask: &Ask) -> Result<Vec<Coin>> {
        let usual = ["0/0", "0/3"].map(|own| Input { own: Some(own.into()), ..Input::default() });
        let inputs = ask.inputs.clone().unwrap_or_else(|| usual.to_vec());
        let mut coins = Vec::new();
        let mut together = Vec::new();
        for input in &inputs {
            if let Some(output) = input.spends {
                let (transaction, own) = self.last.as_ref().context("nothing was asked before")?;
                coins.push(Coin::new(transaction, output, own.get(&output).context("an output that is not ours")?.clone()));
                continue;
            }
            let descriptor = self.input_descriptor(input)?;
            let sat = input.sat.unwrap_or(1_000_000);
            for n in 0..input.times.unwrap_or(1) {
                let label = match &input.coin {
                    Some(name) => format!("{}/{name}/{n}", self.case),
                    None => format!("{}/{}/{n}", self.case, coins.len()),
                };
                let funding = funding(&label, &[(descriptor.script_pubkey(), sat)]);
                if input.together {
                    together.push((coins.len(), (descriptor.script_pubkey(), sat)));
                }
                coins.push(Coin::new(&funding, 0, descriptor.clone()));
            }
        }
        if !together.is_empty() {
            let (places, outputs): (Vec<usize>, Vec<_>) = together.into_iter().unzip();
            let funding = funding(self.case, &outputs);
            for (vout, place) in (0..).zip(places) {
                coins[place].transaction = funding.clone();
                coins[place].vout = vout;
            }
        }
        Ok(coins)
    }

    fn input_descriptor(&self, input: &Input) -> Result<Descriptor<DefiniteDescriptorKey>> {
        match (&input.script, &input.own, &input.of) {
            (Some(script), None, None) => self.side.fill(script),
            (None, Some(place), None) => self.side.at(place),
            (None, Some(place), Some(wallet)) => self.side.of(wallet).at(place),
            _ => bail!("an input is `own`, `own` with `of`, `script` or `spends`"),
        }
    }

    fn outputs(&self, ask: &Ask) -> Result<(Vec<spend::Output>, OwnOutputs)> {
        let usual = [
            Output { pay: Some("p2wpkh".into()), sat: 1_500_000, ..Output::default() },
            Output { own: Some("1/2".into()), sat: 498_000, ..Output::default() },
        ];
        let (mut outputs, mut own) = (Vec::new(), OwnOutputs::new());
        for output in ask.outputs.clone().unwrap_or_else(|| usual.to_vec()) {
            for _ in 0..output.times.unwrap_or(1) {
                let number = u32::try_from(outputs.len())?;
                outputs.push(match (&output.pay, &output.own, &output.claims) {
                    (Some(script), None, None) => spend::Output::Pay(self.side.script(script)?, output.sat),
                    (None, Some(place), None) => {
                        own.insert(number, self.side.at(place)?);
                        spend::Output::Own(Box::new(self.side.at(place)?), output.sat)
                    }
                    (None, None, Some(template)) => spend::Output::Own(Box::new(self.side.fill(template)?), output.sat),
                    _ => bail!("an output is one of `pay`, `own` and `claims`"),
                });
            }
        }
        Ok((outputs, own))
    }
}

/// A transaction that pays these scripts, and whose txid depends on the label.
fn funding(label: &str, outputs: &[(ScriptBuf, u64)]) -> Transaction {
    let txid = Txid::from_raw_hash(bitcoin::hashes::sha256d::Hash::hash(label.as_bytes()));
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid, vout: 0 },
            witness: Witness::from_slice(&[vec![7u8; 71], vec![2u8; 33]]),
            ..TxIn::default()
        }],
        output: outputs.iter().map(|(script, sat)| TxOut { value: Amount::from_sat(*sat), script_pubkey: script.clone() }).collect(),
    }
}

/// A PSBT that is being changed.
struct Draft<'w> {
    side: Side<'w>,
    /// As it was before.
    psbt: Psbt,
    transaction: Transaction,
    /// Bytes that stand where the transaction stood.
    given: Option<Vec<u8>>,
    raw: RawPsbt,
}

impl Draft<'_> {
    fn change(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::Remove { r#in, field } => {
                let prefix = self.field(r#in, field)?;
                let map = self.map(r#in)?;
                let before = map.len();
                map.retain(|(key, _)| !key.starts_with(&prefix));
                ensure!(map.len() < before, "there is no such field");
            }
            Change::Set { r#in, field, to } => {
                let (key, value) = (self.field(r#in, field)?, self.value(r#in, to)?);
                let map = self.map(r#in)?;
                map.retain(|(known, _)| *known != key);
                map.push((key, value));
            }
            Change::Add { r#in, field, to } => {
                let pair = (self.field(r#in, field)?, self.value(r#in, to)?);
                self.map(r#in)?.push(pair);
            }
            Change::Many { r#in, field, count } => {
                let key = self.field(r#in, field)?;
                let pairs = (0..*count).map(|n| ([key.as_slice(), &n.to_be_bytes()].concat(), vec![]));
                self.map(r#in)?.extend(pairs);
            }
            Change::Edit { r#in, field, at, to } => {
                let (key, bytes) = (self.field(r#in, field)?, self.value(r#in, to)?);
                let value = self.existing(r#in, &key)?;
                let place = value.get_mut(*at..*at + bytes.len()).context("past the value's end")?;
                place.copy_from_slice(&bytes);
            }
            Change::Rekey { r#in, field, at, to } => {
                let (prefix, bytes) = (self.field(r#in, field)?, self.value(r#in, to)?);
                let key = self.existing_key(r#in, &prefix)?;
                key.get_mut(*at..*at + bytes.len()).context("past the key's end")?.copy_from_slice(&bytes);
            }
            Change::CutKey { r#in, field, to } => {
                let prefix = self.field(r#in, field)?;
                self.existing_key(r#in, &prefix)?.truncate(*to);
            }
            Change::Extend { r#in, field, by } => {
                let (key, bytes) = (self.field(r#in, field)?, self.value(r#in, by)?);
                self.existing(r#in, &key)?.extend(bytes);
            }
            Change::Copy { field, from, to } => {
                let key = self.field(from, field)?;
                let fields: Map = self.map(from)?.iter().filter(|(k, _)| k.starts_with(&key)).cloned().collect();
                ensure!(!fields.is_empty(), "there is no such field");
                let map = self.map(to)?;
                map.retain(|(known, _)| !known.starts_with(&key));
                map.extend(fields);
            }
            Change::Replace { r#in, by } => *self.map(r#in)? = self.map(by)?.clone(),
            Change::Drop(place) => {
                let (kind, number) = parse(place)?;
                match kind {
                    "input" => drop(self.raw.inputs.remove(number)),
                    "output" => drop(self.raw.outputs.remove(number)),
                    _ => self.raw.global.clear(),
                }
            }
            Change::Previous { input, sat } => {
                let vout = self.transaction.input[*input].previous_output.vout as usize;
                let value = self.existing(&format!("input {input}"), &[0])?;
                let mut previous: Transaction = encode::deserialize(value)?;
                previous.output[vout].value = Amount::from_sat(*sat);
                *value = encode::serialize(&previous);
            }
            Change::Outpoint { input, txid, vout } => {
                let outpoint = &mut self.transaction.input[*input].previous_output;
                if let Some(txid) = txid {
                    outpoint.txid = txid.parse()?;
                }
                outpoint.vout = vout.unwrap_or(outpoint.vout);
            }
            Change::Sequence { input, to } => self.transaction.input[*input].sequence = Sequence(*to),
            Change::ScriptSig { input, to } => self.transaction.input[*input].script_sig = ScriptBuf::from_bytes(self.side.bytes(to)?),
            Change::Witness { input, to } => self.transaction.input[*input].witness = Witness::from_slice(&[self.side.bytes(to)?]),
            // A negative number stands for the amount with the same bytes: TOML has no larger ones.
            Change::Amount { output, to } => self.transaction.output[*output].value = Amount::from_sat(to.cast_unsigned()),
            Change::Script { output, to } => self.transaction.output[*output].script_pubkey = self.side.script(to)?,
            Change::RepeatInput { input, times } => {
                for _ in 0..*times {
                    self.transaction.input.push(self.transaction.input[*input].clone());
                    self.raw.inputs.push(self.raw.inputs[*input].clone());
                }
            }
            Change::RepeatOutput { output, times } => {
                for _ in 0..*times {
                    self.transaction.output.push(self.transaction.output[*output].clone());
                    self.raw.outputs.push(self.raw.outputs[*output].clone());
                }
            }
            Change::NoInputs(yes) => {
                ensure!(*yes, "leave it out");
                self.raw.inputs.clear();
                // No library writes this without the marker of a segwit transaction.
                let outputs = encode::serialize(&self.transaction.output);
                self.given = Some([&2u32.to_le_bytes()[..], &[0], &outputs, &[0; 4]].concat());
            }
            Change::NoOutputs(yes) => {
                ensure!(*yes, "leave it out");
                self.raw.outputs.clear();
                self.transaction.output.clear();
            }
            Change::Version(version) => self.transaction.version = Version(*version),
            Change::LockTime(lock_time) => self.transaction.lock_time = LockTime::from_consensus(*lock_time),
            Change::Transaction(words) => self.given = Some(self.side.bytes(words)?),
            // Of the bytes, later.
            Change::Append(_) | Change::Truncate(_) | Change::Base64(_) => {}
        }
        Ok(())
    }

    fn map(&mut self, place: &str) -> Result<&mut Map> {
        let (kind, number) = parse(place)?;
        let map = match kind {
            "global" => Some(&mut self.raw.global),
            "input" => self.raw.inputs.get_mut(number),
            "output" => self.raw.outputs.get_mut(number),
            _ => None,
        };
        map.with_context(|| format!("there is no {place}"))
    }

    fn existing(&mut self, place: &str, key: &[u8]) -> Result<&mut Vec<u8>> {
        let mut fields = self.map(place)?.iter_mut();
        fields.find(|(known, _)| known.starts_with(key)).map(|(_, value)| value).context("there is no such field")
    }

    fn existing_key(&mut self, place: &str, key: &[u8]) -> Result<&mut Vec<u8>> {
        let mut fields = self.map(place)?.iter_mut();
        fields.find(|(known, _)| known.starts_with(key)).map(|(key, _)| key).context("there is no such field")
    }

    /// A field's key: a name, perhaps with words for the key's data behind it; or words alone.
    fn field(&self, place: &str, field: &str) -> Result<Vec<u8>> {
        let kind = parse(place)?.0;
        let (name, data) = field.split_once(' ').unwrap_or((field, ""));
        match FIELDS.iter().find(|(k, n, _)| *k == kind && *n == name) {
            Some((.., number)) => Ok([&[*number][..], &self.side.bytes(data)?].concat()),
            None => self.side.bytes(field),
        }
    }

    fn value(&self, place: &str, words: &str) -> Result<Vec<u8>> {
        match words.strip_prefix("signature:") {
            Some(signature) => self.signature(parse(place)?.1, signature),
            None => self.side.bytes(words),
        }
    }

    /// A true signature of the cosigner over the transaction as it was: `0/0:81`.
    fn signature(&self, input: usize, what: &str) -> Result<Vec<u8>> {
        let (place, sighash) = what.split_once(':').context("a place and a sighash type")?;
        let sighash = u8::from_str_radix(sighash, 16)?;
        let secp = Secp256k1::new();
        let path: DerivationPath = format!("{}/{place}", wallets::COSIGNER_PATH).parse()?;
        let key = wallets::master(wallets::COSIGNER)?.derive_priv(&secp, &path)?.private_key;
        let mut psbt = self.psbt.clone();
        let kind = EcdsaSighashType::from_consensus(sighash.into());
        psbt.inputs[input].sighash_type = Some(PsbtSighashType::from(kind));
        let (message, _) = psbt.sighash_ecdsa(input, &mut SighashCache::new(&psbt.unsigned_tx))?;
        let signature = secp.sign_ecdsa(&Message::from_digest(*message.as_ref()), &key);
        Ok([signature.serialize_der().as_ref(), &[sighash]].concat())
    }
}

fn parse(place: &str) -> Result<(&str, usize)> {
    match place.split_once(' ') {
        Some((kind, number)) => Ok((kind, number.parse()?)),
        None => Ok((place, 0)),
    }
}
