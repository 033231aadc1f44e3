//! A PSBT as bytes: maps of keys and values (BIP 174), with nothing checked, so that it can say what no library would write.

use anyhow::{Context as _, Result, bail, ensure};
use bitcoin::{Psbt, Transaction, VarInt, consensus::encode};

const MAGIC: &[u8] = b"psbt\xff";
const UNSIGNED_TX: u8 = 0x00;

/// One map. The order is kept, and a key may occur twice.
pub type Map = Vec<(Vec<u8>, Vec<u8>)>;

/// The maps of a PSBT.
#[derive(Debug, Clone)]
pub struct RawPsbt {
    /// PSBT_GLOBAL_…
    pub global: Map,
    /// PSBT_IN_…, one map an input.
    pub inputs: Vec<Map>,
    /// PSBT_OUT_…, one map an output.
    pub outputs: Vec<Map>,
}

impl RawPsbt {
    /// Takes a PSBT apart.
    ///
    /// # Errors
    /// When its bytes cannot be read back.
    pub fn new(psbt: &Psbt) -> Result<Self> {
        let bytes = psbt.serialize();
        let mut rest = bytes.strip_prefix(MAGIC).context("no magic")?;
        let global = map(&mut rest)?;
        let inputs = psbt.inputs.iter().map(|_| map(&mut rest)).collect::<Result<_>>()?;
        let outputs = psbt.outputs.iter().map(|_| map(&mut rest)).collect::<Result<_>>()?;
        ensure!(rest.is_empty(), "bytes are left");
        Ok(Self { global, inputs, outputs })
    }

    /// Puts it together.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for map in [&self.global].into_iter().chain(&self.inputs).chain(&self.outputs) {
            for (key, value) in map {
                for part in [key, value] {
                    out.extend(encode::serialize(&VarInt(part.len() as u64)));
                    out.extend_from_slice(part);
                }
            }
            out.push(0);
        }
        out
    }

    /// Replaces the unsigned transaction; the maps stay as they are.
    #[must_use]
    pub fn with_transaction(mut self, transaction: &Transaction) -> Self {
        for (key, value) in &mut self.global {
            if key.as_slice() == [UNSIGNED_TX] {
                *value = encode::serialize(transaction);
            }
        }
        self
    }
}

fn map(rest: &mut &[u8]) -> Result<Map> {
    let mut out = Vec::new();
    loop {
        let key = part(rest)?;
        if key.is_empty() {
            return Ok(out);
        }
        out.push((key, part(rest)?));
    }
}

fn part(rest: &mut &[u8]) -> Result<Vec<u8>> {
    let (VarInt(length), used) = encode::deserialize_partial(rest)?;
    let end = used + usize::try_from(length)?;
    let Some((head, tail)) = rest.split_at_checked(end) else { bail!("ends early") };
    let part = head.get(used..).unwrap_or_default().to_vec();
    *rest = tail;
    Ok(part)
}
