//! What is charged is what leaves, and no lie about an amount is signed.

use bitcoin::{Amount, Psbt, hashes::Hash as _, psbt, sighash::SighashCache};
use postern_protocol::refusal::RefusalCode::{
    AmountConflict, FeeAbsolute, FeeRate, FeeShare, FeeTooLow, ForeignInputUnproven, PrevtxMismatch, PrevtxMissing,
};
use proptest::prelude::*;

use super::site::{COIN_SAT, Out, Site, Spend, change, receive, somebody};
use crate::policy::rules::FeeCaps;

/// BIP 143 commits a signature to its own input's amount only. So an attacker asks twice for the same transaction: once with
/// the truth about input 0 and a lie about input 1, once the other way round. Each request shows a small fee; put
/// together, the two honest signatures burn the difference.
#[test]
fn two_sessions_that_each_lie_about_the_other_input_get_nothing() {
    let site = Site::hot();
    let spend =
        Spend { coins: vec![(receive(0), 10 * COIN_SAT), (receive(1), 10 * COIN_SAT)], outputs: vec![Out::Pay(somebody(), 10 * COIN_SAT)] };
    let honest = site.psbt(&spend);
    assert_eq!(site.analyze(&honest).unwrap().outflow_sat(), 20 * COIN_SAT);

    let lie_about = |input: usize, change: fn(&mut Psbt, usize)| {
        let mut psbt = honest.clone();
        psbt.inputs[input].witness_utxo.as_mut().unwrap().value = Amount::from_sat(1_000);
        change(&mut psbt, input);
        site.analyze(&psbt).unwrap_err().code
    };
    for input in [0, 1] {
        assert_eq!(lie_about(input, |_, _| {}), AmountConflict);
        assert_eq!(lie_about(input, |p, i| p.inputs[i].non_witness_utxo = None), PrevtxMissing);
        assert_eq!(lie_about(input, |p, _| p.inputs.iter_mut().for_each(|i| i.non_witness_utxo = None)), PrevtxMissing);
        let in_previous = |p: &mut Psbt, i: usize| {
            let previous = p.inputs[i].non_witness_utxo.as_mut().unwrap();
            previous.output[1].value = Amount::from_sat(1_000);
        };
        assert_eq!(lie_about(input, in_previous), PrevtxMismatch);
    }
}

#[test]
fn an_input_without_proof_is_told_to_be_ours_by_its_script_or_by_its_key() {
    let site = Site::hot().rules(|r| r.allow_foreign_inputs = true);
    let without = |change: fn(&mut psbt::Input)| {
        let mut psbt = site.psbt(&Spend::usual());
        psbt.inputs[1].non_witness_utxo = None;
        change(&mut psbt.inputs[1]);
        site.analyze(&psbt).unwrap_err().code
    };
    assert_eq!(without(|input| input.bip32_derivation.clear()), PrevtxMissing);
    assert_eq!(without(|input| input.witness_utxo = None), PrevtxMissing);
    assert_eq!(without(|input| *input = psbt::Input::default()), ForeignInputUnproven);
}

#[test]
fn digests_commit_to_the_proven_amount() {
    let site = Site::hot();
    let psbt = site.psbt(&Spend::usual());
    let plan = site.analyze(&psbt).unwrap();
    let mut cache = SighashCache::new(&psbt.unsigned_tx);
    let script = site.descriptor(receive(0)).script_pubkey();
    let all = bitcoin::EcdsaSighashType::All;
    let expected = cache.p2wpkh_signature_hash(0, &script, Amount::from_sat(COIN_SAT), all).unwrap();
    assert_eq!(plan.tasks()[0].digest, expected.to_byte_array());
}

#[test]
fn the_fee_rate_on_the_chain_is_never_over_the_cap() {
    // The last one can be spent in a heavier way than the one that is used here.
    for descriptor in ["wpkh(KEY)", "tr(KEY)", "wsh(or_d(pk(KEY),and_v(v:pk(OTHER),older(144))))"] {
        for max in [1_000, 7_123, 200_000] {
            let site = Site::seed(descriptor).rules(|r| r.fee.max_rate_sat_per_kvb = Some(max));
            // The largest fee that passes.
            let (mut low, mut high) = (0, COIN_SAT - 1_000);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                match site.analyze(&site.psbt(&Spend::one(vec![Out::Pay(somebody(), COIN_SAT - middle)]))) {
                    Ok(_) => low = middle,
                    Err(refusal) => {
                        assert_eq!(refusal.code, FeeRate);
                        high = middle;
                    }
                }
            }
            let psbt = site.psbt(&Spend::one(vec![Out::Pay(somebody(), COIN_SAT - low)]));
            let signed = site.finish(&psbt, &site.analyze(&psbt).unwrap());
            let vsize = signed.vsize() as u64;
            assert!(low * 1_000 <= max * vsize, "{descriptor}: {low} sat for {vsize} vB is over {max} sat/kvB");
            // A rate of whole satoshi is reached exactly: the cap itself passes.
            assert!(max % 1_000 != 0 || (low * 1_000).is_multiple_of(max), "{descriptor}: {low} sat is under {max} sat/kvB");
            assert!(low * 1_000 >= max * (vsize - 2) - 1_000, "{descriptor}: {low} sat for {vsize} vB could be nearer to {max} sat/kvB");
        }
    }
}

#[test]
fn a_fee_at_its_cap_passes_and_a_satoshi_more_does_not() {
    let caps: [(fn(&mut FeeCaps), _); 2] =
        [(|fee| fee.max_sat = Some(800), FeeAbsolute), (|fee| fee.max_share_ppm = Some(1_000), FeeShare)];
    for (cap, code) in caps {
        let site = Site::hot().rules(|r| cap(&mut r.fee));
        let with_fee =
            |sat: u64| site.analyze(&site.psbt(&Spend::one(vec![Out::Pay(somebody(), 800_000), Out::Own(change(0), 200_000 - sat)])));
        assert_eq!(with_fee(800).unwrap().fee_sat(), 800, "{code}");
        assert_eq!(with_fee(801).unwrap_err().code, code);
    }
}

#[test]
fn the_least_fee_is_what_nodes_relay() {
    for descriptor in ["wpkh(KEY)", "tr(KEY)", "pkh(KEY)"] {
        let site = Site::seed(descriptor);
        let with_fee = |sat| site.psbt(&Spend::one(vec![Out::Own(change(0), COIN_SAT - sat)]));
        let least = (0..50).find(|sat| site.analyze(&with_fee(*sat)).is_ok()).unwrap();
        assert!((0..least).all(|sat| site.analyze(&with_fee(sat)).unwrap_err().code == FeeTooLow));
        let plan = site.analyze(&with_fee(least)).unwrap();
        assert_eq!((plan.relay_fee_sat(), plan.outflow_sat()), (least, least));
        let vsize = site.finish(&with_fee(least), &plan).vsize() as u64;
        assert!((vsize - 2).div_ceil(10) <= least && least <= vsize.div_ceil(10), "{descriptor}: {least} sat for {vsize} vB");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_charged_is_own_inputs_minus_change(
        coins in proptest::collection::vec((0u32..20, 0u32..2, 10_000u64..10_000_000), 1..8),
        paid in proptest::collection::vec(294u64..1_000_000, 0..6),
        returned in proptest::collection::vec((0u32..20, 0u32..2, 294u64..1_000_000), 0..10),
    ) {
        let site = Site::hot();
        let position = |index, branch| if branch == 0 { receive(index) } else { change(index) };
        let spend = Spend {
            coins: coins.iter().map(|(index, branch, sat)| (position(*index, *branch), *sat)).collect(),
            outputs: paid.iter().map(|sat| Out::Pay(somebody(), *sat))
                .chain(returned.iter().map(|(index, branch, sat)| Out::Own(position(*index, *branch), *sat))).collect(),
        };
        prop_assume!(!spend.outputs.is_empty());
        let total: u64 = coins.iter().map(|c| c.2).sum();
        let back: u64 = returned.iter().filter(|r| r.1 == 1).map(|r| r.2).sum();
        let out: u64 = paid.iter().sum::<u64>() + returned.iter().map(|r| r.2).sum::<u64>();
        match site.analyze(&site.psbt(&spend)) {
            Ok(plan) => {
                prop_assert_eq!(plan.fee_sat(), total - out);
                prop_assert_eq!(plan.outflow_sat(), total - back);
                let paid: u64 = plan.payments().iter().map(|p| p.value_sat).sum();
                prop_assert_eq!(plan.outflow_sat(), paid + plan.fee_sat());
                prop_assert_eq!(plan.tasks().len(), coins.len());
            }
            Err(refusal) => prop_assert!(out > total || (refusal.code == FeeTooLow && total - out < 100), "{}", refusal),
        }
    }
}
