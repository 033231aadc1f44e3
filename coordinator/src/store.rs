//! What the coordinator remembers. Every method is one transaction: it happens whole and is on disk when it returns, or it did not
//! happen. Methods that change a state name the state they change it from; two processes that do the same step do it once.
//!
//! PostgreSQL is to be a second module behind the same traits and the same test suite.

pub mod record;
pub mod sqlite;

use async_trait::async_trait;
use bitcoin::{BlockHash, OutPoint, ScriptBuf, Txid};

pub use record::*;
pub use sqlite::SqliteStore;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database says no: disk full, locked by another program, damaged.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema cannot be brought up to date.
    #[error("database schema: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A row does not say what it should: another program wrote it, or the disk did.
    #[error("database: {table} holds a {column} that makes no sense: {value}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// What stands there.
        value: String,
    },
    /// Made for another network.
    #[error("the database is for {found} and the configuration for {wanted}: give each network its own `state` folder")]
    Network {
        /// In the database.
        found: String,
        /// In the configuration.
        wanted: String,
    },
    /// A test ended the process here.
    #[error("crashed on purpose at {0}")]
    Crashed(&'static str),
}

/// Result of a store's method.
pub type Stored<T> = Result<T, StoreError>;

/// Orders and their approval.
#[async_trait]
pub trait OrderStore {
    /// Makes an order, once for each idempotency key and each external id, for ever.
    async fn create_order(&self, order: NewOrder) -> Stored<OrderCreation>;
    /// One order.
    async fn order(&self, id: &str) -> Stored<Option<Order>>;
    /// Orders, oldest first.
    async fn orders(&self, filter: OrderFilter) -> Stored<Vec<Order>>;
    /// A person approves what `hash` names. The person who made the order is not believed.
    async fn approve_order(&self, id: &str, hash: &str, by: &Person, at: i64) -> Stored<OrderChange>;
    /// Withdraws an order that is in no family.
    async fn cancel_order(&self, id: &str, at: i64) -> Stored<OrderChange>;
    /// The rule decides a new order: automatic while `up_to_sat` and what was approved by the rule since `since` allow.
    async fn decide_order(&self, id: &str, rule: ApprovalLimit, at: i64) -> Stored<Option<OrderState>>;
    /// Shows why orders of a wallet that are in no family wait.
    async fn block_approved(&self, wallet: &str, blocked: Option<&Blocked>, at: i64) -> Stored<()>;
    /// An order whose row does not match what was approved.
    async fn fail_tampered(&self, id: &str, at: i64) -> Stored<()>;
    /// Where an order's payment stands: in the transaction that is in a block, else in the newest that was broadcast, else in the newest.
    async fn payment(&self, order: &str) -> Stored<Option<PaymentPlace>>;
}

/// Spend families and their transactions.
#[async_trait]
pub trait FamilyStore {
    /// Reserves the coins, binds the orders and keeps the first member, all or nothing. `None`: a coin or an order is not free any more.
    async fn commit_batch(&self, batch: NewFamily) -> Stored<Option<FamilyId>>;
    /// Adds a member (a fee bump, or one that pays fewer orders) unless the family has one that is still to be signed, or another family
    /// spends the change of one that was broadcast.
    async fn add_member(&self, family: FamilyId, member: NewMember) -> Stored<Option<MemberId>>;
    /// Families that are not settled.
    async fn open_families(&self) -> Stored<Vec<Family>>;
    /// Settled or refused families that the chain contradicts now: reopened and returned.
    async fn reopen_families(&self, at: i64) -> Stored<Vec<FamilyId>>;
    /// One family.
    async fn family(&self, id: FamilyId) -> Stored<Option<Family>>;
    /// A member is in a block.
    async fn confirmed_in_block(&self, member: MemberId, txid: Txid, height: u32, at: i64) -> Stored<()>;
    /// A family's members, oldest first.
    async fn members(&self, family: FamilyId) -> Stored<Vec<Member>>;
    /// One member.
    async fn member(&self, id: MemberId) -> Stored<Option<Member>>;
    /// Orders bound to a family.
    async fn family_orders(&self, family: FamilyId) -> Stored<Vec<Order>>;
    /// Which orders a member pays, and where.
    async fn member_outputs(&self, member: MemberId) -> Stored<Vec<(String, u32)>>;
    /// The member is now with the signers. Adds the requests that are not there yet.
    async fn ask_signers(&self, member: MemberId, requests: Vec<NewRequest>, at: i64) -> Stored<()>;
    /// All signatures of a member, by signer.
    async fn signatures(&self, member: MemberId) -> Stored<Vec<(String, Vec<u8>)>>;
    /// Whether any signature was ever seen for any member.
    async fn anything_signed(&self, family: FamilyId) -> Stored<bool>;
    /// The complete transaction.
    async fn finalised(&self, member: MemberId, txid: Txid, transaction: &[u8]) -> Stored<()>;
    /// The node has it.
    async fn broadcast(&self, member: MemberId, height: u32, at: i64) -> Stored<()>;
    /// The node does not take it now.
    async fn broadcast_later(&self, member: MemberId, not_before: i64, blocked: &Blocked, at: i64) -> Stored<()>;
    /// The signers said that they never sign it.
    async fn member_refused(&self, member: MemberId, blocked: &Blocked, at: i64) -> Stored<()>;
    /// Everything that the family could pay is refused and nothing was ever signed: ends it, frees its coins.
    async fn refuse_family(&self, family: FamilyId, at: i64) -> Stored<bool>;
    /// What is known of the transaction that spends the family's anchor.
    async fn anchor_spent(&self, family: FamilyId) -> Stored<AnchorSpent>;
    /// A transaction that spends the anchor is buried: every order of the family gets its final word.
    async fn settle(&self, family: FamilyId, by: Option<MemberId>, at: i64) -> Stored<()>;
    /// Shows why a family's orders wait.
    async fn block_family(&self, family: FamilyId, blocked: Option<&Blocked>, at: i64) -> Stored<()>;
    /// Its orders wait no longer for what signers booted.
    async fn release_family(&self, family: FamilyId, at: i64) -> Stored<()>;
    /// Shows why these orders of a family wait.
    async fn block_orders(&self, orders: &[String], blocked: &Blocked, at: i64) -> Stored<()>;
    /// Stops a wallet: nothing new is batched, asked or sent.
    async fn stop_wallet(&self, wallet: &str, code: &str, message: &str, at: i64) -> Stored<()>;
    /// Ends a stop. False: there was none.
    async fn resume_wallet(&self, wallet: &str) -> Stored<bool>;
    /// All stops.
    async fn stops(&self) -> Stored<Vec<WalletStop>>;
}

/// The chain as followed, scripts and coins of ours.
#[async_trait]
pub trait ChainStore {
    /// The newest block that was followed.
    async fn tip(&self) -> Stored<Option<BlockRef>>;
    /// The followed block at a height.
    async fn block_at(&self, height: u32) -> Stored<Option<BlockHash>>;
    /// Starts to follow after this block.
    async fn start_at(&self, block: BlockRef) -> Stored<()>;
    /// Adds a block with what it does to us. False: `previous` is not the tip (any more).
    async fn connect(&self, previous: Option<BlockHash>, block: BlockRef, effects: &Effects, at: i64) -> Stored<bool>;
    /// Takes the tip back. False: it is not the tip (any more).
    async fn disconnect(&self, block: BlockRef) -> Stored<bool>;
    /// What the mempool does to us: new effects, and all of its txids.
    async fn mempool(&self, effects: &Effects, all: &std::collections::HashSet<Txid>, at: i64) -> Stored<()>;
    /// Which of these scripts are ours.
    async fn own_scripts(&self, scripts: &[ScriptBuf]) -> Stored<Vec<OwnScript>>;
    /// Which of these outputs are coins of ours.
    async fn own_coins(&self, outpoints: &[OutPoint]) -> Stored<Vec<OutPoint>>;
    /// Coins of a wallet that are present, unspent and not reserved.
    async fn free_coins(&self, wallet: &str) -> Stored<Vec<Coin>>;
    /// The coins that a family reserves.
    async fn reserved_coins(&self, family: FamilyId) -> Stored<Vec<Coin>>;
    /// A wallet's money.
    async fn balance(&self, wallet: &str, tip: u32, confirmations: u32) -> Stored<Balance>;
    /// Deposits, newest first.
    async fn deposits(&self, wallet: Option<&str>, limit: u32) -> Stored<Vec<Deposit>>;
    /// A whole transaction that was seen.
    async fn transaction(&self, txid: Txid) -> Stored<Option<Vec<u8>>>;
    /// Highest index known of a branch.
    async fn last_script(&self, wallet: &str, branch: u32) -> Stored<Option<u32>>;
    /// Highest index of a branch that was handed out or paid to, and highest that was paid to.
    async fn last_used(&self, wallet: &str, branch: u32) -> Stored<UsedIndex>;
    /// Adds scripts; those that are there stay.
    async fn add_scripts(&self, scripts: &[OwnScript]) -> Stored<()>;
    /// One script.
    async fn script_at(&self, wallet: &str, branch: u32, index: u32) -> Stored<Option<OwnScript>>;
    /// Hands a deposit address out, once, for ever. The same reference gets the same one.
    async fn hand_out(&self, wallet: &str, reference: &str, limit: u32, at: i64) -> Stored<HandOut>;
    /// The next unused script for change; it stays unused until a batch takes it. When none is left (a branch has an end, a pool has so many
    /// keys), of those whose coins are all spent in a block the one that was taken longest ago.
    async fn next_change(&self, wallet: &str, branch: u32) -> Stored<Option<OwnScript>>;
}

/// Signers, their requests and their reports.
#[async_trait]
pub trait SignerStore {
    /// Pairs. False: the name, the TLS key or the signer's key is taken.
    async fn add_signer(&self, signer: NewSigner) -> Stored<bool>;
    /// Unpairs. False: no such signer.
    async fn remove_signer(&self, name: &str, at: i64) -> Stored<bool>;
    /// Paired signers.
    async fn signers(&self) -> Stored<Vec<SignerRow>>;
    /// Adds a request unless one of this id is there.
    async fn add_request(&self, request: NewRequest, at: i64) -> Stored<()>;
    /// Requests to hand out now. With `attested`, nothing but the question what it booted, unless what it said is believed now.
    async fn take_requests(
        &self,
        signer: &str,
        attested: bool,
        capacity: u32,
        bytes_max: usize,
        in_flight: &[String],
        at: i64,
    ) -> Stored<Vec<(String, Vec<u8>)>>;
    /// Its link asked for work.
    async fn pulled(&self, signer: &str, at: i64) -> Stored<()>;
    /// What was asked, for checking a reply.
    async fn request(&self, id: &str) -> Stored<Option<RequestRow>>;
    /// Keeps a reply. False: it has one.
    async fn reply(&self, id: &str, signer: &str, reply: &[u8], at: i64) -> Stored<bool>;
    /// Replies that did not take effect yet, oldest first.
    async fn unapplied(&self, limit: u32) -> Stored<Vec<RequestRow>>;
    /// All requests for a member.
    async fn member_requests(&self, member: MemberId) -> Stored<Vec<RequestRow>>;
    /// Whether a request with this body has no effect yet.
    async fn open_request_for(&self, body: &[u8]) -> Stored<bool>;
    /// A reply takes effect.
    async fn apply(&self, request: &str, effect: ReplyEffect, at: i64) -> Stored<()>;
    /// The waiting of requests that need a manager's command ends now.
    async fn wake_needs(&self, signer: &str, at: i64) -> Stored<u64>;
    /// Keeps a verified report.
    async fn heartbeat(&self, signer: &str, json: &str, at: i64) -> Stored<()>;
}

/// What signers booted.
#[async_trait]
pub trait AttestationStore {
    /// Where each signer stands that was ever asked.
    async fn attestations(&self) -> Stored<Vec<AttestationRow>>;
    /// What is kept of one signer.
    async fn attestation_statements(&self, signer: &str) -> Stored<AttestationStatements>;
    /// Asks; an older question is open no more.
    async fn ask_attestation(&self, request: NewRequest, at: i64) -> Stored<()>;
    /// No orders for a signer whose statement was pinned; with `ask` it is to be asked anew. False: none is, or it is known as changed.
    async fn distrust(&self, signer: &str, problem: &AttestationProblem, ask: bool) -> Stored<bool>;
    /// Pins what the signer offered, and asks anew. False: it offers something else now.
    async fn accept_attestation(&self, signer: &str, offered: &str, at: i64) -> Stored<bool>;
}

/// API keys and leases.
#[async_trait]
pub trait KeyStore {
    /// Keeps a new key's hash.
    async fn add_key(&self, key: NewKey) -> Stored<()>;
    /// A key that is not revoked.
    async fn key(&self, id: &str) -> Stored<Option<KeyRow>>;
    /// All keys.
    async fn keys(&self) -> Stored<Vec<KeyRow>>;
    /// Revokes. False: no such key.
    async fn revoke_key(&self, id: &str, at: i64) -> Stored<bool>;
    /// Takes or keeps a component's lease until `until`.
    async fn lease(&self, name: &str, holder: &str, now: i64, until: i64) -> Stored<bool>;
    /// Gives it back.
    async fn release(&self, name: &str, holder: &str) -> Stored<()>;
}

/// All of it.
pub trait Store: OrderStore + FamilyStore + ChainStore + SignerStore + AttestationStore + KeyStore + Send + Sync + 'static {}
impl<T: OrderStore + FamilyStore + ChainStore + SignerStore + AttestationStore + KeyStore + Send + Sync + 'static> Store for T {}
