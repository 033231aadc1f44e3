#![allow(clippy::unwrap_used)]

use bitcoin::{Network, TxIn, absolute::LockTime, hashes::Hash as _};
use postern_protocol::{refusal::RefusalCode, reply::Signed};
use postern_signer::{analysis::analyze, keystore::BoundKeys, policy::rules::SpendRules, wallet::Wallet as SignerWallet};
use proptest::prelude::*;

use super::*;
use crate::{
    testing::{account, master, sign},
    wallet::{CHANGE, RECEIVE},
};

const RATE: FeeRate = FeeRate::from_sat_per_kvb(2_500);

fn wallet(descriptor: &str) -> Wallet {
    Wallet::new("hot", Network::Regtest, descriptor).unwrap()
}

fn coin(wallet: &Wallet, index: u32, value_sat: u64) -> Coin {
    let index_or_single = if wallet.is_single() { 0 } else { index };
    let own = wallet.script(RECEIVE, index_or_single, None).unwrap();
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(index),
        input: vec![TxIn { previous_output: OutPoint::new(Txid::from_byte_array([3; 32]), index), ..TxIn::default() }],
        output: vec![TxOut { value: Amount::from_sat(value_sat), script_pubkey: own.script }],
    };
    Coin {
        outpoint: OutPoint::new(transaction.compute_txid(), 0),
        branch: RECEIVE,
        index: index_or_single,
        value_sat,
        coinbase: false,
        height: Some(1),
        own_change: false,
        sole_parent: false,
        spend_first: false,
        public_key: None,
        transaction: encode::serialize(&transaction),
    }
}

fn payment(n: u8, amount_sat: u64) -> Payment {
    let script = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([n; 20]));
    Payment { order: format!("o{n}"), script, amount_sat }
}

fn change(wallet: &Wallet) -> OwnScript {
    wallet.script(wallet.change_branch(), 0, None).unwrap()
}

fn signer_wallet(descriptor: &str) -> SignerWallet {
    let accounts = SignerWallet::account_keys(descriptor).unwrap();
    SignerWallet::new("hot", Network::Regtest, descriptor, 100, BoundKeys::Seed { accounts: accounts[..1].to_vec() }).unwrap()
}

fn whole(wallet: &Wallet, coins: &[Coin], payments: &[Payment]) -> Assembled {
    let change = change(wallet);
    assemble(&Draft { wallet, coins, payments, change: &change, rate: RATE, min_fee_sat: 0 }).unwrap()
}

/// Every kind of script: descriptor, and the masters that have to sign.
fn kinds() -> Vec<(String, Vec<u8>)> {
    let key = |n| format!("{}/<0;1>/*", account(n));
    vec![
        (format!("pkh({})", key(1)), vec![1]),
        (format!("sh(wpkh({}))", key(1)), vec![1]),
        (format!("wpkh({})", key(1)), vec![1]),
        (format!("wsh(sortedmulti(2,{},{}))", key(1), key(2)), vec![1, 2]),
        (format!("wsh(sortedmulti(2,{},{},{}))", key(1), key(2), key(3)), vec![1, 3]),
        (format!("wsh(and_v(v:pk({}),older(10)))", key(1)), vec![1]),
        (format!("wsh(or_d(pk({}),and_v(v:pk({}),older(100))))", key(1), key(2)), vec![1]),
        (format!("tr({})", key(1)), vec![1]),
        (format!("tr({},pk({}))", key(1), key(2)), vec![1]),
    ]
}

#[test]
fn the_signer_proves_every_kind_of_transaction_to_be_what_it_was_made_to_be() {
    for (descriptor, _) in kinds() {
        let wallet = wallet(&descriptor);
        let coins = [coin(&wallet, 0, 100_000), coin(&wallet, 3, 50_000)];
        let payments = [payment(1, 20_000), payment(2, 70_000)];
        let made = whole(&wallet, &coins, &payments);
        let plan = analyze(&signer_wallet(&descriptor), &SpendRules::default(), &made.psbt.serialize());
        let plan = plan.unwrap_or_else(|refusal| panic!("{descriptor}: {refusal}"));
        assert_eq!(plan.fee_sat(), made.fee_sat, "{descriptor}");
        assert_eq!(plan.outflow_sat(), 90_000 + made.fee_sat, "{descriptor}");
        assert_eq!((plan.payments().len(), plan.change().len()), (2, 1), "{descriptor}");
        assert_eq!(plan.change()[0].position.branch, CHANGE);
    }
}

#[test]
fn signatures_make_every_kind_of_transaction_complete_within_its_weight() {
    for (descriptor, masters) in kinds() {
        let wallet = wallet(&descriptor);
        let coins = [coin(&wallet, 0, 100_000), coin(&wallet, 3, 50_000)];
        let payments = [payment(1, 20_000), payment(2, 70_000)];
        let made = whole(&wallet, &coins, &payments);
        let bytes = made.psbt.serialize();
        let mut all = Vec::new();
        for n in masters {
            assert!(finalise(&made.psbt, &all).unwrap().is_none(), "{descriptor}: complete before all have signed");
            let signed = sign(&bytes, &master(n));
            accept(&made.psbt, &signed).unwrap_or_else(|e| panic!("{descriptor}: {e}"));
            all.extend(signed.signatures);
        }
        let transaction = finalise(&made.psbt, &all).unwrap().unwrap_or_else(|| panic!("{descriptor}: not complete"));
        let weight = transaction.weight().to_wu();
        assert!(weight <= made.weight_wu, "{descriptor}: {weight} > {}", made.weight_wu);
        assert!(made.fee_sat >= RATE.fee_sat(weight), "{descriptor}");
        for (order, vout) in &made.pays {
            let payment = payments.iter().find(|p| p.order == *order).unwrap();
            let output = &transaction.output[*vout as usize];
            assert_eq!((output.value.to_sat(), &output.script_pubkey), (payment.amount_sat, &payment.script));
        }
    }
}

#[test]
fn a_signature_that_does_not_hold_is_not_believed() {
    for descriptor in [format!("wpkh({}/<0;1>/*)", account(1)), format!("tr({}/<0;1>/*)", account(1))] {
        let wallet = wallet(&descriptor);
        let made = whole(&wallet, &[coin(&wallet, 0, 100_000)], &[payment(1, 20_000)]);
        let other = whole(&wallet, &[coin(&wallet, 0, 100_000)], &[payment(1, 30_000)]);
        let good = sign(&made.psbt.serialize(), &master(1));
        accept(&made.psbt, &good).unwrap();

        let of_other = sign(&other.psbt.serialize(), &master(1));
        assert!(matches!(accept(&made.psbt, &of_other), Err(CombineError::Transaction)));
        let renamed = Signed { unsigned_txid: good.unsigned_txid, ..of_other };
        assert!(matches!(accept(&made.psbt, &renamed), Err(CombineError::Signature { .. })));
        assert!(matches!(accept(&made.psbt, &Signed { signatures: vec![], ..good.clone() }), Err(CombineError::Empty)));
        for byte in 0..good.signatures[0].signature.len() {
            let mut wrong = good.clone();
            wrong.signatures[0].signature[byte] ^= 1;
            assert!(accept(&made.psbt, &wrong).is_err(), "{descriptor}: byte {byte}");
        }
        for byte in 0..good.signatures[0].public_key.len() {
            let mut wrong = good.clone();
            wrong.signatures[0].public_key[byte] ^= 1;
            assert!(accept(&made.psbt, &wrong).is_err(), "{descriptor}: key byte {byte}");
        }
        let mut far = good.clone();
        far.signatures[0].input = u32::MAX;
        assert!(accept(&made.psbt, &far).is_err());
    }
}

#[test]
fn change_that_would_be_dust_goes_to_the_fee() {
    let wallet = wallet(&format!("wpkh({}/<0;1>/*)", account(1)));
    let coins = [coin(&wallet, 0, 20_600)];
    let made = whole(&wallet, &coins, &[payment(1, 20_000)]);
    assert_eq!(made.psbt.unsigned_tx.output.len(), 1);
    assert_eq!(made.fee_sat, 600);
}

#[test]
fn a_replacement_pays_the_same_from_the_same_coins_and_takes_its_fee_from_the_change() {
    let wallet = wallet(&format!("wpkh({}/<0;1>/*)", account(1)));
    let coins = [coin(&wallet, 0, 100_000)];
    let payments = [payment(1, 20_000)];
    let change = change(&wallet);
    let first = whole(&wallet, &coins, &payments);
    let min_fee_sat = replacement_fee_sat(first.fee_sat, first.weight_wu);
    let draft = Draft { wallet: &wallet, coins: &coins, payments: &payments, change: &change, rate: RATE, min_fee_sat };
    let second = assemble(&draft).unwrap();
    assert_eq!(second.fee_sat, min_fee_sat);
    assert_eq!(second.psbt.unsigned_tx.input, first.psbt.unsigned_tx.input);
    assert_eq!(second.psbt.unsigned_tx.output[0], first.psbt.unsigned_tx.output[0]);
    assert_eq!(
        first.psbt.unsigned_tx.output[1].value - second.psbt.unsigned_tx.output[1].value,
        Amount::from_sat(min_fee_sat - first.fee_sat)
    );
    let poor = [coin(&wallet, 0, 20_400)];
    let draft = Draft { coins: &poor, ..draft };
    assert!(matches!(assemble(&draft), Err(DraftError::Short { .. })));
}

#[test]
fn a_coin_whose_transaction_was_changed_in_the_database_is_not_spent() {
    let wallet = wallet(&format!("wpkh({}/<0;1>/*)", account(1)));
    let good = coin(&wallet, 0, 100_000);
    let change = change(&wallet);
    let payments = [payment(1, 20_000)];
    let attempt = |coin: Coin| {
        let coins = [coin];
        assemble(&Draft { wallet: &wallet, coins: &coins, payments: &payments, change: &change, rate: RATE, min_fee_sat: 0 }).map(|_| ())
    };
    attempt(good.clone()).unwrap();
    assert!(matches!(attempt(Coin { value_sat: 200_000, ..good.clone() }), Err(DraftError::Previous(_))));
    assert!(matches!(attempt(Coin { transaction: vec![1, 2], ..good.clone() }), Err(DraftError::Previous(_))));
    assert!(matches!(attempt(Coin { outpoint: OutPoint { vout: 1, ..good.outpoint }, ..good.clone() }), Err(DraftError::Previous(_))));
    assert!(matches!(attempt(Coin { index: 1, ..good }), Err(DraftError::Script(_))));
}

#[test]
fn the_coin_that_a_refused_family_left_is_the_anchor_of_the_next() {
    let wallet = wallet(&format!("wpkh({}/<0;1>/*)", account(1)));
    let small = Coin { spend_first: true, ..coin(&wallet, 7, 1_000) };
    let free = [coin(&wallet, 0, 1_000_000), small.clone(), coin(&wallet, 1, 500_000)];
    let chosen = select(&wallet, &free, &[payment(1, 20_000)], &change(&wallet), RATE).unwrap();
    assert_eq!(chosen.coins[0].outpoint, small.outpoint);
}

#[test]
fn the_signer_refuses_what_was_changed_on_the_way() {
    let descriptor = format!("wpkh({}/<0;1>/*)", account(1));
    let wallet = wallet(&descriptor);
    let made = whole(&wallet, &[coin(&wallet, 0, 100_000)], &[payment(1, 20_000)]);
    let mut psbt = made.psbt;
    psbt.inputs[0].witness_utxo.as_mut().unwrap().value = Amount::from_sat(1);
    let refusal = analyze(&signer_wallet(&descriptor), &SpendRules::default(), &psbt.serialize()).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::AmountConflict);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_selection_pays_exactly_or_says_that_it_cannot(
        values in proptest::collection::vec(300_u64..2_000_000, 0..25),
        amounts in proptest::collection::vec(600_u64..800_000, 1..8),
        rate in 1_000_u64..200_000,
    ) {
        let wallet = wallet(&format!("wpkh({}/<0;1>/*)", account(1)));
        let free: Vec<Coin> = values.iter().zip(0..).map(|(value, n)| coin(&wallet, n, *value)).collect();
        let payments: Vec<Payment> = amounts.iter().zip(0..).map(|(amount, n)| payment(n, *amount)).collect();
        let change = change(&wallet);
        let rate = FeeRate::from_sat_per_kvb(rate);
        match select(&wallet, &free, &payments, &change, rate) {
            Ok(chosen) => {
                let draft = Draft { wallet: &wallet, coins: &chosen.coins, payments: &payments, change: &change, rate, min_fee_sat: 0 };
                let made = assemble(&draft).unwrap();
                let worth: u64 = chosen.coins.iter().map(|c| c.value_sat).sum();
                let outputs: u64 = made.psbt.unsigned_tx.output.iter().map(|o| o.value.to_sat()).sum();
                prop_assert_eq!(worth, outputs + made.fee_sat);
                prop_assert!(made.fee_sat >= rate.fee_sat(made.weight_wu));
                prop_assert_eq!(crate::testing::distinct(chosen.coins.iter().map(|c| c.outpoint)), chosen.coins.len());
            }
            Err(SelectionError::Short { missing_sat }) => {
                prop_assert!(missing_sat > 0);
                // Not even all coins that are worth their own fee reach.
                let input_fee = rate.fee_sat(INPUT_WU + wallet.shape().satisfaction_wu + 1);
                let useful: u64 = values.iter().map(|v| v.saturating_sub(input_fee)).sum();
                prop_assert!(useful < amounts.iter().sum::<u64>() + rate.fee_sat(BASE_WU + 8 + 31 * 4 * u64::try_from(amounts.len()).unwrap()) + u64::try_from(values.len()).unwrap());
            }
            Err(SelectionError::Overflow) => prop_assert!(false),
        }
    }
}
