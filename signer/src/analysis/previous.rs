//! Full previous transactions: the only witnesses of what an input is worth.

use std::collections::HashMap;

use bitcoin::{
    Amount, OutPoint, Script, Txid,
    hashes::{Hash as _, HashEngine as _, sha256d},
};
use postern_protocol::refusal::{Refusal, RefusalCode};

use super::{
    bytes::{Bytes, BytesFault},
    refuse,
};

/// An output that is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpentOutput<'a> {
    pub(super) value: Amount,
    pub(super) script: &'a Script,
}

impl<'a> SpentOutput<'a> {
    pub(super) fn read(from: &mut Bytes<'a>) -> Result<Self, BytesFault> {
        let value = Amount::from_sat(from.u64()?);
        let script = Script::from_bytes(from.sized()?);
        Ok(Self { value, script })
    }
}

/// A transaction whose outputs are spent, where it stands in the request.
#[derive(Debug)]
struct Previous<'a> {
    bytes: &'a [u8],
    /// The bytes from each output on.
    outputs: Vec<u32>,
}

impl<'a> Previous<'a> {
    fn output(&self, index: u32) -> Option<SpentOutput<'a>> {
        let at = usize::try_from(*self.outputs.get(usize::try_from(index).ok()?)?).ok()?;
        SpentOutput::read(&mut Bytes(self.bytes.get(at..)?)).ok()
    }

    /// Reads a transaction (BIP 144 or older form) to its last byte and hashes what its txid commits to.
    fn read(bytes: &'a [u8]) -> Result<(Txid, Self), BytesFault> {
        let mut rest = Bytes(bytes);
        let version = rest.take(4)?;
        let mut ahead = rest;
        let has_witness = ahead.array::<2>()? == [0, 1];
        if has_witness {
            rest = ahead;
        }
        let body = rest;
        let input_count = rest.compact_size()?;
        for _ in 0..input_count {
            rest.take(36)?;
            rest.sized()?;
            rest.take(4)?;
        }
        let output_count = rest.compact_size()?;
        if input_count == 0 || output_count == 0 {
            return Err(BytesFault::NoTransaction);
        }
        let mut outputs = Vec::new();
        for _ in 0..output_count {
            let at = bytes.len().saturating_sub(rest.0.len());
            outputs.push(u32::try_from(at).map_err(|_| BytesFault::NoTransaction)?);
            SpentOutput::read(&mut rest)?;
        }
        let body = rest.since(body);
        if has_witness {
            let mut empty = true;
            for _ in 0..input_count {
                for _ in 0..rest.compact_size()? {
                    rest.sized()?;
                    empty = false;
                }
            }
            if empty {
                return Err(BytesFault::NoTransaction);
            }
        }
        let lock_time = rest.take(4)?;
        if !rest.is_empty() {
            return Err(BytesFault::LeftOver);
        }
        let mut engine = sha256d::Hash::engine();
        engine.input(version);
        engine.input(body);
        engine.input(lock_time);
        outputs.shrink_to_fit();
        Ok((Txid::from_engine(engine), Self { bytes, outputs }))
    }
}

/// The previous transactions of a request. Each is hashed once, however many of its outputs are spent.
#[derive(Debug, Default)]
pub(super) struct PreviousTransactions<'a> {
    known: HashMap<Txid, Previous<'a>>,
}

impl<'a> PreviousTransactions<'a> {
    /// The output that `outpoint` names, proven by the transaction in `bytes`.
    pub(super) fn spent(&mut self, input: usize, outpoint: OutPoint, bytes: &'a [u8]) -> Result<SpentOutput<'a>, Refusal> {
        if self.known.get(&outpoint.txid).is_none_or(|known| known.bytes != bytes) {
            let (txid, previous) = Previous::read(bytes).map_err(|e| {
                Refusal::new(RefusalCode::PsbtMalformed, format!("input {input}: the previous transaction (non_witness_utxo): {e}"))
            })?;
            if txid != outpoint.txid {
                return refuse(
                    RefusalCode::PrevtxMismatch,
                    format!("input {input} spends {outpoint}, but the previous transaction given for it is {txid}"),
                );
            }
            self.known.insert(txid, previous);
        }
        match self.known.get(&outpoint.txid).map(|previous| (previous.output(outpoint.vout), previous.outputs.len())) {
            Some((Some(output), _)) => Ok(output),
            Some((None, count)) => {
                refuse(RefusalCode::PrevtxIndex, format!("input {input} spends {outpoint}; that transaction has {count} outputs"))
            }
            None => refuse(RefusalCode::PrevtxMissing, format!("input {input} spends {outpoint}: no previous transaction")),
        }
    }
}
