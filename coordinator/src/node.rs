//! The Bitcoin node. It is believed about the chain and about nothing else; no wallet of its is used.

pub mod rpc;

use async_trait::async_trait;
use bitcoin::{Block, BlockHash, Transaction, Txid};

use crate::{config::FeeRate, store::BlockRef};

pub use rpc::RpcNode;

/// Why the node gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It cannot be reached, or the credentials cannot be read.
    #[error("bitcoind at {url}: {problem}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        problem: String,
    },
    /// It refuses the credentials.
    #[error("bitcoind at {url} refuses the credentials: check [bitcoind] cookie, or user and password")]
    Unauthorized {
        /// Where.
        url: String,
    },
    /// It answered with an error.
    #[error("bitcoind: {method}: {message} (code {code})")]
    Rpc {
        /// The call.
        method: &'static str,
        /// Bitcoin Core's code.
        code: i64,
        /// Its words.
        message: String,
    },
    /// It answered something else than expected.
    #[error("bitcoind: {method}: the answer makes no sense: {problem}")]
    Answer {
        /// The call.
        method: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// What the mempool says about a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// It would be taken.
    Yes,
    /// It is there, or in a block.
    Known,
    /// It would not, for this reason.
    No(String),
}

/// What the coordinator asks of a node.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// `bitcoin`, `testnet4`, `signet` or `regtest`.
    async fn network(&self) -> Result<bitcoin::Network, NodeError>;
    /// The newest block.
    async fn tip(&self) -> Result<BlockRef, NodeError>;
    /// The block at a height of the best chain; none past its end.
    async fn hash_at(&self, height: u32) -> Result<Option<BlockHash>, NodeError>;
    /// A whole block.
    async fn block(&self, hash: BlockHash) -> Result<Block, NodeError>;
    /// All txids of the mempool.
    async fn mempool(&self) -> Result<Vec<Txid>, NodeError>;
    /// Transactions of the mempool; those that left it meanwhile are missing.
    async fn mempool_transactions(&self, txids: &[Txid]) -> Result<Vec<Transaction>, NodeError>;
    /// `testmempoolaccept`.
    async fn accepts(&self, transaction: &Transaction) -> Result<Acceptance, NodeError>;
    /// `sendrawtransaction`. A transaction that is known already is a success.
    async fn send(&self, transaction: &Transaction) -> Result<Acceptance, NodeError>;
    /// `estimatesmartfee`; none when the node has no estimate.
    async fn fee_rate(&self, target: u16) -> Result<Option<FeeRate>, NodeError>;
}
