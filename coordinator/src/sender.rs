//! The sender: gets signatures, broadcasts, raises fees, and settles. Each step starts from what the store says and ends in the store, so
//! it can be interrupted anywhere and repeated.
//!
//! A family goes: built → asked → signed → broadcast → buried. From the moment a signer may have been asked, the family keeps its coins
//! and its orders until a transaction that spends its anchor is buried, whatever the signers answer.

mod ask;
mod broadcast;
mod bump;
mod refusal;
mod replies;
mod split;

use std::{collections::HashMap, sync::Arc};

use crate::{
    app::{App, Step, StepError, WalletEntry},
    attestation,
    component::Progress,
    draft::Payment,
    store::{AnchorSpent, BlockRef, Blocked, BlockedKind, Coin, Family, Member, MemberState, Order, WalletStop},
};

/// What a step knows while it works on one family.
struct Work<'a> {
    app: &'a App,
    entry: &'a WalletEntry,
    family: &'a Family,
    members: Vec<Member>,
    /// Signers that get no orders, and why.
    held: &'a HashMap<String, Blocked>,
    tip: BlockRef,
    now: i64,
}

/// How a stopped wallet shows.
#[must_use]
pub fn stopped(stop: &WalletStop) -> Blocked {
    let message = format!("{} — after looking into it: postern-coordinator wallet resume {}", stop.message, stop.wallet);
    Blocked::new(BlockedKind::Alarm, stop.code.clone(), message)
}

/// One round over all replies and open families.
///
/// # Errors
/// [`StepError`].
pub async fn step(app: &Arc<App>, now: i64) -> Step<Progress> {
    attestation::step(app, now).await?;
    let more = replies::apply(app, now).await?;
    let Some(tip) = app.store.tip().await? else { return Ok(Progress::Idle) };
    for family in app.store.reopen_families(now).await? {
        tracing::warn!(family, "the chain contradicts how this family ended: reopened");
    }
    let stops: HashMap<String, WalletStop> = app.store.stops().await?.into_iter().map(|s| (s.wallet.clone(), s)).collect();
    let held = attestation::all_held(app, now).await?;
    let mut failed = None;
    for family in app.store.open_families().await? {
        let Some(entry) = app.wallets.get(&family.wallet) else { continue };
        let members = app.store.members(family.id).await?;
        let work = Work { app, entry, family: &family, members, held: &held, tip, now };
        // One family's trouble does not hold up the others.
        if let Err(e) = work.step(stops.get(&family.wallet)).await {
            tracing::warn!(family = family.id, "{e}");
            failed = Some(e);
        }
    }
    match failed {
        Some(e) => Err(e),
        None => Ok(more),
    }
}

impl Work<'_> {
    async fn step(&self, stop: Option<&WalletStop>) -> Step<()> {
        let spent = self.app.store.anchor_spent(self.family.id).await?;
        if let AnchorSpent::Block { txid, height, member, family } = spent {
            return self.in_block(txid, height, member, family).await;
        }
        if let Some(stop) = stop {
            return Ok(self.app.store.block_family(self.family.id, Some(&stopped(stop)), self.now).await?);
        }
        let newest = self.members.iter().rev().find(|m| m.state != MemberState::Refused);
        match newest.map(|m| (m.state, m)) {
            None => self.split().await,
            Some((MemberState::Built | MemberState::Signing, member)) => {
                self.keep_alive(&spent).await?;
                self.ask(member).await
            }
            Some((MemberState::Signed, member)) => self.send(member).await,
            Some((MemberState::Broadcast, member)) => {
                self.keep_alive(&spent).await?;
                self.hold_others(member).await?;
                self.bump(member).await
            }
            Some((MemberState::Refused, _)) => Ok(()),
        }
    }

    /// A transaction in a block spends the anchor.
    async fn in_block(&self, txid: bitcoin::Txid, height: u32, member: Option<i64>, family: Option<i64>) -> Step<()> {
        let store = &self.app.store;
        let confirmations = self.tip.height.saturating_sub(height).saturating_add(1);
        let ours = family == Some(self.family.id);
        if ours {
            if let Some(member) = member {
                // It may have been brought there by others, before we knew it to be complete.
                store.confirmed_in_block(member, txid, height, self.now).await?;
            }
        } else {
            tracing::error!(family = self.family.id, %txid, height, "another transaction spends this family's anchor");
            let message = format!("transaction {txid} in block {height} spends its coins and is none of this payment's");
            let blocked = Blocked::new(BlockedKind::Alarm, "family.conflicted", message.clone());
            store.block_family(self.family.id, Some(&blocked), self.now).await?;
            store.stop_wallet(&self.family.wallet, "family.conflicted", &message, self.now).await?;
        }
        if confirmations >= self.entry.table.payment_confirmations {
            store.settle(self.family.id, member, self.now).await?;
            tracing::info!(family = self.family.id, %txid, confirmations, "settled");
        }
        Ok(())
    }

    fn member_psbt(member: &Member) -> Step<bitcoin::Psbt> {
        bitcoin::Psbt::deserialize(&member.psbt).map_err(|_| StepError::Member(member.id))
    }

    /// A member's coins in the order of its inputs.
    async fn coins_of(&self, member: &Member) -> Step<Vec<Coin>> {
        let psbt = Self::member_psbt(member)?;
        let mut coins: HashMap<_, _> =
            self.app.store.reserved_coins(self.family.id).await?.into_iter().map(|coin| (coin.outpoint, coin)).collect();
        psbt.unsigned_tx.input.iter().map(|input| coins.remove(&input.previous_output).ok_or(StepError::Member(member.id))).collect()
    }

    /// The payments of these orders, in this order.
    fn payments(orders: &[Order], ids: &[String]) -> Vec<Payment> {
        ids.iter()
            .filter_map(|id| orders.iter().find(|o| o.id == *id))
            .map(|o| Payment { order: o.id.clone(), script: o.script.clone(), amount_sat: o.amount_sat })
            .collect()
    }
}

#[cfg(test)]
mod tests;
