//! What is spent: proven amounts and scripts, and which of them are ours.

use std::sync::Arc;

use bitcoin::Transaction;
use postern_protocol::refusal::{Refusal, RefusalCode};

use super::{
    ProvenInput,
    bytes::Bytes,
    past_gap::PastGap,
    previous::{PreviousTransactions, SpentOutput},
    psbt::{InputFields, Psbt},
    refuse, scripts, shape, shown, signatures,
};
use crate::{
    policy::rules::SpendRules,
    wallet::{OwnScript, Wallet},
};

/// The inputs, in their order.
#[derive(Debug)]
pub(super) struct Inputs<'a> {
    pub(super) spent: Vec<SpentOutput<'a>>,
    /// None for another's input.
    pub(super) own: Vec<Option<Arc<OwnScript>>>,
    total_sat: u64,
}

impl<'a> Inputs<'a> {
    pub(super) fn prove(wallet: &Wallet, rules: &SpendRules, psbt: &Psbt<'a>, past_gap: &mut PastGap<'_>) -> Result<Self, Refusal> {
        let spent = spent_outputs(wallet, rules, psbt)?;
        let total_sat = shape::sum("input", spent.iter().map(|output| output.value.to_sat()).enumerate())?;
        let mut own = Vec::with_capacity(spent.len());
        for (number, (output, fields)) in spent.iter().zip(&psbt.inputs).enumerate() {
            let ours = wallet.find(output.script);
            if ours.is_none() {
                check_foreign(number, rules, fields, output, past_gap)?;
            }
            signatures::check(number, fields, output)?;
            if let Some(ours) = &ours {
                scripts::check_input(number, wallet, fields, ours)?;
            }
            own.push(ours);
        }
        if own.iter().all(Option::is_none) {
            return refuse(
                RefusalCode::NothingToSign,
                format!("no input spends a script of wallet {}; name the wallet that it spends from", wallet.name()),
            );
        }
        Ok(Self { spent, own, total_sat })
    }

    /// All inputs.
    pub(super) fn total_sat(&self) -> u64 {
        self.total_sat
    }

    /// Ours.
    pub(super) fn own_sat(&self) -> u64 {
        let own = self.own.iter().zip(&self.spent).filter(|(own, _)| own.is_some());
        // No more than the total, which was checked.
        own.fold(0, |sum, (_, spent)| sum.saturating_add(spent.value.to_sat()))
    }

    /// What of it goes into the plan.
    pub(super) fn proven(&self, transaction: &Transaction) -> Vec<ProvenInput> {
        let all = (0..).zip(&transaction.input).zip(self.own.iter().zip(&self.spent));
        all.filter_map(|((input, txin), (own, spent))| {
            own.as_ref().map(|own| ProvenInput {
                input,
                outpoint: txin.previous_output,
                value_sat: spent.value.to_sat(),
                position: own.position,
            })
        })
        .collect()
    }
}

/// The outputs that are spent, from full previous transactions. Only when all inputs are P2TR is `witness_utxo` enough: then
/// every signature commits to all amounts and scripts that were given (BIP 341), and a lie makes it worthless.
fn spent_outputs<'a>(wallet: &Wallet, rules: &SpendRules, psbt: &Psbt<'a>) -> Result<Vec<SpentOutput<'a>>, Refusal> {
    let mut previous = PreviousTransactions::default();
    let mut spent = Vec::with_capacity(psbt.inputs.len());
    let mut first_unproven = None;
    let mut all_taproot = true;
    for (number, (txin, fields)) in psbt.transaction.input.iter().zip(&psbt.inputs).enumerate() {
        let proven = fields.previous_transaction.map(|bytes| previous.spent(number, txin.previous_output, bytes)).transpose()?;
        let claimed = fields.witness_utxo.map(|bytes| read_output(number, bytes)).transpose()?;
        if let (Some(proven), Some(claimed)) = (proven, claimed)
            && proven != claimed
        {
            return refuse(
                RefusalCode::AmountConflict,
                format!(
                    "input {number}: witness_utxo says {} sat to {}, the previous transaction says {} sat to {}",
                    claimed.value.to_sat(),
                    shown(claimed.script),
                    proven.value.to_sat(),
                    shown(proven.script)
                ),
            );
        }
        if proven.is_none() && first_unproven.is_none() {
            first_unproven = Some((number, fields, claimed));
        }
        let Some(output) = proven.or(claimed) else {
            return unproven(wallet, rules, number, fields, None);
        };
        all_taproot &= output.script.is_p2tr();
        spent.push(output);
    }
    match first_unproven {
        Some((number, fields, claimed)) if !all_taproot => unproven(wallet, rules, number, fields, claimed),
        _ => Ok(spent),
    }
}

fn read_output(number: usize, bytes: &[u8]) -> Result<SpentOutput<'_>, Refusal> {
    let mut rest = Bytes(bytes);
    match SpentOutput::read(&mut rest) {
        Ok(output) if rest.is_empty() => Ok(output),
        _ => refuse(RefusalCode::PsbtMalformed, format!("input {number}: witness_utxo is not a transaction output")),
    }
}

fn unproven<T>(
    wallet: &Wallet,
    rules: &SpendRules,
    number: usize,
    fields: &InputFields<'_>,
    claimed: Option<SpentOutput<'_>>,
) -> Result<T, Refusal> {
    let ours = claimed.is_some_and(|claimed| wallet.find(claimed.script).is_some())
        || fields.key_origins().chain(fields.tap_key_origins()).any(|o| wallet.claim(o.key, o.fingerprint, &o.path()).ours);
    let mend = "add its full previous transaction (non_witness_utxo)";
    if rules.allow_foreign_inputs && !ours {
        return refuse(
            RefusalCode::ForeignInputUnproven,
            format!("input {number} is not this wallet's, and its amount and script are not proven; {mend}"),
        );
    }
    refuse(
        RefusalCode::PrevtxMissing,
        format!("input {number} lacks its full previous transaction, without which its amount is only claimed; {mend}"),
    )
}

fn check_foreign(
    number: usize,
    rules: &SpendRules,
    fields: &InputFields<'_>,
    output: &SpentOutput<'_>,
    past_gap: &mut PastGap<'_>,
) -> Result<(), Refusal> {
    // Ours, but not in the table: never signed as another's, since its amount would not be counted.
    let origins = fields.key_origins().chain(fields.tap_key_origins());
    if let Some(position) = past_gap.position_of(output.script, origins)? {
        return refuse(
            RefusalCode::ForeignInput,
            format!(
                "input {number} is this wallet's {position}, which lies past its last used address plus the gap; raise the wallet's gap"
            ),
        );
    }
    if rules.allow_foreign_inputs {
        return Ok(());
    }
    refuse(
        RefusalCode::ForeignInput,
        format!(
            "input {number} spends script {}, which is not this wallet's; remove it, or ask the wallet that it belongs to",
            shown(output.script)
        ),
    )
}
