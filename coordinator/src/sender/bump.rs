//! Raises the fee of a stuck payment: same inputs, same payments, less change. The new member is of the same family, so at most one of
//! the two confirms, and the signer charges only the increase.

use super::Work;
use crate::{
    app::Step,
    config::FeeRate,
    draft::{self, Draft, DraftError},
    orders::fee_rate,
    store::{Member, MemberState},
};

impl Work<'_> {
    pub(super) async fn bump(&self, live: &Member) -> Step<()> {
        if !self.is_stuck(live) {
            return Ok(());
        }
        // What the signers refused to raise once is not asked again.
        if self.members.iter().any(|m| m.id > live.id && m.state == MemberState::Refused) {
            return Ok(());
        }
        let store = &self.app.store;
        let fee = &self.entry.table.fee;
        let old_rate = live.fee_sat.saturating_mul(4_000).div_ceil(live.weight_wu.max(1));
        let quarter_more = FeeRate::from_sat_per_kvb(old_rate.saturating_add(old_rate / 4));
        let rate = fee_rate(self.app, self.entry).await?.max(quarter_more).min(fee.max_rate);
        let min_fee_sat = draft::replacement_fee_sat(live.fee_sat, live.weight_wu);
        if min_fee_sat > fee.max_rate.fee_sat(live.weight_wu) {
            tracing::debug!(family = self.family.id, "stuck, and its fee is at [wallet] fee.max_rate");
            return Ok(());
        }
        let outputs = store.member_outputs(live.id).await?;
        let ids: Vec<String> = outputs.into_iter().map(|(id, _)| id).collect();
        let payments = Self::payments(&store.family_orders(self.family.id).await?, &ids);
        let coins = self.coins_of(live).await?;
        let (branch, index) = self.family.change;
        let Some(change) = store.script_at(&self.family.wallet, branch, index).await? else { return Ok(()) };
        let draft = Draft { wallet: &self.entry.wallet, coins: &coins, payments: &payments, change: &change, rate, min_fee_sat };
        let assembled = match draft::assemble(&draft) {
            Ok(assembled) => assembled,
            Err(DraftError::Short { .. }) => {
                tracing::debug!(family = self.family.id, "stuck, and its change cannot pay a higher fee");
                return Ok(());
            }
            Err(e) => {
                tracing::error!(family = self.family.id, "no replacement can be made: {e}");
                return Ok(());
            }
        };
        // Without change to give, what is left may be less than relay asks for.
        if assembled.fee_sat < min_fee_sat {
            return Ok(());
        }
        let (old_sat, new_sat) = (live.fee_sat, assembled.fee_sat);
        if let Some(member) = store.add_member(self.family.id, assembled.into_member(self.now)).await? {
            tracing::info!(family = self.family.id, member, old_sat, new_sat, "stuck: fee raised");
            self.app.work.notify_waiters();
        }
        Ok(())
    }

    fn is_stuck(&self, live: &Member) -> bool {
        let fee = &self.entry.table.fee;
        let blocks = live.broadcast_height.map_or(0, |height| self.tip.height.saturating_sub(height));
        let long = fee.bump_after.is_some_and(|span| live.broadcast_at.is_some_and(|at| at.saturating_add(span.ms()) <= self.now));
        blocks >= fee.bump_after_blocks || long
    }
}
