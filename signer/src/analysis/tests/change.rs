//! What counts as change, and what only pretends to.

use bitcoin::{
    Psbt,
    bip32::{DerivationPath, Fingerprint},
};
use postern_protocol::refusal::RefusalCode::{ChangeBeyondGap, ChangeClaimFalse};

use super::site::{COIN_SAT, GAP, Out, Site, Spend, account, change, every_site, public, receive, somebody};
use crate::wallet::WalletKind;

fn pays_and_returns(own: Out) -> Spend {
    Spend::one(vec![Out::Pay(somebody(), 500_000), own])
}

#[test]
fn an_own_output_on_the_receive_branch_is_charged() {
    for (name, site) in every_site() {
        if site.wallet.branches() == 1 {
            continue;
        }
        let plan = site.analyze(&site.psbt(&pays_and_returns(Out::Own(receive(5), 498_000)))).unwrap();
        assert_eq!((plan.change().len(), plan.payments().len()), (0, 2), "{name}");
        assert_eq!(plan.outflow_sat(), COIN_SAT, "{name}");
    }
}

#[test]
fn change_is_known_up_to_the_last_used_index_plus_the_gap() {
    for (name, site) in every_site() {
        if site.wallet.branches() == 1 {
            continue;
        }
        let back_to = |index| site.analyze(&site.psbt(&pays_and_returns(Out::Own(change(index), 498_000))));
        assert_eq!(back_to(GAP - 1).unwrap().outflow_sat(), 502_000, "{name}");
        assert_eq!(back_to(GAP).unwrap_err().code, ChangeBeyondGap, "{name}");
        site.wallet.note_used(change(GAP - 1));
        assert_eq!(site.wallet.end(1), 2 * GAP, "{name}");
        assert_eq!(back_to(2 * GAP - 1).unwrap().change()[0].position, change(2 * GAP - 1), "{name}");
        let refusal = back_to(2 * GAP).unwrap_err();
        assert_eq!(refusal.code, ChangeBeyondGap, "{name}");
        assert!(refusal.message.unwrap().contains("output 1 returns to 1/40"), "{name}");
    }
}

#[test]
fn change_past_the_gap_that_does_not_say_so_is_charged_as_a_payment() {
    let site = Site::hot();
    let mut psbt = site.psbt(&pays_and_returns(Out::Own(change(GAP), 498_000)));
    psbt.outputs[1].bip32_derivation.clear();
    let plan = site.analyze(&psbt).unwrap();
    assert_eq!((plan.change().len(), plan.outflow_sat()), (0, COIN_SAT));
}

#[test]
fn a_receive_address_past_the_gap_is_a_payment_when_its_origin_is_true() {
    for (name, site) in every_site() {
        if site.wallet.branches() == 1 {
            continue;
        }
        let plan = site.analyze(&site.psbt(&pays_and_returns(Out::Own(receive(GAP + 4), 498_000)))).unwrap();
        assert_eq!((plan.payments().len(), plan.outflow_sat()), (2, COIN_SAT), "{name}");
    }
}

/// A payment whose fields are those of our own change.
fn dressed_up(site: &Site) -> Psbt {
    let own = if site.wallet.branches() == 1 { receive(0) } else { change(2) };
    let mut psbt = site.psbt(&pays_and_returns(Out::Own(own, 498_000)));
    psbt.outputs[0] = psbt.outputs[1].clone();
    psbt
}

#[test]
fn anothers_script_with_our_origin_is_fraud_in_every_kind_of_wallet() {
    for (name, site) in every_site() {
        if site.wallet.branches() == 1 {
            // The only key of a single address stands in origins only when somebody writes it there.
            let mut psbt = dressed_up(&site);
            psbt.outputs[0].bip32_derivation.insert(public("hsm").inner, (Fingerprint::default(), DerivationPath::master()));
            assert_eq!(site.analyze(&psbt).unwrap_err().code, ChangeClaimFalse, "{name}");
            continue;
        }
        let refusal = site.analyze(&dressed_up(&site)).unwrap_err();
        assert_eq!(refusal.code, ChangeClaimFalse, "{name}");
        assert!(refusal.message.unwrap().contains("output 0"), "{name}");
    }
}

#[test]
fn anothers_script_with_an_origin_that_leads_nowhere_is_fraud() {
    let site = Site::hot();
    let ours = account("seed", "84'/1'/0'").fingerprint;
    for path in
        ["m", "m/84'/1'/0'", "m/84'/1'/0'/2/0", "m/84'/1'/0'/0/0/0", "m/84'/1'/0'/1/3'", "m/84'/1'/9'/0/0", "m/84'/1'/0'/1/2147483647"]
    {
        let mut psbt = site.psbt(&Spend::usual());
        psbt.outputs[0].bip32_derivation.insert(public("k").inner, (ours, path.parse().unwrap()));
        assert_eq!(site.analyze(&psbt).unwrap_err().code, ChangeClaimFalse, "{path}");
        let mut psbt = site.psbt(&Spend::usual());
        psbt.outputs[0].tap_key_origins.insert(public("k").into(), (vec![], (ours, path.parse().unwrap())));
        assert_eq!(site.analyze(&psbt).unwrap_err().code, ChangeClaimFalse, "{path}, Taproot");
    }
}

#[test]
fn an_origin_of_somebody_else_claims_nothing() {
    let site = Site::hot();
    let mut psbt = site.psbt(&Spend::usual());
    let theirs = account("somebody", "84'/1'/0'").fingerprint;
    psbt.outputs[0].bip32_derivation.insert(public("k").inner, (theirs, "m/84'/1'/0'/1/0".parse().unwrap()));
    assert_eq!(site.analyze(&psbt).unwrap().payments().len(), 1);
    // A cosigner who pays himself claims nothing of ours either.
    let site = Site::seed("wsh(sortedmulti(2,KEY,OTHER))");
    let mut psbt = site.psbt(&Spend::usual());
    let cosigner = account("cosigner", "48'/1'/0'").fingerprint;
    psbt.outputs[0].bip32_derivation.insert(public("k").inner, (cosigner, "m/48'/1'/0'/1/0".parse().unwrap()));
    assert_eq!(site.analyze(&psbt).unwrap().payments().len(), 1);
}

#[test]
fn a_false_path_on_an_output_that_is_ours_decides_nothing() {
    let site = Site::hot();
    let mut psbt = site.psbt(&pays_and_returns(Out::Own(receive(5), 498_000)));
    for origin in psbt.outputs[1].bip32_derivation.values_mut() {
        origin.1 = "m/84'/1'/0'/1/5".parse().unwrap();
    }
    assert_eq!(site.analyze(&psbt).unwrap().outflow_sat(), COIN_SAT);
}

#[test]
fn a_cosigners_false_origin_does_not_hide_where_our_key_is() {
    let site = Site::seed("wsh(sortedmulti(2,KEY,OTHER))");
    let cosigner = account("cosigner", "48'/1'/0'").fingerprint;
    let mut psbt = site.psbt(&pays_and_returns(Out::Own(change(GAP), 498_000)));
    for (fingerprint, path) in psbt.outputs[1].bip32_derivation.values_mut() {
        if *fingerprint == cosigner {
            *path = "m/48'/1'/0'/0/3".parse().unwrap();
        }
    }
    assert_eq!(site.analyze(&psbt).unwrap_err().code, ChangeBeyondGap);
}

#[test]
fn positions_past_the_gap_are_not_derived_without_end() {
    let site = Site::hot();
    let outputs = |count: u32| Spend::one((0..count).map(|n| Out::Own(receive(GAP + n), 1_000)).collect());
    assert_eq!(site.analyze(&site.psbt(&outputs(64))).unwrap().payments().len(), 64);
    assert_eq!(site.analyze(&site.psbt(&outputs(65))).unwrap_err().code, ChangeBeyondGap);
}

#[test]
fn with_foreign_inputs_only_what_we_lose_is_charged_and_never_less_than_nothing() {
    let site = Site::hot().rules(|r| r.allow_foreign_inputs = true);
    let other = Site::hsm("wpkh(KEY)");
    let theirs = other.psbt(&Spend { coins: vec![(receive(0), 5 * COIN_SAT)], outputs: vec![] });
    let with = |returns: u64| {
        let mut psbt = site.psbt(&Spend {
            coins: vec![(receive(0), COIN_SAT), (receive(1), COIN_SAT)],
            outputs: vec![Out::Own(change(0), returns), Out::Pay(somebody(), 1_000)],
        });
        psbt.unsigned_tx.input[1] = theirs.unsigned_tx.input[0].clone();
        psbt.inputs[1] = theirs.inputs[0].clone();
        site.analyze(&psbt).unwrap()
    };
    let plan = with(400_000);
    assert_eq!((plan.outflow_sat(), plan.fee_sat(), plan.inputs().len()), (600_000, 5_599_000, 1));
    assert!(plan.tasks().iter().all(|task| task.input == 0));
    assert_eq!(with(COIN_SAT).outflow_sat(), 0);
    assert_eq!(with(3 * COIN_SAT).outflow_sat(), 0);
}

#[test]
fn an_input_of_another_wallet_with_our_key_is_anothers() {
    let site = Site::hot().rules(|r| r.allow_foreign_inputs = true);
    // Its origin names our key and a position of ours, where another script stands.
    let plan = site.analyze(&site.joint(&Site::seed("sh(wpkh(KEY))"))).unwrap();
    assert_eq!((plan.inputs().len(), plan.outflow_sat()), (1, COIN_SAT - 498_000));
}

#[test]
fn pool_keys_are_recognised_as_they_become_known() {
    let wallet = crate::wallet::Wallet::new("p", bitcoin::Network::Regtest, "wpkh(pool)", GAP, crate::keystore::BoundKeys::Pool).unwrap();
    assert_eq!(wallet.kind(), WalletKind::Pool);
    let keys: Vec<_> = (0..60).map(|n| public(&format!("p{n}"))).collect();
    assert_eq!(wallet.end(0), 0);
    wallet.add_pool_keys(0, 0, &keys[..15]).unwrap();
    assert_eq!((wallet.end(0), wallet.end(1), wallet.pool_keys_known(0)), (15, 0, 15));
    wallet.add_pool_keys(0, 10, &keys[10..60]).unwrap();
    assert_eq!((wallet.end(0), wallet.pool_keys_known(0)), (20, 60));
    wallet.note_used(receive(12));
    assert_eq!(wallet.end(0), 33);
    wallet.note_used(receive(59));
    assert_eq!(wallet.end(0), 60);
    let own = wallet.at(receive(59)).unwrap();
    assert_eq!(wallet.find(&own.script_pubkey).unwrap().position, receive(59));
    // A pool that suddenly has other keys, a hole, or the same key twice, is not believed.
    assert!(wallet.add_pool_keys(0, 59, &[public("other")]).is_err());
    assert!(wallet.add_pool_keys(0, 61, &[public("other")]).is_err());
    assert!(wallet.add_pool_keys(1, 0, &keys[..1]).is_err());
    assert!(wallet.add_pool_keys(2, 0, &keys[..1]).is_err());
    assert_eq!(wallet.pool_keys_known(0), 60);
}
