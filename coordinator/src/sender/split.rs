//! What a family does after its signers refused a transaction: pays fewer orders, to find the one that they never sign.
//!
//! The other orders stay bound to the family. Only when one of its members is buried are they free for another batch: a refusal comes
//! through a link that may lie, and what was refused may be signed after all. All members spend the same anchor, so nothing is paid twice.

use std::collections::BTreeSet;

use super::Work;
use crate::{
    app::Step,
    draft::{self, Draft},
    orders::fee_rate,
    store::{Blocked, BlockedKind, Member, Order, OrderState},
};

/// The next orders to try: all that are not refused alone, or half of the smallest set among them that was refused.
fn next_set(open: &[String], refused: &[BTreeSet<String>]) -> Vec<String> {
    let within: BTreeSet<&String> = open.iter().collect();
    let smallest = refused.iter().filter(|set| set.iter().all(|id| within.contains(id))).min_by_key(|set| set.len());
    match smallest {
        None => open.to_vec(),
        Some(set) => {
            let half = set.len().div_ceil(2).max(1);
            open.iter().filter(|id| set.contains(*id)).take(half).cloned().collect()
        }
    }
}

impl Work<'_> {
    /// All members are refused.
    pub(super) async fn split(&self) -> Step<()> {
        let store = &self.app.store;
        let orders = store.family_orders(self.family.id).await?;
        let open: Vec<String> = orders.iter().filter(|o| is_open(o)).map(|o| o.id.clone()).collect();
        if open.is_empty() {
            if store.refuse_family(self.family.id, self.now).await? {
                tracing::warn!(family = self.family.id, "refused for good; its coins are spent before others");
            }
            return Ok(());
        }
        let mut refused = Vec::new();
        for member in &self.members {
            refused.push(store.member_outputs(member.id).await?.into_iter().map(|(id, _)| id).collect());
        }
        let payments = Self::payments(&orders, &next_set(&open, &refused));
        let Some(first) = self.members.first() else { return Ok(()) };
        self.pay(first, &payments).await
    }

    async fn pay(&self, first: &Member, payments: &[draft::Payment]) -> Step<()> {
        let store = &self.app.store;
        let coins = self.coins_of(first).await?;
        let (branch, index) = self.family.change;
        let Some(change) = store.script_at(&self.family.wallet, branch, index).await? else { return Ok(()) };
        let rate = fee_rate(self.app, self.entry).await?;
        let draft = Draft { wallet: &self.entry.wallet, coins: &coins, payments, change: &change, rate, min_fee_sat: 0 };
        match draft::assemble(&draft) {
            Ok(assembled) => {
                let orders = assembled.pays.len();
                if let Some(member) = store.add_member(self.family.id, assembled.into_member(self.now)).await? {
                    tracing::info!(family = self.family.id, member, orders, "refused: fewer orders are tried");
                    self.app.work.notify_waiters();
                }
            }
            Err(e) => {
                let blocked = Blocked::new(BlockedKind::Needs, "draft.impossible", e.to_string());
                store.block_family(self.family.id, Some(&blocked), self.now).await?;
            }
        }
        Ok(())
    }

    /// Shows the orders that the member does not pay why they wait.
    pub(super) async fn hold_others(&self, live: &Member) -> Step<()> {
        let store = &self.app.store;
        let waiting: Vec<Order> = store.family_orders(self.family.id).await?.into_iter().filter(is_open).collect();
        let held: Vec<String> = waiting
            .into_iter()
            .filter(|o| matches!(o.state, OrderState::Batched | OrderState::Signing))
            .filter(|o| o.blocked.as_ref().is_none_or(|b| b.code != "family.unsettled"))
            .map(|o| o.id)
            .collect();
        if held.is_empty() {
            return Ok(());
        }
        let paid: BTreeSet<String> = store.member_outputs(live.id).await?.into_iter().map(|(id, _)| id).collect();
        let held: Vec<String> = held.into_iter().filter(|id| !paid.contains(id)).collect();
        let blocked = Blocked::new(
            BlockedKind::Wait,
            "family.unsettled",
            "paid by a later transaction, once the one that it was batched with is buried",
        );
        Ok(store.block_orders(&held, &blocked, self.now).await?)
    }
}

fn is_open(order: &Order) -> bool {
    order.refused_code.is_none() && matches!(order.state, OrderState::Batched | OrderState::Signing | OrderState::Broadcast)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Plays the search against a signer that refuses every set with a bad order in it.
    fn search(orders: usize, bad: &[usize]) -> (Vec<String>, usize) {
        let name = |n: usize| format!("o{n:03}");
        let mut refused: Vec<BTreeSet<String>> = Vec::new();
        let bad: BTreeSet<String> = bad.iter().map(|n| name(*n)).collect();
        let mut asked = 0;
        loop {
            let alone: BTreeSet<String> = refused.iter().filter(|s| s.len() == 1).flatten().cloned().collect();
            let open: Vec<String> = (0..orders).map(name).filter(|id| !alone.contains(id)).collect();
            if open.is_empty() {
                return (Vec::new(), asked);
            }
            let set = next_set(&open, &refused);
            assert!(!set.is_empty());
            asked += 1;
            assert!(asked < 4 * orders + 4, "the search ends");
            if set.iter().all(|id| !bad.contains(id)) {
                return (set, asked);
            }
            refused.push(set.into_iter().collect());
        }
    }

    #[test]
    fn one_bad_order_does_not_block_the_others() {
        for bad in 0..50 {
            let (paid, asked) = search(50, &[bad]);
            assert!(!paid.is_empty() && asked <= 8, "{bad}: {} paid after {asked}", paid.len());
        }
    }

    #[test]
    fn a_family_of_bad_orders_only_ends_with_every_order_refused_alone() {
        let (paid, _) = search(7, &[0, 1, 2, 3, 4, 5, 6]);
        assert!(paid.is_empty());
    }
}
