//! What somebody who took over the gate would try against the limits, one by one, on real PSBTs.

use std::sync::Arc;

use bitcoin::{ScriptBuf, WPubkeyHash, hashes::Hash as _};
use postern_protocol::refusal::{Refusal, RefusalCode};
use postern_signer::{
    anchor::NoAnchor,
    clock::Uptime,
    ledger::{Charged, Ledger, LedgerOptions},
};
use postern_testkit::spend::{Coin, Output};
use tempfile::TempDir;

use crate::{
    machine::policy,
    model::Limits,
    observer::{Grant, Rate, most_that_can_leave},
    site::{COIN_SAT, SITE, Spend},
};

struct Signer {
    ledger: Ledger,
    granted: Vec<Grant>,
    _folder: TempDir,
}

impl Signer {
    fn new(signer: Limits) -> Self {
        let folder = crate::machine::folder();
        Ledger::create(folder.path()).unwrap();
        let rules = policy(&[signer, Limits::default(), Limits::default()]);
        let options = LedgerOptions { folder: folder.path().into(), rules, lease_sat: None, policy_hash: "00".into() };
        Self { ledger: Ledger::open(options, Box::new(NoAnchor)).unwrap(), granted: vec![], _folder: folder }
    }

    /// What the hot wallet is charged for it.
    fn charge(&mut self, spend: Spend) -> Result<u64, Refusal> {
        let plan = SITE.plan(&spend, 0)?;
        let transaction = SITE.transaction(&spend, 0, &plan);
        let charged: Charged = self.ledger.charge(Arc::clone(&plan), Uptime::default())?;
        self.granted.push(Grant { transaction: transaction.id, wallet: 0, spends: spend.coins, outflow_sat: transaction.outflow_sat });
        Ok(charged.increase_sat())
    }

    fn most(&self) -> u64 {
        most_that_can_leave(&self.granted)
    }
}

fn total(sat: u64) -> Limits {
    Limits { rates: vec![], total_sat: Some(sat) }
}

/// Pays so much from these coins of the hot wallet, of it 200 sat as the fee.
fn pay(coins: u32, sat: u64) -> Spend {
    Spend { coins, from_sat: [sat, 0], fee_sat: 200, payee: 1, second_sat: 0 }
}

#[test]
fn a_loop_of_transfers_to_oneself_drains_fees_only_within_the_limits() {
    let rates = vec![Rate { amount_sat: 1, per_ms: 1_000, burst_sat: 2_000 }];
    let signer = Signer::new(Limits { rates, total_sat: None });
    let (mut coin, mut left_sat, mut drained_sat) = (SITE.coin(0), COIN_SAT, 0);
    // Each spends what the one before returned: nothing is ever paid to anybody, and all of it could end as fees.
    loop {
        let back_sat = left_sat - 300;
        let psbt = SITE.psbt(&[coin], &[Output::Own(Box::new(SITE.change(0)), back_sat)]);
        let plan = SITE.analyze(0, &psbt).unwrap();
        match signer.ledger.charge(Arc::clone(&plan), Uptime::default()) {
            Ok(charged) => {
                assert_eq!(charged.increase_sat(), 300);
                drained_sat += 300;
                coin = Coin::new(plan.transaction(), 0, SITE.change(0));
                left_sat = back_sat;
            }
            Err(refusal) => {
                assert_eq!(refusal.code, RefusalCode::RateWait);
                break;
            }
        }
    }
    assert_eq!(drained_sat, 1_800);
}

#[test]
fn what_costs_nothing_is_not_signed_or_is_charged_what_an_entry_costs() {
    let mut signer = Signer::new(total(1_000));
    // All of it returns: it could be asked for without end, and each time the ledger would grow.
    let psbt = SITE.psbt(&[SITE.coin(0)], &[Output::Own(Box::new(SITE.change(0)), COIN_SAT)]);
    assert_eq!(SITE.analyze(0, &psbt).unwrap_err().code, RefusalCode::FeeTooLow);
    // Somebody else pays the fee, and ours returns whole.
    let shared = |fee_sat| Spend { coins: 0b1001, from_sat: [0, 5_000], fee_sat, payee: 1, second_sat: 0 };
    let charged: u64 = (0..20).map(|n| signer.charge(shared(500 + n)).unwrap()).sum();
    assert!((20 * 10..=20 * 30).contains(&charged), "{charged}");
    assert_eq!(signer.most(), 0);
}

#[test]
fn in_a_chain_of_bumps_the_one_that_excludes_the_first_no_longer_is_charged_in_full() {
    let mut signer = Signer::new(total(12_000));
    assert_eq!(signer.charge(pay(0b001, 5_000)).unwrap(), 5_000);
    assert_eq!(signer.charge(pay(0b011, 5_100)).unwrap(), 100, "a bump with one more coin");
    // It bumps the bump and lets the first one go.
    assert_eq!(signer.charge(pay(0b010, 5_200)).unwrap(), 5_200);
    assert_eq!(signer.most(), 10_200);
    assert_eq!(signer.charge(pay(0b100, 2_000)).unwrap_err().code, RefusalCode::TotalReached);
}

#[test]
fn a_bump_that_pays_somebody_else_is_no_new_money() {
    let mut signer = Signer::new(total(5_000));
    assert_eq!(signer.charge(pay(0b011, 5_000)).unwrap(), 5_000);
    assert_eq!(signer.charge(Spend { payee: 2, ..pay(0b011, 5_000) }).unwrap(), 0);
    assert_eq!(signer.most(), 5_000, "one of them can confirm");
}

#[test]
fn a_payment_that_is_added_to_a_bump_is_charged() {
    let mut signer = Signer::new(total(6_000));
    assert_eq!(signer.charge(pay(0b011, 5_000)).unwrap(), 5_000);
    assert_eq!(signer.charge(Spend { second_sat: 900, ..pay(0b011, 5_900) }).unwrap(), 900);
    assert_eq!(signer.charge(Spend { second_sat: 1_000, ..pay(0b011, 6_001) }).unwrap_err().code, RefusalCode::TotalReached);
    assert_eq!(signer.most(), 5_900);
}

#[test]
fn an_address_of_ones_own_that_is_no_change_address_is_a_payment() {
    let signer = Signer::new(total(5_000));
    let psbt = SITE.psbt(&[SITE.coin(0)], &[Output::Own(Box::new(SITE.receive(1)), COIN_SAT - 300)]);
    let plan = SITE.analyze(0, &psbt).unwrap();
    assert_eq!(plan.outflow_sat(), COIN_SAT);
    assert_eq!(signer.ledger.charge(plan, Uptime::default()).unwrap_err().code, RefusalCode::TotalReached);
}

#[test]
fn what_goes_to_nobody_but_the_miner_is_charged() {
    let signer = Signer::new(total(COIN_SAT));
    let nobody = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([1; 20]));
    let psbt = SITE.psbt(&[SITE.coin(0)], &[Output::Pay(nobody, 330)]);
    assert_eq!(signer.ledger.charge(SITE.analyze(0, &psbt).unwrap(), Uptime::default()).unwrap().increase_sat(), COIN_SAT);
}
