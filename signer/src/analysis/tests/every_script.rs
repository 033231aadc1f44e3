//! Each kind of wallet and script, from a PSBT to a transaction that verifies.

use bitcoin::{TapSighashType, psbt::PsbtSighashType};

use super::site::{COIN_SAT, Site, Spend, change, every_site, receive, somebody};
use crate::wallet::SpendScript;

fn spend_of(site: &Site) -> Spend {
    if site.wallet.branches() == 1 { Spend::single() } else { Spend::usual() }
}

#[test]
fn every_kind_of_script_is_proven_signed_and_verified() {
    for (name, site) in every_site() {
        let psbt = site.psbt(&spend_of(&site));
        let plan = site.analyze(&psbt).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(plan.wallet(), site.wallet.name(), "{name}");
        assert_eq!(plan.fee_sat(), 2_000, "{name}");
        assert_eq!(plan.outflow_sat(), 1_502_000, "{name}");
        assert_eq!(plan.inputs().len(), 2, "{name}");
        assert!(plan.inputs().iter().all(|i| i.value_sat == COIN_SAT), "{name}");
        assert_eq!(plan.payments().len(), 1, "{name}");
        assert_eq!(plan.payments()[0].script_pubkey, somebody(), "{name}");
        let back = if site.wallet.branches() == 1 { receive(0) } else { change(2) };
        assert_eq!(plan.change().iter().map(|c| (c.output, c.position)).collect::<Vec<_>>(), [(1, back)], "{name}");
        assert_eq!(plan.unsigned_txid(), psbt.unsigned_tx.compute_txid(), "{name}");
        assert_eq!(plan.transaction(), &psbt.unsigned_tx, "{name}");

        let signed = site.finish(&psbt, &plan);
        if !name.contains("p2pkh") && !name.contains("p2sh") {
            assert_eq!(signed.compute_txid(), plan.unsigned_txid(), "{name}");
        }
        let weight = signed.weight().to_wu();
        assert!(weight <= plan.weight_wu(), "{name}: {weight} is over the bound of {}", plan.weight_wu());
        let lightest = psbt.unsigned_tx.weight().to_wu() + 2 * site.wallet.lightest_satisfaction_weight();
        assert!(lightest <= weight + 8, "{name}: {weight} is under the bound of {lightest} by more than chance");
    }
}

#[test]
fn a_key_that_can_spend_alone_signs_once_and_leaves_are_signed_only_without_it() {
    let tasks = |descriptor: &str| {
        let site = Site::seed(descriptor);
        let plan = site.analyze(&site.psbt(&Spend::usual())).unwrap();
        plan.tasks().iter().filter(|t| t.input == 0).count()
    };
    assert_eq!(tasks("tr(KEY,{pk(OTHER),pk(SECOND)})"), 1);
    assert_eq!(tasks("tr(OTHER,{pk(KEY),pk(SECOND)})"), 2);
    assert_eq!(tasks("wsh(multi(1,KEY,SECOND,OTHER))"), 2);
}

#[test]
fn taproot_signs_all_by_name_where_the_psbt_asks_for_it() {
    for name in ["seed p2tr key path", "seed p2tr script path"] {
        let site = every_site().remove(name).unwrap();
        let mut psbt = site.psbt(&Spend::usual());
        let by_default = site.analyze(&psbt).unwrap();
        for input in &mut psbt.inputs {
            input.sighash_type = Some(PsbtSighashType::from(TapSighashType::All));
        }
        let by_name = site.analyze(&psbt).unwrap();
        assert!(by_default.tasks().iter().all(|t| t.sighash_byte.is_none()));
        assert!(by_name.tasks().iter().all(|t| t.sighash_byte == Some(1)));
        assert_ne!(by_default.tasks()[0].digest, by_name.tasks()[0].digest);
        site.finish(&psbt, &by_name);
    }
}

#[test]
fn p2tr_needs_no_previous_transactions_since_every_signature_commits_to_all_amounts() {
    for name in ["seed p2tr key path", "seed p2tr script path"] {
        let site = every_site().remove(name).unwrap();
        let mut psbt = site.psbt(&Spend::usual());
        let proven = site.analyze(&psbt).unwrap();
        for input in &mut psbt.inputs {
            input.non_witness_utxo = None;
        }
        let committed = site.analyze(&psbt).unwrap();
        assert_eq!(committed.tasks(), proven.tasks());
        // A lie about an amount changes every digest, so that no signature is good for the chain.
        psbt.inputs[1].witness_utxo.as_mut().unwrap().value += bitcoin::Amount::ONE_SAT;
        let lied = site.analyze(&psbt).unwrap();
        assert!(lied.tasks().iter().zip(proven.tasks()).all(|(a, b)| a.digest != b.digest));
    }
}

#[test]
fn nothing_in_the_psbt_but_the_transactions_is_needed() {
    for (name, site) in every_site() {
        let spend = spend_of(&site);
        let full = site.psbt(&spend);
        let mut bare = bitcoin::Psbt::from_unsigned_tx(full.unsigned_tx.clone()).unwrap();
        for (bare, full) in bare.inputs.iter_mut().zip(&full.inputs) {
            bare.non_witness_utxo = full.non_witness_utxo.clone();
        }
        let (full, bare) = (site.analyze(&full).unwrap(), site.analyze(&bare).unwrap());
        assert_eq!(full.tasks(), bare.tasks(), "{name}");
        assert_eq!(full.change(), bare.change(), "{name}");
        assert_eq!(full.outflow_sat(), bare.outflow_sat(), "{name}");
    }
}

#[test]
fn digests_are_over_our_scripts() {
    for (name, site) in every_site() {
        let plan = site.analyze(&site.psbt(&spend_of(&site))).unwrap();
        for input in plan.inputs() {
            let own = site.wallet.at(input.position).unwrap();
            assert_eq!(own.script_pubkey, site.descriptor(input.position).script_pubkey(), "{name}");
            if let SpendScript::P2wsh { witness_script } = &own.spend {
                assert_eq!(witness_script, &site.descriptor(input.position).explicit_script().unwrap(), "{name}");
            }
        }
    }
}
