//! A transaction that can only confirm much later is a promise that nobody remembers: lock times further ahead than the
//! wallet's own scripts or its policy need are refused.

use bitcoin::{Transaction, absolute, relative};
use postern_protocol::refusal::{Refusal, RefusalCode};

use super::refuse;
use crate::{policy::rules::SpendRules, wallet::Timelocks};

pub(super) fn check(transaction: &Transaction, rules: &SpendRules, wallet: Timelocks) -> Result<(), Refusal> {
    match transaction.lock_time {
        absolute::LockTime::Blocks(height) => {
            let height = height.to_consensus_u32();
            if let Some(max) = rules.max_locktime_height.filter(|max| height > *max) {
                return refuse(RefusalCode::TxLocktime, format!("the lock time is block {height}; the policy allows up to block {max}"));
            }
        }
        absolute::LockTime::Seconds(time) => {
            let seconds = time.to_consensus_u32();
            if wallet.after_seconds.is_none_or(|after| seconds > after) {
                return refuse(
                    RefusalCode::TxLocktime,
                    format!(
                        "the lock time is a time stamp ({seconds}), later than any in the wallet's descriptor; use a block height or 0"
                    ),
                );
            }
        }
    }
    // Relative lock times mean something from version 2 on (BIP 68).
    if transaction.version.0 < 2 {
        return Ok(());
    }
    for (number, input) in transaction.input.iter().enumerate() {
        let (length, longest, unit) = match input.sequence.to_relative_lock_time() {
            None => continue,
            Some(relative::LockTime::Blocks(blocks)) => (blocks.value(), wallet.older_blocks, "blocks"),
            Some(relative::LockTime::Time(time)) => (time.value(), wallet.older_512s, "times 512 s"),
        };
        if length > longest.unwrap_or(0) {
            return refuse(
                RefusalCode::TxLocktime,
                format!(
                    "input {number}'s sequence locks it for {length} {unit}, longer than any older(…) in the wallet's descriptor; use 0xfffffffd"
                ),
            );
        }
    }
    Ok(())
}
