//! Rows about the chain, scripts and coins.

use bitcoin::{BlockHash, OutPoint, ScriptBuf, Txid};
use serde::Serialize;
use utoipa::ToSchema;

/// A block's place and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef {
    /// Height.
    pub height: u32,
    /// Hash.
    pub hash: BlockHash,
}

/// What a block or the mempool does to our coins.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// Outputs that pay us.
    pub received: Vec<Received>,
    /// Coins of ours that are spent, and by which transaction.
    pub spent: Vec<(OutPoint, Txid)>,
    /// Those transactions, whole.
    pub transactions: Vec<bitcoin::Transaction>,
}

/// An output that pays us.
#[derive(Debug, Clone)]
pub struct Received {
    /// Which.
    pub outpoint: OutPoint,
    /// To this wallet.
    pub wallet: String,
    /// Branch of its script.
    pub branch: u32,
    /// Index of its script.
    pub index: u32,
    /// Value.
    pub value_sat: u64,
    /// Made by a coinbase, spendable after 100 blocks.
    pub coinbase: bool,
}

/// A script of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnScript {
    /// Of this wallet.
    pub wallet: String,
    /// 0 receive, 1 change.
    pub branch: u32,
    /// Index in the branch.
    pub index: u32,
    /// The script.
    pub script: ScriptBuf,
    /// A pool's key.
    pub public_key: Option<Vec<u8>>,
}

/// A coin of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coin {
    /// Which.
    pub outpoint: OutPoint,
    /// Branch of its script.
    pub branch: u32,
    /// Index of its script.
    pub index: u32,
    /// Value.
    pub value_sat: u64,
    /// Made by a coinbase.
    pub coinbase: bool,
    /// In this block.
    pub height: Option<u32>,
    /// Change of a transaction of ours.
    pub own_change: bool,
    /// Made by the only transaction that its family ever had: nothing of ours can replace that.
    pub sole_parent: bool,
    /// To be spent before others.
    pub spend_first: bool,
    /// A pool's key.
    pub public_key: Option<Vec<u8>>,
    /// The whole transaction that made it.
    pub transaction: Vec<u8>,
}

/// A wallet's money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Balance {
    /// Confirmed, unspent, and not reserved.
    pub available_sat: u64,
    /// Confirmed and reserved by payments on their way.
    pub reserved_sat: u64,
    /// Not confirmed enough.
    pub pending_sat: u64,
}

/// A payment to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// Which output.
    pub outpoint: OutPoint,
    /// To this wallet.
    pub wallet: String,
    /// Index of the address.
    pub index: u32,
    /// The address's script.
    pub script: ScriptBuf,
    /// What the address was handed out for.
    pub reference: Option<String>,
    /// How much.
    pub value_sat: u64,
    /// In this block.
    pub height: Option<u32>,
    /// Whether the chain or the mempool holds it now.
    pub present: bool,
    /// When it was first seen.
    pub first_seen: i64,
}

/// How far a branch is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsedIndex {
    /// Highest index that was handed out or paid to.
    pub handed: Option<u32>,
    /// Highest index that was paid to.
    pub paid: Option<u32>,
}

/// What became of a wish for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandOut {
    /// This one, from now on this reference's.
    New(OwnScript),
    /// This one, handed out for the same reference before.
    Same(OwnScript),
    /// All known ones within the gap are handed out.
    None,
}
