//! From hostile bytes to a [`SpendPlan`]: nothing is read from a claim that could be proven instead. Pure: no I/O, no clock.
//!
//! | proven | by |
//! |---|---|
//! | what an input is worth | the full previous transaction, whose txid the input names (or BIP 341, when all inputs are P2TR) |
//! | that an input or a change output is ours | its script stands in the wallet's table |
//! | what a signature commits to | digests over our own derived scripts, the whole transaction, no annex |
//!
//! Paths, fingerprints, scripts and signatures in the PSBT are claims: they must not contradict what is proven, and they
//! decide nothing. Each check has its own code in [`postern_protocol::refusal`].

mod bytes;
mod digests;
mod fee;
mod inputs;
mod locktime;
mod outputs;
mod past_gap;
mod plan;
mod previous;
mod psbt;
mod scripts;
mod shape;
mod signatures;

#[cfg(test)]
mod tests;

pub use plan::*;
use postern_protocol::refusal::{Refusal, RefusalCode};
pub use psbt::PSBT_MAX;

use self::{inputs::Inputs, outputs::Outputs, past_gap::PastGap, psbt::Psbt};
use crate::{policy::rules::SpendRules, wallet::Wallet};

/// Heaviest transaction that is signed, in weight units: nodes relay no heavier one. It also bounds the work of a request,
/// the legacy signature hash with its square of inputs included (about 25 MB to hash).
pub const WEIGHT_MAX: u64 = 400_000;
/// More bytes of a script are not shown. Every ordinary output script is shorter.
const SHOWN_BYTES: usize = 40;
/// Most outputs that return to the wallet.
pub const CHANGE_MAX: usize = 10;

/// Proves what a PSBT (version 0, BIP 174, raw bytes) does, or says why it is not signed.
///
/// # Errors
/// The first check that failed, with the input or output and what to do.
pub fn analyze(wallet: &Wallet, rules: &SpendRules, psbt: &[u8]) -> Result<SpendPlan, Refusal> {
    let psbt = Psbt::read(psbt)?;
    shape::check(&psbt.transaction)?;
    let mut past_gap = PastGap::new(wallet);
    let inputs = Inputs::prove(wallet, rules, &psbt, &mut past_gap)?;
    let weight = shape::weight(wallet, &psbt, &inputs)?;
    let outputs = Outputs::prove(wallet, rules, &psbt, &mut past_gap)?;
    let fee_sat = fee::check(&rules.fee, &inputs, &outputs, weight)?;
    locktime::check(&psbt.transaction, rules, wallet.timelocks())?;
    let tasks = digests::tasks(&psbt, &inputs)?;
    // With foreign inputs more may return than was ours. Then nothing leaves; it never counts as negative, which would let
    // one wallet's gain pay for another's loss.
    let outflow_sat = inputs.own_sat().saturating_sub(outputs.change_sat());
    Ok(SpendPlan {
        wallet: wallet.name().into(),
        unsigned_txid: psbt.transaction.compute_txid(),
        inputs: inputs.proven(&psbt.transaction),
        change: outputs.change,
        payments: outputs.payments,
        fee_sat,
        relay_fee_sat: fee::relay_fee_sat(weight),
        outflow_sat,
        weight_wu: weight.heaviest,
        tasks,
        transaction: psbt.transaction,
    })
}

/// A script as refusals show it: in hex, and no more of it than a person reads.
fn shown(script: &bitcoin::Script) -> String {
    let bytes = script.as_bytes();
    match bytes.get(..SHOWN_BYTES) {
        Some(first) if bytes.len() > SHOWN_BYTES => format!("{}… ({} bytes)", hex::encode(first), bytes.len()),
        _ => hex::encode(bytes),
    }
}

fn refuse<T>(code: RefusalCode, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(code, message))
}
