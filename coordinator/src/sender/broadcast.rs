//! From signatures to the node, and again whenever the node has forgotten.

use bitcoin::{Transaction, consensus::encode};
use postern_protocol::{canonical, reply::InputSignature};

use super::Work;
use crate::{
    app::{Step, StepError},
    draft, failpoint,
    node::Acceptance,
    store::{AnchorSpent, Blocked, BlockedKind, Member, MemberState},
};

/// A transaction that the node does not take is tried again after this.
const RETRY_MS: i64 = 10_000;

fn final_tx(member: &Member) -> Step<Transaction> {
    let raw = member.final_tx.as_deref().ok_or(StepError::Member(member.id))?;
    encode::deserialize(raw).map_err(|_| StepError::Member(member.id))
}

impl Work<'_> {
    /// Enough signers signed: the complete transaction is kept before anybody sees it.
    pub(super) async fn finalise(&self, member: &Member) -> Step<()> {
        let psbt = Self::member_psbt(member)?;
        let mut all: Vec<InputSignature> = Vec::new();
        for (_, body) in self.app.store.signatures(member.id).await? {
            let signatures: Vec<InputSignature> = canonical::from_slice(&body).map_err(|_| StepError::Member(member.id))?;
            all.extend(signatures);
        }
        match draft::finalise(&psbt, &all) {
            Ok(Some(transaction)) => {
                let txid = transaction.compute_txid();
                self.app.store.finalised(member.id, txid, &encode::serialize(&transaction)).await?;
                tracing::info!(family = self.family.id, member = member.id, %txid, "signed");
                self.app.work.notify_waiters();
                Ok(())
            }
            Ok(None) => {
                let blocked = Blocked::new(
                    BlockedKind::Needs,
                    "signatures.incomplete",
                    "the signers' signatures do not satisfy the descriptor: does [wallet] signers name all whose keys it needs?",
                );
                Ok(self.app.store.block_family(self.family.id, Some(&blocked), self.now).await?)
            }
            Err(e) => {
                tracing::error!(family = self.family.id, "{e}");
                Ok(self.app.store.stop_wallet(&self.family.wallet, "signature.invalid", &e.to_string(), self.now).await?)
            }
        }
    }

    /// The first time.
    pub(super) async fn send(&self, member: &Member) -> Step<()> {
        if member.not_before > self.now {
            return Ok(());
        }
        let transaction = final_tx(member)?;
        let node = &self.app.node;
        let mut verdict = node.accepts(&transaction).await?;
        if verdict == Acceptance::Yes {
            failpoint::hit("send", "before");
            verdict = node.send(&transaction).await?;
            failpoint::hit("send", "after");
        }
        match verdict {
            Acceptance::Yes | Acceptance::Known => {
                self.app.store.broadcast(member.id, self.tip.height, self.now).await?;
                tracing::info!(family = self.family.id, txid = %transaction.compute_txid(), "broadcast");
                Ok(())
            }
            Acceptance::No(reason) => {
                tracing::warn!(family = self.family.id, txid = %transaction.compute_txid(), "the node does not take it: {reason}");
                let until = self.now.saturating_add(RETRY_MS);
                let blocked = Blocked::new(BlockedKind::Node, "node.rejected", format!("the node does not take it: {reason}")).until(until);
                self.app.store.broadcast_later(member.id, until, &blocked, self.now).await?;
                // A replacement that is not taken does not keep the replaced one from being kept alive.
                self.keep_alive(&AnchorSpent::Not).await
            }
        }
    }

    /// Sends the newest broadcast member again when the mempool does not hold anything of this family.
    pub(super) async fn keep_alive(&self, spent: &AnchorSpent) -> Step<()> {
        let newest = self.members.iter().rev().find(|m| m.state == MemberState::Broadcast && m.final_tx.is_some());
        let Some(member) = newest.filter(|m| *spent == AnchorSpent::Not && m.not_before <= self.now) else { return Ok(()) };
        let transaction = final_tx(member)?;
        match self.app.node.send(&transaction).await? {
            Acceptance::Yes => tracing::info!(family = self.family.id, txid = %transaction.compute_txid(), "broadcast again"),
            // The monitor has not seen it yet, or it is in a block already.
            Acceptance::Known => {}
            Acceptance::No(reason) => {
                tracing::warn!(family = self.family.id, txid = %transaction.compute_txid(), "not taken again: {reason}");
                let until = self.now.saturating_add(RETRY_MS);
                let blocked = Blocked::new(BlockedKind::Node, "node.rejected", format!("the node does not take it: {reason}")).until(until);
                self.app.store.broadcast_later(member.id, until, &blocked, self.now).await?;
            }
        }
        Ok(())
    }
}
