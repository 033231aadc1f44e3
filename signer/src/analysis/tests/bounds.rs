//! Where the rules begin to hold: dust, lock times, many inputs, heavy transactions.

use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxOut, Witness, absolute::LockTime, transaction::Version};
use postern_protocol::refusal::RefusalCode::{OutputDust, PrevtxMismatch, PsbtMalformed, PsbtTooLarge, TxLocktime, TxTooHeavy};

use super::{
    super::{PSBT_MAX, analyze},
    site::{COIN_SAT, Out, Site, Spend, change, every_site, public, receive, somebody},
};

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
fn inputs_of_others_weigh_no_more_than_reckoned_when_they_are_signed() {
    let site = Site::hot().rules(|r| r.allow_foreign_inputs = true);
    for name in ["hsm p2pkh", "hsm p2wpkh", "hsm p2sh-p2wpkh", "hsm p2wsh multisig"] {
        let other = every_site().remove(name).unwrap().rules(|r| r.allow_foreign_inputs = true);
        let mut psbt = site.joint(&other);
        let (plan, theirs) = (site.analyze(&psbt).unwrap(), other.analyze(&psbt).unwrap());
        other.sign(&mut psbt, &theirs);
        let weight = site.finish(&psbt, &plan).weight().to_wu();
        assert!(weight <= plan.weight_wu() && weight <= theirs.weight_wu(), "{name}: {weight}");
    }
    // Nobody knows how many signatures a script wants: twenty are reckoned, in place of two with their keys.
    let mut psbt = site.joint(&Site::hsm("wpkh(KEY)"));
    let bare = site.analyze(&psbt).unwrap().weight_wu();
    psbt.inputs[1].witness_script = Some(somebody());
    assert!(site.analyze(&psbt).unwrap().weight_wu() >= bare + 16 * 73);
}

#[test]
fn a_lock_by_time_passes_up_to_the_longest_in_the_descriptor() {
    let after = Site::seed("wsh(and_v(v:pk(KEY),after(1700000000)))");
    for (seconds, code) in [(500_000_000, None), (1_700_000_000, None), (1_700_000_001, Some(TxLocktime))] {
        let mut psbt = after.psbt(&Spend::usual());
        psbt.unsigned_tx.lock_time = LockTime::from_consensus(seconds);
        assert_eq!(after.analyze(&psbt).err().map(|refusal| refusal.code), code, "{seconds} s");
    }
    // Seven times 512 seconds (BIP 68), one time more, and one block.
    for (sequence, code) in [(0x0040_0007, None), (0x0040_0008, Some(TxLocktime)), (1, Some(TxLocktime))] {
        let older = Site::seed("wsh(and_v(v:pk(KEY),older(4194311)))").sequence(Sequence(sequence));
        assert_eq!(older.analyze(&older.psbt(&Spend::usual())).err().map(|refusal| refusal.code), code, "{sequence:#x}");
    }
}

#[test]
fn sequences_lock_from_version_2_on() {
    for (version, code) in [(1, None), (2, Some(TxLocktime)), (3, Some(TxLocktime))] {
        let site = Site::hot().sequence(Sequence::from_height(1));
        let mut psbt = site.psbt(&Spend::usual());
        psbt.unsigned_tx.version = Version::non_standard(version);
        assert_eq!(site.analyze(&psbt).err().map(|refusal| refusal.code), code, "version {version}");
    }
}

#[test]
fn sizes_are_capped_before_anything_is_read() {
    let site = Site::hot();
    let code = |bytes: &[u8]| analyze(&site.wallet, &site.rules, bytes).unwrap_err().code;
    // Nothing but zeros: no PSBT, and no transaction.
    assert_eq!(code(&vec![0; PSBT_MAX + 1]), PsbtTooLarge);
    assert_eq!(code(&vec![0; PSBT_MAX]), PsbtMalformed);
    let transaction = |length: u32| [b"psbt\xff\x01\x00\xfe", &length.to_le_bytes()[..], &vec![0; length as usize], &[0]].concat();
    assert_eq!(code(&transaction(100_001)), TxTooHeavy);
    assert_ne!(code(&transaction(100_000)), TxTooHeavy);
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
