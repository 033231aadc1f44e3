//! What can be said of a transaction by itself: version, outpoints, amounts, weight.

use std::collections::HashSet;

use bitcoin::Transaction;
use postern_protocol::{
    refusal::{Refusal, RefusalCode},
    units::{MAX_MONEY_SAT, format_amount_sat},
};

use super::{
    WEIGHT_MAX,
    inputs::Inputs,
    psbt::{InputFields, Psbt},
    refuse,
};
use crate::wallet::Wallet;

/// The signed transaction's weight, in weight units.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignedWeight {
    /// It will not be heavier.
    pub(super) heaviest: u64,
    /// It will not be lighter, but by chance: one ECDSA signature in 256 is a byte shorter than reckoned.
    pub(super) lightest: u64,
}

pub(super) fn check(transaction: &Transaction) -> Result<(), Refusal> {
    if !matches!(transaction.version.0, 1..=3) {
        let version = transaction.version.0;
        return refuse(RefusalCode::TxVersion, format!("the transaction has version {version}; use 2 (1 and 3 are signed as well)"));
    }
    let mut outpoints = HashSet::with_capacity(transaction.input.len());
    for (number, input) in transaction.input.iter().enumerate() {
        if !input.script_sig.is_empty() || !input.witness.is_empty() {
            return refuse(
                RefusalCode::TxSigned,
                format!("input {number} of the unsigned transaction carries a script signature; send it unsigned"),
            );
        }
        if input.previous_output.is_null() {
            return refuse(
                RefusalCode::TxCoinbasePrevout,
                format!("input {number} spends the null outpoint, as only coinbase transactions do"),
            );
        }
        if !outpoints.insert(input.previous_output) {
            return refuse(
                RefusalCode::TxDuplicateOutpoint,
                format!("input {number} spends {}, as an earlier input does", input.previous_output),
            );
        }
    }
    let outputs = transaction.output.iter().enumerate().map(|(number, output)| (number, output.value.to_sat()));
    sum("output", outputs)?;
    Ok(())
}

/// The sum of amounts, each and all of them at most 21,000,000 BTC.
pub(super) fn sum(what: &str, amounts: impl Iterator<Item = (usize, u64)>) -> Result<u64, Refusal> {
    let mut total: u64 = 0;
    for (number, sat) in amounts {
        total = match total.checked_add(sat) {
            Some(total) if sat <= MAX_MONEY_SAT && total <= MAX_MONEY_SAT => total,
            _ => {
                return refuse(
                    RefusalCode::AmountOutOfRange,
                    format!("{what} {number} of {sat} sat, or the sum up to it, is over {}", format_amount_sat(MAX_MONEY_SAT)),
                );
            }
        };
    }
    Ok(total)
}

pub(super) fn weight(wallet: &Wallet, psbt: &Psbt<'_>, inputs: &Inputs<'_>) -> Result<SignedWeight, Refusal> {
    // The unsigned transaction has no witness, so each of its bytes weighs four; marker and flag of BIP 144 weigh two more.
    let unsigned = psbt.transaction.weight().to_wu();
    let mut heaviest = unsigned.saturating_add(2);
    let mut lightest = unsigned;
    for (own, fields) in inputs.own.iter().zip(&psbt.inputs) {
        match own {
            Some(own) => {
                heaviest = heaviest.saturating_add(own.satisfaction_weight);
                lightest = lightest.saturating_add(wallet.lightest_satisfaction_weight());
            }
            None => heaviest = heaviest.saturating_add(foreign_weight(fields)),
        }
    }
    if heaviest > WEIGHT_MAX {
        return refuse(
            RefusalCode::TxTooHeavy,
            format!("signed, the transaction may have {heaviest} weight units; at most {WEIGHT_MAX} are signed: split it"),
        );
    }
    Ok(SignedWeight { heaviest, lightest })
}

/// What another's input may weigh when it is signed: its scripts as given, and a key and a signature, or twenty.
fn foreign_weight(fields: &InputFields<'_>) -> u64 {
    let scripts = [(fields.redeem_script, 4), (fields.witness_script, 1)];
    let scripts = scripts
        .into_iter()
        .filter_map(|(script, factor)| script.map(|s| u64::try_from(s.len()).unwrap_or(u64::MAX).saturating_mul(factor)));
    let scripts: u64 = scripts.fold(0, u64::saturating_add);
    let signatures: u64 = if fields.redeem_script.is_some() || fields.witness_script.is_some() { 20 } else { 4 };
    scripts.saturating_add(signatures.saturating_mul(73)).saturating_add(150)
}
