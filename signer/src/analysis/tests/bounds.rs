//! Where the rules begin to hold: dust, many inputs, heavy transactions.

use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut, Witness};
use postern_protocol::refusal::RefusalCode::{OutputDust, PrevtxMismatch, TxTooHeavy};

use super::site::{COIN_SAT, Out, Site, Spend, change, public, receive, somebody};

#[test]
fn outputs_of_every_ordinary_kind_pass_down_to_bitcoin_cores_dust_limit() {
    let key = public("k");
    let taproot = ScriptBuf::from_bytes([&[0x51, 0x20], [7; 32].as_slice()].concat());
    for script in [
        ScriptBuf::new_p2pkh(&key.pubkey_hash()),
        ScriptBuf::new_p2sh(&somebody().script_hash()),
        somebody(),
        ScriptBuf::new_p2wsh(&somebody().wscript_hash()),
        taproot,
    ] {
        let limit = script.minimal_non_dust().to_sat();
        let site = Site::hot();
        let pays = |sat| site.analyze(&site.psbt(&Spend::one(vec![Out::Pay(script.clone(), sat), Out::Own(change(0), 990_000)])));
        pays(limit).unwrap();
        assert_eq!(pays(limit - 1).unwrap_err().code, OutputDust, "{script}");
    }
}

#[test]
fn one_previous_transaction_proves_many_inputs() {
    let site = Site::hot();
    let script = site.descriptor(receive(0)).script_pubkey();
    let mut funding = Site::funding(script.clone(), COIN_SAT, 1);
    funding.output = vec![TxOut { value: Amount::from_sat(COIN_SAT), script_pubkey: script }; 500];
    let mut psbt = site.psbt(&Spend { coins: vec![(receive(0), COIN_SAT); 500], outputs: vec![Out::Pay(somebody(), 499_000_000)] });
    for (vout, (txin, fields)) in (0..).zip(psbt.unsigned_tx.input.iter_mut().zip(&mut psbt.inputs)) {
        txin.previous_output = OutPoint { txid: funding.compute_txid(), vout };
        fields.non_witness_utxo = Some(funding.clone());
    }
    assert_eq!(site.analyze(&psbt).unwrap().inputs().len(), 500);
    // One of 500 copies that differs is seen.
    psbt.inputs[321].non_witness_utxo.as_mut().unwrap().output[321].value = Amount::from_sat(7);
    psbt.inputs[321].witness_utxo = None;
    assert_eq!(site.analyze(&psbt).unwrap_err().code, PrevtxMismatch);
    // A witness does not count for a txid, so another witness is no difference.
    let mut same = funding.clone();
    same.input[0].witness.push([9]);
    psbt.inputs[321].non_witness_utxo = Some(same);
    assert_eq!(site.analyze(&psbt).unwrap().inputs().len(), 500);
}

#[test]
fn a_legacy_transaction_is_weighed_before_its_inputs_are_hashed_in_square() {
    let site = Site::hsm("pkh(KEY)");
    let with = |inputs: usize| {
        let coins = vec![(receive(0), COIN_SAT); inputs];
        site.analyze(&site.psbt(&Spend { coins, outputs: vec![Out::Pay(somebody(), 1_000_000)] }))
    };
    assert_eq!(with(660).unwrap().tasks().len(), 660);
    assert_eq!(with(680).unwrap_err().code, TxTooHeavy);
}

#[test]
fn a_txid_is_that_of_the_transaction_with_and_without_witness() {
    for witness in [Witness::new(), Witness::from_slice(&[[7u8; 71]])] {
        let site = Site::hot();
        let mut psbt = site.psbt(&Spend::usual());
        let previous = psbt.inputs[0].non_witness_utxo.as_mut().unwrap();
        previous.input[0].witness = witness;
        assert_eq!(previous.compute_txid(), psbt.unsigned_tx.input[0].previous_output.txid);
        site.analyze(&psbt).unwrap();
    }
}
