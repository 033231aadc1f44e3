//! The analysis: whatever it accepts is true, by the measure of another reader of PSBTs.

use std::collections::BTreeSet;

use bitcoin::{Psbt, TxOut};
use postern_protocol::refusal::RefusalKind;
use postern_signer::analysis::{SpendPlan, WEIGHT_MAX, analyze};

use super::wallets::{self, Site};

/// Any bytes; the wallets of every kind.
pub fn raw(bytes: &[u8]) {
    for site in wallets::all() {
        check(site, bytes);
    }
}

/// One wallet. True when it would sign.
pub fn check(site: &Site, bytes: &[u8]) -> bool {
    match analyze(&site.wallet, &site.rules, bytes) {
        Ok(plan) => {
            is_true(site, bytes, &plan);
            true
        }
        Err(refusal) => {
            assert!(refusal.message.is_some_and(|m| !m.is_empty() && m.len() < 2_000), "{} without a reason", refusal.code);
            assert_eq!(refusal.kind, refusal.code.kind());
            assert_ne!(refusal.kind, RefusalKind::Needs, "the analysis needs no command");
            false
        }
    }
}

/// What each input spends, by rust-bitcoin's reader.
fn spent(psbt: &Psbt) -> Vec<TxOut> {
    let inputs = psbt.unsigned_tx.input.iter().zip(&psbt.inputs);
    inputs
        .map(|(txin, fields)| match &fields.non_witness_utxo {
            Some(previous) => {
                assert_eq!(previous.compute_txid(), txin.previous_output.txid, "proven by another transaction");
                previous.output[txin.previous_output.vout as usize].clone()
            }
            None => fields.witness_utxo.clone().expect("an amount from nowhere"),
        })
        .collect()
}

fn is_true(site: &Site, bytes: &[u8], plan: &SpendPlan) {
    // rust-bitcoin checks some fields that the signer only passes over (keys on the curve); then there is nobody to compare with.
    let Ok(psbt) = Psbt::deserialize(bytes) else { return };
    let transaction = &psbt.unsigned_tx;
    assert_eq!(plan.transaction(), transaction);
    assert_eq!(plan.unsigned_txid(), transaction.compute_txid());
    let spent = spent(&psbt);
    let all_taproot = spent.iter().all(|o| o.script_pubkey.is_p2tr());
    for (fields, output) in psbt.inputs.iter().zip(&spent) {
        assert!(fields.non_witness_utxo.is_some() || all_taproot, "a v0 or legacy input without its previous transaction");
        assert!(fields.witness_utxo.as_ref().is_none_or(|claimed| claimed == output), "a lie beside the truth");
        assert!(fields.final_script_sig.is_none() && fields.final_script_witness.is_none());
        let sighash = fields.sighash_type.map_or(1, |s| s.to_u32());
        assert!(sighash == 1 || (sighash == 0 && output.script_pubkey.is_p2tr()), "sighash type {sighash}");
        assert!(fields.partial_sigs.values().all(|s| s.sighash_type.to_u32() == 1), "another's signature with another type");
    }
    let distinct: BTreeSet<_> = transaction.input.iter().map(|i| i.previous_output).collect();
    assert_eq!(distinct.len(), transaction.input.len(), "a coin twice");

    // Amounts in u128: no sum here can wrap.
    let sum = |amounts: &mut dyn Iterator<Item = u64>| amounts.map(u128::from).sum::<u128>();
    let total_in = sum(&mut spent.iter().map(|o| o.value.to_sat()));
    let total_out = sum(&mut transaction.output.iter().map(|o| o.value.to_sat()));
    assert_eq!(u128::from(plan.fee_sat()), total_in - total_out, "the fee");

    let ours = |script: &bitcoin::Script| site.wallet.find(script);
    let mut own_sat = 0;
    let mut own_inputs = plan.inputs().iter();
    for (number, output) in (0..).zip(&spent) {
        let Some(own) = ours(&output.script_pubkey) else {
            assert!(site.rules.allow_foreign_inputs, "another's input");
            continue;
        };
        let proven = own_inputs.next().expect("an input of ours that is not counted");
        assert_eq!((proven.input, proven.value_sat, proven.position), (number, output.value.to_sat(), own.position));
        own_sat += u128::from(proven.value_sat);
        assert!(plan.tasks().iter().any(|task| task.input == number), "nothing signs input {number}");
    }
    assert!(own_inputs.next().is_none(), "an input too many");
    assert!(own_sat > 0 || plan.inputs().iter().all(|i| i.value_sat == 0));

    let mut back = 0;
    for change in plan.change() {
        let output = &transaction.output[change.output as usize];
        let own = ours(&output.script_pubkey).expect("change that is not ours");
        assert!(site.wallet.is_change(own.position) && own.position == change.position && change.value_sat == output.value.to_sat());
        back += u128::from(change.value_sat);
    }
    assert_eq!(u128::from(plan.outflow_sat()), own_sat.saturating_sub(back), "the outflow");
    assert_eq!(plan.change().len() + plan.payments().len(), transaction.output.len(), "an output that is nowhere");
    assert!(plan.change().len() <= 10);
    assert!(plan.weight_wu() <= WEIGHT_MAX && plan.weight_wu() >= transaction.weight().to_wu());
    for task in plan.tasks() {
        assert!(plan.inputs().iter().any(|own| own.input == task.input), "a signature for another's input");
        assert!(task.sighash_byte.is_none_or(|byte| byte == 1));
    }
}
