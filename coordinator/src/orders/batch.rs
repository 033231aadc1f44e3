//! From approved orders to a spend family with its first transaction.

use super::{approval, fee_rate, spendable};
use crate::{
    app::{App, Step, StepError, WalletEntry},
    config::FeeRate,
    draft::{self, Draft, DraftError, Payment, SelectionError},
    store::{BlockRef, Blocked, BlockedKind, Coin, NewFamily, Order, OrderFilter, OrderState, OwnScript},
};

/// Payments on their way after which change waits for a block.
const CHAIN_MAX: usize = 20;

/// Makes at most one batch. True: made.
pub(super) async fn make(app: &App, name: &str, entry: &WalletEntry, tip: BlockRef, now: i64) -> Step<bool> {
    let table = &entry.table.batch;
    let filter = OrderFilter {
        wallet: Some(name.to_owned()),
        state: Some(OrderState::Approved),
        limit: table.max_orders.saturating_mul(4),
        ..OrderFilter::default()
    };
    let approved = untampered(app, app.store.orders(filter).await?, now).await?;
    let full = approved.len() >= usize::try_from(table.max_orders).unwrap_or(usize::MAX);
    let oldest = approved.iter().filter_map(|o| o.approved_at).min();
    let ripe = oldest.is_some_and(|at| at.saturating_add(table.wait.ms()) <= now);
    if approved.is_empty() || !(full || ripe) {
        return Ok(false);
    }
    let Some(change) = app.store.next_change(name, entry.wallet.change_branch()).await?.or(single_change(entry)?) else {
        let blocked = Blocked::new(BlockedKind::Wait, "change.none", "no unused change address is known; a pool's come from its signer");
        app.store.block_approved(name, Some(&blocked), now).await?;
        return Ok(false);
    };
    let rate = match fee_rate(app, entry).await {
        Ok(rate) => rate,
        Err(e) => {
            let blocked = Blocked::new(BlockedKind::Node, "node.unavailable", e.to_string());
            app.store.block_approved(name, Some(&blocked), now).await?;
            return Err(e);
        }
    };
    let all = app.store.free_coins(name).await?;
    let long = chain_is_long(app, name).await?;
    let may = |coin: &Coin| spendable(entry, coin, tip) && (coin.height.is_some() || !long);
    let (free, early): (Vec<Coin>, Vec<Coin>) = all.into_iter().partition(may);

    let wanted: Vec<Payment> = within_limits(entry, &approved);
    let (payments, coins) = match fitting(entry, &free, &wanted, &change, rate) {
        Ok(found) => found,
        Err(missing_sat) => {
            app.store.block_approved(name, Some(&no_funds(missing_sat, &early)), now).await?;
            return Ok(false);
        }
    };
    commit(app, name, entry, &payments, &coins, &change, rate, now).await
}

/// The mempool takes 25 transactions of which each spends the one before.
async fn chain_is_long(app: &App, name: &str) -> Step<bool> {
    Ok(app.store.open_families().await?.iter().filter(|f| f.wallet == name).count() >= CHAIN_MAX)
}

/// A wallet with one address gets its change back there.
fn single_change(entry: &WalletEntry) -> Step<Option<OwnScript>> {
    if entry.wallet.is_single() { Ok(Some(entry.wallet.script(crate::wallet::RECEIVE, 0, None)?)) } else { Ok(None) }
}

fn no_funds(missing_sat: u64, early: &[Coin]) -> Blocked {
    let waiting = early.iter().fold(0_u64, |sum, c| sum.saturating_add(c.value_sat));
    let text = |sat| postern_protocol::units::format_amount_sat(sat);
    let message = format!("{} are missing; {} wait for confirmations", text(missing_sat), text(waiting));
    Blocked::new(BlockedKind::Funds, "funds.insufficient", message)
}

/// Leaves out, and fails, orders that are not what was approved.
async fn untampered(app: &App, orders: Vec<Order>, now: i64) -> Step<Vec<Order>> {
    let network = app.config.coordinator.network;
    let mut good = Vec::new();
    for order in orders {
        if approval::holds(network, &order) {
            good.push(order);
        } else {
            tracing::error!(order = order.id, "the order in the database is not the one that was approved: it is not paid");
            app.store.fail_tampered(&order.id, now).await?;
        }
    }
    Ok(good)
}

/// The oldest orders, up to the batch's number and amount; the oldest one whatever its amount.
fn within_limits(entry: &WalletEntry, orders: &[Order]) -> Vec<Payment> {
    let table = &entry.table.batch;
    let max_sat = table.max_amount.map_or(u64::MAX, |amount| amount.0);
    let mut sum = 0_u64;
    let mut payments = Vec::new();
    for order in orders {
        let with = sum.saturating_add(order.amount_sat);
        if payments.len() >= usize::try_from(table.max_orders).unwrap_or(usize::MAX) {
            break;
        }
        if payments.is_empty() || with <= max_sat {
            sum = with;
            payments.push(Payment { order: order.id.clone(), script: order.script.clone(), amount_sat: order.amount_sat });
        }
    }
    payments
}

/// As many payments as the coins reach for, oldest first; how much is missing for the first one when for none.
fn fitting(
    entry: &WalletEntry,
    free: &[Coin],
    wanted: &[Payment],
    change: &OwnScript,
    rate: FeeRate,
) -> Result<(Vec<Payment>, Vec<Coin>), u64> {
    let select = |payments: &[Payment]| draft::select(&entry.wallet, free, payments, change, rate);
    let missing = match select(wanted) {
        Ok(selected) => return Ok((wanted.to_vec(), selected.coins)),
        Err(SelectionError::Short { missing_sat }) => missing_sat,
        Err(SelectionError::Overflow) => u64::MAX,
    };
    let mut best: Option<(Vec<Payment>, Vec<Coin>)> = None;
    for payment in wanted {
        let mut with = best.as_ref().map(|(payments, _)| payments.clone()).unwrap_or_default();
        with.push(payment.clone());
        if let Ok(selected) = select(&with) {
            best = Some((with, selected.coins));
        }
    }
    best.ok_or(missing)
}

#[expect(clippy::too_many_arguments, reason = "each part of a batch, once")]
async fn commit(
    app: &App,
    name: &str,
    entry: &WalletEntry,
    payments: &[Payment],
    coins: &[Coin],
    change: &OwnScript,
    rate: FeeRate,
    now: i64,
) -> Step<bool> {
    let draft = Draft { wallet: &entry.wallet, coins, payments, change, rate, min_fee_sat: 0 };
    let assembled = match draft::assemble(&draft) {
        Ok(assembled) => assembled,
        Err(DraftError::Wallet(e)) => return Err(StepError::Wallet(e)),
        Err(e) => {
            tracing::error!(wallet = name, "no transaction can be made: {e}");
            let blocked = Blocked::new(BlockedKind::Needs, "draft.impossible", e.to_string());
            app.store.block_approved(name, Some(&blocked), now).await?;
            return Ok(false);
        }
    };
    let Some(anchor) = coins.first().map(|c| c.outpoint) else { return Ok(false) };
    let (fee_sat, orders) = (assembled.fee_sat, assembled.pays.len());
    let family = NewFamily {
        wallet: name.to_owned(),
        anchor,
        coins: coins.iter().map(|c| c.outpoint).collect(),
        change: (change.branch, change.index),
        member: assembled.into_member(now),
        at: now,
    };
    match app.store.commit_batch(family).await? {
        Some(id) => {
            tracing::info!(wallet = name, family = id, orders, fee_sat, "batched");
            Ok(true)
        }
        // An order was cancelled or a coin taken meanwhile.
        None => Ok(false),
    }
}
