//! Which coins pay. `bdk_coin_select` proposes, exact arithmetic decides.

use bdk_coin_select::{
    Candidate, ChangePolicy, CoinSelector, DrainWeights, FeeRate as SelectRate, Target, TargetFee, TargetOutputs, metrics::LowestFee,
};
use bitcoin::{Amount, TxOut};

use super::{Draft, DraftError, INPUT_WU, Payment, settle};
use crate::{
    config::FeeRate,
    store::{Coin, OwnScript},
    wallet::Wallet,
};

/// Most inputs of one transaction.
const INPUTS_MAX: usize = 300;
/// Steps of the search before the largest coins are taken instead.
const ROUNDS: usize = 20_000;

/// The coins of a transaction; the first is the family's anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// What it spends.
    pub coins: Vec<Coin>,
}

/// Why no coins can pay.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// There is not enough.
    #[error("{missing_sat} sat are missing")]
    Short {
        /// How much is missing.
        missing_sat: u64,
    },
    /// Sums over all bitcoin there will be.
    #[error("the amounts overflow")]
    Overflow,
}

fn candidate(wallet: &Wallet, coin: &Coin) -> Candidate {
    let shape = wallet.shape();
    Candidate { value: coin.value_sat, weight: INPUT_WU.saturating_add(shape.satisfaction_wu), input_count: 1, is_segwit: shape.segwit }
}

/// Whether these coins pay, fee included.
fn reaches(
    wallet: &Wallet,
    coins: &[Coin],
    payments: &[Payment],
    change: &OwnScript,
    rate: FeeRate,
) -> Result<Option<u64>, SelectionError> {
    match settle(&Draft { wallet, coins, payments, change, rate, min_fee_sat: 0 }) {
        Ok(_) => Ok(None),
        Err(DraftError::Short { missing_sat }) => Ok(Some(missing_sat)),
        Err(_) => Err(SelectionError::Overflow),
    }
}

/// The cheapest coins that pay, as far as a short search finds them. A coin that is to be spent first is the anchor.
///
/// # Errors
/// [`SelectionError`].
pub fn select(wallet: &Wallet, free: &[Coin], payments: &[Payment], change: &OwnScript, rate: FeeRate) -> Result<Selected, SelectionError> {
    // What costs more than it is worth does not help.
    let input_wu = INPUT_WU.saturating_add(wallet.shape().satisfaction_wu).saturating_add(1);
    let mut coins: Vec<Coin> = free.iter().filter(|c| c.spend_first || c.value_sat > rate.fee_sat(input_wu)).cloned().collect();
    coins.sort_by(|a, b| b.spend_first.cmp(&a.spend_first).then(b.value_sat.cmp(&a.value_sat)).then(a.outpoint.cmp(&b.outpoint)));
    let first = coins.first().is_some_and(|c| c.spend_first);

    let chosen = propose(wallet, &coins, first, payments, change, rate)
        .filter(|chosen| chosen.len() <= INPUTS_MAX && matches!(reaches(wallet, chosen, payments, change, rate), Ok(None)));
    let chosen = match chosen {
        Some(chosen) => chosen,
        None => largest(wallet, &coins, payments, change, rate)?,
    };
    Ok(Selected { coins: chosen })
}

fn propose(wallet: &Wallet, coins: &[Coin], first: bool, payments: &[Payment], change: &OwnScript, rate: FeeRate) -> Option<Vec<Coin>> {
    let candidates: Vec<Candidate> = coins.iter().map(|c| candidate(wallet, c)).collect();
    let mut selector = CoinSelector::new(&candidates);
    if first {
        selector.select(0);
    }
    #[expect(clippy::cast_precision_loss, reason = "only a proposal; the fee is computed exactly afterwards")]
    let rate = SelectRate::from_sat_per_vb(rate.sat_per_kvb() as f32 / 1_000.0);
    let outputs = payments.iter().map(|p| {
        let output = TxOut { value: Amount::from_sat(p.amount_sat), script_pubkey: p.script.clone() };
        (output.weight().to_wu(), p.amount_sat)
    });
    let target = Target { fee: TargetFee::from_feerate(rate), outputs: TargetOutputs::fund_outputs(outputs) };
    let change_output = TxOut { value: Amount::ZERO, script_pubkey: change.script.clone() };
    let weights = DrainWeights {
        output_weight: change_output.weight().to_wu(),
        spend_weight: INPUT_WU.saturating_add(wallet.shape().satisfaction_wu),
        n_outputs: 1,
    };
    let change_policy = ChangePolicy::min_value(weights, change.script.minimal_non_dust().to_sat());
    selector.run_bnb(LowestFee { target, long_term_feerate: rate, change_policy }, ROUNDS).ok()?;
    let mut picked: Vec<usize> = selector.selected_indices().iter().copied().collect();
    picked.sort_unstable();
    picked.iter().map(|n| coins.get(*n).cloned()).collect::<Option<Vec<Coin>>>().filter(|p| !p.is_empty())
}

/// The largest coins first, until they reach.
fn largest(wallet: &Wallet, coins: &[Coin], payments: &[Payment], change: &OwnScript, rate: FeeRate) -> Result<Vec<Coin>, SelectionError> {
    let mut chosen = Vec::new();
    let mut missing = None;
    for coin in coins.iter().take(INPUTS_MAX) {
        chosen.push(coin.clone());
        match reaches(wallet, &chosen, payments, change, rate)? {
            None => return Ok(chosen),
            short => missing = short,
        }
    }
    let asked = payments.iter().fold(0_u64, |sum, p| sum.saturating_add(p.amount_sat));
    Err(SelectionError::Short { missing_sat: missing.unwrap_or(asked) })
}
