//! Where the money goes: proven change, and everything else.

use bitcoin::{Script, TxOut};
use postern_protocol::{
    refusal::{Refusal, RefusalCode},
    units::format_amount_sat,
};

use super::{
    CHANGE_MAX, Payment, ProvenChange,
    past_gap::PastGap,
    psbt::{OutputFields, Psbt},
    refuse, scripts, shown,
};
use crate::{policy::rules::SpendRules, wallet::Wallet};

/// Longest OP_RETURN script: the opcode, a push and 80 bytes.
const OP_RETURN_SCRIPT_MAX: usize = 83;

/// The outputs by where they go.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) change: Vec<ProvenChange>,
    pub(super) payments: Vec<Payment>,
}

impl Outputs {
    pub(super) fn prove(wallet: &Wallet, rules: &SpendRules, psbt: &Psbt<'_>, past_gap: &mut PastGap<'_>) -> Result<Self, Refusal> {
        let mut outputs = Self::default();
        for ((output, txout), fields) in (0..).zip(&psbt.transaction.output).zip(&psbt.outputs) {
            check_kind(output, txout, rules)?;
            let value_sat = txout.value.to_sat();
            let number = usize::try_from(output).unwrap_or(usize::MAX);
            match wallet.find(&txout.script_pubkey) {
                Some(own) => {
                    scripts::check_output(number, fields, &own)?;
                    if wallet.is_change(own.position) {
                        outputs.change.push(ProvenChange { output, value_sat, position: own.position });
                        continue;
                    }
                }
                None => check_claim(output, wallet, &txout.script_pubkey, fields, past_gap)?,
            }
            outputs.payments.push(Payment { output, value_sat, script_pubkey: txout.script_pubkey.clone() });
        }
        if outputs.change.len() > CHANGE_MAX {
            return refuse(
                RefusalCode::ChangeTooMany,
                format!("{} outputs return to the wallet; at most {CHANGE_MAX} do: merge them", outputs.change.len()),
            );
        }
        Ok(outputs)
    }

    // The sums below are parts of the outputs' sum, which was checked.

    pub(super) fn change_sat(&self) -> u64 {
        self.change.iter().fold(0, |sum, change| sum.saturating_add(change.value_sat))
    }

    pub(super) fn payments_sat(&self) -> u64 {
        self.payments.iter().fold(0, |sum, payment| sum.saturating_add(payment.value_sat))
    }
}

/// An output that is not in the table: it must not pretend to be ours.
fn check_claim(
    output: u32,
    wallet: &Wallet,
    script: &Script,
    fields: &OutputFields<'_>,
    past_gap: &mut PastGap<'_>,
) -> Result<(), Refusal> {
    let claimed = past_gap.claimed(fields.key_origins());
    if !claimed.ours {
        return Ok(());
    }
    match claimed.position {
        Some(position) if past_gap.derives(script, position)? => {
            if wallet.is_change(position) {
                let end = wallet.end(position.branch);
                return refuse(
                    RefusalCode::ChangeBeyondGap,
                    format!(
                        "output {output} returns to {position}, and change is known up to index {end} (not included): use an earlier index"
                    ),
                );
            }
            Ok(())
        }
        Some(position) => refuse(
            RefusalCode::ChangeClaimFalse,
            format!(
                "output {output} claims to be this wallet's {position}, and is not: whoever wrote this PSBT passes another's script off as ours"
            ),
        ),
        None => refuse(
            RefusalCode::ChangeClaimFalse,
            format!(
                "output {output} names a key of ours, with an origin that leads nowhere in this wallet; remove the origin from outputs that are not ours"
            ),
        ),
    }
}

fn check_kind(output: u32, txout: &TxOut, rules: &SpendRules) -> Result<(), Refusal> {
    let script = &txout.script_pubkey;
    if script.is_op_return() {
        return check_op_return(output, txout, rules);
    }
    let Some(dust) = dust_limit_sat(script) else {
        return refuse(
            RefusalCode::OutputScriptForbidden,
            format!("output {output} pays to script {}, which is not p2pkh, p2sh, p2wpkh, p2wsh or p2tr", shown(script)),
        );
    };
    let value_sat = txout.value.to_sat();
    if value_sat < dust {
        return refuse(
            RefusalCode::OutputDust,
            format!("output {output} pays {value_sat} sat; nodes relay no output of this kind below {dust} sat"),
        );
    }
    Ok(())
}

fn check_op_return(output: u32, txout: &TxOut, rules: &SpendRules) -> Result<(), Refusal> {
    let forbidden = |why: String| refuse(RefusalCode::OutputOpReturn, format!("output {output} is an OP_RETURN output {why}"));
    if !rules.allow_op_return {
        return forbidden("and the wallet does not allow them".into());
    }
    if txout.value.to_sat() != 0 {
        return forbidden(format!("that burns {}; its value must be zero", format_amount_sat(txout.value.to_sat())));
    }
    let length = txout.script_pubkey.len();
    let mut instructions = txout.script_pubkey.instructions();
    let pushes_only = instructions.next().is_some() && instructions.all(|i| i.is_ok_and(|i| i.push_bytes().is_some()));
    if length > OP_RETURN_SCRIPT_MAX || !pushes_only {
        return forbidden(format!("of {length} bytes; it may push at most 80 bytes of data and nothing else"));
    }
    Ok(())
}

/// Bitcoin Core's dust limit at its default rate of 3 sat/vB: what spending the output would cost. None for scripts that we
/// do not pay to.
fn dust_limit_sat(script: &Script) -> Option<u64> {
    if script.is_p2pkh() {
        Some(546)
    } else if script.is_p2sh() {
        Some(540)
    } else if script.is_p2wpkh() {
        Some(294)
    } else if script.is_p2wsh() || script.is_p2tr() {
        Some(330)
    } else {
        None
    }
}
