//! Orders: the approval rule, and batches. A batch is one durable step: coins reserved, orders bound, transaction kept, or nothing.

pub mod approval;
mod batch;

use std::sync::Arc;

use crate::{
    app::{App, Step, WalletEntry},
    attestation,
    component::Progress,
    config::FeeRate,
    store::{BlockRef, Coin, OrderFilter, OrderState},
};

/// New orders looked at in one step.
const NEW_ORDERS: u32 = 200;
/// Blocks until a coinbase may be spent.
const COINBASE_MATURITY: u32 = 100;

/// Decides new orders and makes batches.
///
/// # Errors
/// [`crate::app::StepError`].
pub async fn step(app: &Arc<App>, now: i64) -> Step<Progress> {
    let mut progress = decide(app, now).await?;
    let stops = app.store.stops().await?;
    let Some(tip) = app.store.tip().await? else { return Ok(progress) };
    let held = attestation::all_held(app, now).await?;
    for (name, entry) in &app.wallets {
        if let Some(stop) = stops.iter().find(|s| s.wallet == *name) {
            app.store.block_approved(name, Some(&crate::sender::stopped(stop)), now).await?;
            continue;
        }
        // Nothing is bound to coins and a fee before somebody can sign it.
        if let Some(blocked) = attestation::too_few(entry, &held) {
            app.store.block_approved(name, Some(&blocked), now).await?;
            continue;
        }
        if batch::make(app, name, entry, tip, now).await? {
            app.work.notify_waiters();
            progress = Progress::More;
        }
    }
    Ok(progress)
}

async fn decide(app: &App, now: i64) -> Step<Progress> {
    let filter = OrderFilter { state: Some(OrderState::Created), limit: NEW_ORDERS, ..OrderFilter::default() };
    let new = app.store.orders(filter).await?;
    for order in &new {
        // The wallet left the configuration: nobody approves by rule what nobody pays.
        let Some(entry) = app.wallets.get(&order.wallet) else { continue };
        if let Some(state) = app.store.decide_order(&order.id, approval::rule(&entry.table.approval, now), now).await? {
            tracing::info!(order = order.id, state = state.as_str(), "decided");
        }
    }
    Ok(if new.len() >= usize::try_from(NEW_ORDERS).unwrap_or(usize::MAX) { Progress::More } else { Progress::Idle })
}

/// The rate for now: the node's estimate within what the wallet allows.
///
/// # Errors
/// [`crate::app::StepError`] when the node does not answer.
pub async fn fee_rate(app: &App, entry: &WalletEntry) -> Step<FeeRate> {
    let fee = &entry.table.fee;
    let rate = app.node.fee_rate(fee.target).await?.unwrap_or(fee.fallback_rate);
    Ok(rate.clamp(fee.min_rate, fee.max_rate))
}

/// Whether a coin may be spent now. Change in no block yet may be, where nothing of ours can replace the transaction that made it.
#[must_use]
pub fn spendable(entry: &WalletEntry, coin: &Coin, tip: BlockRef) -> bool {
    let Some(height) = coin.height else {
        return entry.table.spend_unconfirmed_change && coin.sole_parent && entry.wallet.shape().min_age == 0;
    };
    let confirmations = tip.height.saturating_sub(height).saturating_add(1);
    let shape = entry.wallet.shape();
    // Change is of our own making: it can vanish only with the payment that made it.
    let enough = if coin.own_change { 1 } else { entry.table.deposit_confirmations };
    let lock_height = match shape.lock_time {
        bitcoin::absolute::LockTime::Blocks(height) => height.to_consensus_u32(),
        bitcoin::absolute::LockTime::Seconds(_) => u32::MAX,
    };
    confirmations >= enough
        && confirmations >= shape.min_age
        && tip.height >= lock_height
        && (!coin.coinbase || confirmations >= COINBASE_MATURITY)
}

#[cfg(test)]
mod tests;
