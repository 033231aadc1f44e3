//! From hostile bytes to a [`SpendPlan`]: nothing is read from a claim that could be proven instead. Pure.

mod plan;

pub use plan::*;
use postern_protocol::refusal::{Refusal, RefusalCode};

use crate::{policy::rules::SpendRules, wallet::Wallet};

/// Proves what a PSBT (version 0, BIP 174) does, or says why it is not signed.
///
/// # Errors
/// The first check that failed, with the input or output and what to do.
pub fn analyze(wallet: &Wallet, rules: &SpendRules, psbt: &[u8]) -> Result<SpendPlan, Refusal> {
    let _ = (wallet, rules, psbt);
    Err(Refusal::new(RefusalCode::PsbtMalformed, "analysis is not built in yet"))
}
