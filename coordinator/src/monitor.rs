//! The monitor follows the node's best chain and mempool, and notes what pays to us and what spends from us. A reorganisation is taken
//! back block by block to the last common one. Whatever is interrupted is simply done again.

mod effects;
mod scripts;

use std::{collections::HashSet, sync::Arc};

use bitcoin::{BlockHash, Txid};

use crate::{
    app::{App, Step},
    component::Progress,
    store::BlockRef,
};

/// Blocks followed in one step.
const BLOCKS: u32 = 100;

/// The monitor.
pub struct Monitor {
    app: Arc<App>,
    /// What of the mempool was looked at.
    seen: HashSet<Txid>,
    /// Height of the last block that was taken back, for when all followed blocks are gone.
    lost: Option<u32>,
}

impl Monitor {
    /// A monitor that has seen nothing yet.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self { app, seen: HashSet::new(), lost: None }
    }

    /// Catches up with the node, at most a hundred blocks.
    ///
    /// # Errors
    /// [`crate::app::StepError`].
    pub async fn step(&mut self, now: i64) -> Step<Progress> {
        if scripts::ensure(&self.app, now).await? {
            // What the new scripts may have received already is only in the mempool.
            self.seen.clear();
        }
        let Some(tip) = self.common_block(now).await? else { return Ok(Progress::More) };
        let node_tip = self.app.node.tip().await?;
        let mut tip = tip;
        for _ in 0..BLOCKS {
            let Some(height) = tip.height.checked_add(1).filter(|next| *next <= node_tip.height) else { break };
            let Some(hash) = self.app.node.hash_at(height).await? else { return Ok(Progress::More) };
            let Some(next) = self.follow(Some(tip.hash), BlockRef { height, hash }, now).await? else { return Ok(Progress::More) };
            tip = next;
        }
        if tip.height < node_tip.height {
            return Ok(Progress::More);
        }
        self.mempool(tip, now).await
    }

    /// The newest block that is ours and the node's. `None`: look again.
    async fn common_block(&mut self, now: i64) -> Step<Option<BlockRef>> {
        loop {
            let Some(tip) = self.app.store.tip().await? else { return self.start(now).await };
            if self.app.node.hash_at(tip.height).await? == Some(tip.hash) {
                return Ok(Some(tip));
            }
            tracing::warn!(height = tip.height, hash = %tip.hash, "the block is not in the best chain any more: taken back");
            self.app.store.disconnect(tip).await?;
            self.lost = Some(tip.height);
            self.seen.clear();
        }
    }

    async fn start(&mut self, now: i64) -> Step<Option<BlockRef>> {
        let node = &self.app.node;
        let found = node.network().await?;
        let wanted = self.app.config.coordinator.network;
        if found != wanted {
            return Err(crate::app::StepError::Network { found, wanted });
        }
        let first = match self.lost.or(self.app.config.bitcoind.start_height) {
            Some(first) => first,
            None => {
                let tip = node.tip().await?;
                tracing::warn!(height = tip.height, "[bitcoind] start_height is not set: deposits in older blocks are not seen");
                tip.height.saturating_add(1)
            }
        };
        let Some(before) = first.checked_sub(1) else {
            let Some(hash) = node.hash_at(0).await? else { return Ok(None) };
            return self.follow(None, BlockRef { height: 0, hash }, now).await;
        };
        let Some(hash) = node.hash_at(before).await? else { return Ok(None) };
        let block = BlockRef { height: before, hash };
        self.app.store.start_at(block).await?;
        Ok(Some(block))
    }

    /// Adds one block. `None`: it does not follow, the chain has changed meanwhile.
    async fn follow(&self, previous: Option<BlockHash>, at: BlockRef, now: i64) -> Step<Option<BlockRef>> {
        let block = self.app.node.block(at.hash).await?;
        if previous.is_some_and(|previous| block.header.prev_blockhash != previous) {
            return Ok(None);
        }
        let effects = effects::of(&*self.app.store, &block.txdata).await?;
        if !effects.received.is_empty() || !effects.spent.is_empty() {
            tracing::info!(height = at.height, received = effects.received.len(), spent = effects.spent.len(), "block with coins of ours");
        }
        Ok(self.app.store.connect(previous, at, &effects, now).await?.then_some(at))
    }

    /// Looks at what is new in the mempool, as long as no block comes in between.
    async fn mempool(&mut self, tip: BlockRef, now: i64) -> Step<Progress> {
        let node = &self.app.node;
        let all: HashSet<Txid> = node.mempool().await?.into_iter().collect();
        let new: Vec<Txid> = all.iter().filter(|txid| !self.seen.contains(*txid)).copied().collect();
        let transactions = node.mempool_transactions(&new).await?;
        if node.tip().await? != tip {
            return Ok(Progress::More);
        }
        let effects = effects::of(&*self.app.store, &transactions).await?;
        self.app.store.mempool(&effects, &all, now).await?;
        if !effects.received.is_empty() || !effects.spent.is_empty() {
            self.app.work.notify_waiters();
        }
        self.seen = all;
        Ok(Progress::Idle)
    }
}

#[cfg(test)]
mod tests;
