//! The rows as types. Amounts are satoshi, times milliseconds since 1970.

use bitcoin::{BlockHash, OutPoint, ScriptBuf, Txid};
use postern_protocol::key::PublicKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! text_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// As it stands in the database and in JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text,)+ } }
            /// From that text.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> { match text { $($text => Some(Self::$variant),)+ _ => None } }
        }
    };
}

text_enum! {
    /// Where an order is on its way. Nothing but a buried transaction leads back from `batched`.
    OrderState {
        /// Accepted; the approval rule has not looked at it yet.
        Created = "created",
        /// A second person has to approve it.
        AwaitingApproval = "awaiting_approval",
        /// To be paid.
        Approved = "approved",
        /// Bound to a spend family.
        Batched = "batched",
        /// The signers have its transaction.
        Signing = "signing",
        /// Its transaction is on its way to the miners.
        Broadcast = "broadcast",
        /// Buried by the configured number of confirmations.
        Confirmed = "confirmed",
        /// The signer never signs it.
        Refused = "refused",
        /// Cannot be paid any more; the reason says why.
        Failed = "failed",
        /// Withdrawn before it was batched.
        Cancelled = "cancelled",
    }
}

text_enum! {
    /// The state of a spend family.
    FamilyState {
        /// A member may confirm.
        Open = "open",
        /// A transaction that spends the anchor is buried.
        Settled = "settled",
        /// The signers refused everything.
        Refused = "refused",
    }
}

text_enum! {
    /// The state of one transaction.
    MemberState {
        /// Nobody was asked.
        Built = "built",
        /// Signers were asked: from here on it may be signed, whatever is answered.
        Signing = "signing",
        /// Complete.
        Signed = "signed",
        /// The node has it.
        Broadcast = "broadcast",
        /// The signers said never.
        Refused = "refused",
    }
}

text_enum! {
    /// Why an order waits.
    BlockedKind {
        /// For time.
        Wait = "wait",
        /// For a command, an approval, or the operator.
        Needs = "needs",
        /// The signer never signs it.
        Forbidden = "forbidden",
        /// Looks like fraud or tampering; the wallet stands still.
        Alarm = "alarm",
        /// For money in the wallet.
        Funds = "funds",
        /// For the node.
        Node = "node",
    }
}

text_enum! {
    /// What a request asks.
    RequestKind {
        /// Signatures.
        Sign = "sign",
        /// Public keys of a pool.
        Addresses = "addresses",
    }
}

text_enum! {
    /// What a reply meant.
    Outcome {
        /// Signatures that hold.
        Signed = "signed",
        /// Later.
        Wait = "wait",
        /// After a command.
        Needs = "needs",
        /// Never.
        No = "no",
        /// The wallet was stopped.
        Alarm = "alarm",
        /// Taken note of.
        Done = "done",
    }
}

/// Number of a spend family.
pub type FamilyId = i64;
/// Number of a transaction of a family.
pub type MemberId = i64;

/// Why an order waits, and until when or for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Blocked {
    /// What kind of waiting.
    pub kind: BlockedKind,
    /// Stable code: a signer's `refused.…`, or one of the coordinator's (docs/coordinator-api.md).
    pub code: String,
    /// When it is tried again, milliseconds since 1970.
    pub until: Option<i64>,
    /// In words.
    pub message: Option<String>,
}

impl Blocked {
    /// Without a time.
    #[must_use]
    pub fn new(kind: BlockedKind, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, code: code.into(), until: None, message: Some(message.into()) }
    }

    /// With a time.
    #[must_use]
    pub fn until(mut self, until: i64) -> Self {
        self.until = Some(until);
        self
    }
}

/// Who acts: an API key and the person it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The key's id.
    pub key: String,
    /// Whose it is.
    pub name: String,
}

/// An order to be made.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// Chosen at random.
    pub id: String,
    /// The customer's own, permanent.
    pub external_id: String,
    /// Pays from.
    pub wallet: String,
    /// Pays to.
    pub address: String,
    /// The same as a script.
    pub script: ScriptBuf,
    /// How much arrives.
    pub amount_sat: u64,
    /// For people.
    pub note: Option<String>,
    /// Who asks.
    pub by: Person,
    /// When.
    pub at: i64,
    /// What an approval names.
    pub approval_hash: String,
    /// The caller's key for this call.
    pub idempotency_key: String,
    /// SHA-256 of what was asked.
    pub body_hash: [u8; 32],
}

/// What became of it.
#[derive(Debug, Clone)]
pub enum OrderCreation {
    /// New.
    Created(Order),
    /// The same call was made before.
    Repeated(Order),
    /// The idempotency key was used for another body.
    KeyConflict(Order),
    /// The external id belongs to another order.
    ExternalIdConflict(Order),
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// The customer's own.
    pub external_id: String,
    /// Pays from.
    pub wallet: String,
    /// Pays to.
    pub address: String,
    /// The same as a script.
    pub script: ScriptBuf,
    /// How much arrives.
    pub amount_sat: u64,
    /// For people.
    pub note: Option<String>,
    /// Where it is on its way.
    pub state: OrderState,
    /// When it was made.
    pub created_at: i64,
    /// By which key.
    pub created_by: String,
    /// By whom.
    pub created_person: String,
    /// What an approval names.
    pub approval_hash: String,
    /// When it was approved.
    pub approved_at: Option<i64>,
    /// By which key, or `rule`.
    pub approved_by: Option<String>,
    /// The family it is bound to.
    pub family: Option<FamilyId>,
    /// Why it waits.
    pub blocked: Option<Blocked>,
    /// The signer's code, when it refused this order alone.
    pub refused_code: Option<String>,
    /// Last change.
    pub changed_at: i64,
}

/// Which orders to list.
#[derive(Debug, Clone, Default)]
pub struct OrderFilter {
    /// Of this wallet.
    pub wallet: Option<String>,
    /// In this state.
    pub state: Option<OrderState>,
    /// With this external id.
    pub external_id: Option<String>,
    /// After this one.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// What became of a wished change.
#[derive(Debug, Clone)]
pub enum OrderChange {
    /// Done, or it was so before.
    Done(Order),
    /// No such order.
    NotFound,
    /// Its state does not allow it.
    State(Order),
    /// The hash names something else.
    Hash(Order),
    /// The person who made it cannot approve it.
    SamePerson,
}

/// What the rule may approve.
#[derive(Debug, Clone, Copy)]
pub struct ApprovalLimit {
    /// Up to this amount each.
    pub up_to_sat: u64,
    /// Up to this amount together, since [`Self::since`].
    pub window_sat: u64,
    /// Start of the window.
    pub since: i64,
}

/// Where an order's payment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentPlace {
    /// The transaction, once complete.
    pub txid: Option<Txid>,
    /// Its output.
    pub vout: u32,
    /// The block's height, once in a block.
    pub height: Option<u32>,
    /// Its fee.
    pub fee_sat: u64,
}

/// A batch.
#[derive(Debug, Clone)]
pub struct NewFamily {
    /// Pays from.
    pub wallet: String,
    /// Every member spends this one.
    pub anchor: OutPoint,
    /// All coins of the first member.
    pub coins: Vec<OutPoint>,
    /// Where change goes.
    pub change: (u32, u32),
    /// The first member.
    pub member: NewMember,
    /// When.
    pub at: i64,
}

/// A transaction to be signed.
#[derive(Debug, Clone)]
pub struct NewMember {
    /// Unsigned, with all that signers need.
    pub psbt: Vec<u8>,
    /// Of the unsigned transaction.
    pub unsigned_txid: Txid,
    /// Fee.
    pub fee_sat: u64,
    /// Upper bound of the signed weight.
    pub weight_wu: u64,
    /// Orders paid and at which output.
    pub pays: Vec<(String, u32)>,
    /// When.
    pub at: i64,
}

/// A spend family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Its number.
    pub id: FamilyId,
    /// Pays from.
    pub wallet: String,
    /// Every member spends this one.
    pub anchor: OutPoint,
    /// Where change goes.
    pub change: (u32, u32),
    /// State.
    pub state: FamilyState,
    /// When it was made.
    pub created_at: i64,
}

/// A transaction of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: MemberId,
    /// Its family.
    pub family: FamilyId,
    /// State.
    pub state: MemberState,
    /// Of the unsigned transaction.
    pub unsigned_txid: Txid,
    /// As it was built.
    pub psbt: Vec<u8>,
    /// Fee.
    pub fee_sat: u64,
    /// Upper bound of the signed weight.
    pub weight_wu: u64,
    /// When it was built.
    pub created_at: i64,
    /// Of the signed transaction.
    pub txid: Option<Txid>,
    /// The signed transaction.
    pub final_tx: Option<Vec<u8>>,
    /// When the node first took it.
    pub broadcast_at: Option<i64>,
    /// The chain's height then.
    pub broadcast_height: Option<u32>,
    /// Not sent to the node before.
    pub not_before: i64,
}

/// What spends a family's anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnchorSpent {
    /// Nothing that was seen.
    Not,
    /// A transaction in the mempool.
    Mempool(Txid),
    /// A transaction in a block.
    Block {
        /// Which.
        txid: Txid,
        /// Where.
        height: u32,
        /// The member it is, of this family or another.
        member: Option<MemberId>,
        /// That member's family.
        family: Option<FamilyId>,
    },
}

/// A wallet that stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WalletStop {
    /// Which.
    pub wallet: String,
    /// Why.
    pub code: String,
    /// In words.
    pub message: String,
    /// Since when.
    pub at: i64,
}

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

/// A signer to be paired.
#[derive(Debug, Clone)]
pub struct NewSigner {
    /// Its name here.
    pub name: String,
    /// Its link's TLS key.
    pub tls_pin: String,
    /// Its link's key for the onion service.
    pub client_auth: String,
    /// Its identity.
    pub signer_key: PublicKey,
    /// When.
    pub at: i64,
}

/// A paired signer.
#[derive(Debug, Clone)]
pub struct SignerRow {
    /// Its name here.
    pub name: String,
    /// Its link's TLS key.
    pub tls_pin: String,
    /// Its link's key for the onion service.
    pub client_auth: String,
    /// Its identity.
    pub signer_key: PublicKey,
    /// When its link last asked for work.
    pub last_pull_at: Option<i64>,
    /// When its last report came.
    pub heartbeat_at: Option<i64>,
    /// The report, JSON.
    pub heartbeat: Option<String>,
}

/// A request to be kept.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// Chosen at random.
    pub id: String,
    /// For this signer.
    pub signer: String,
    /// About this wallet.
    pub wallet: String,
    /// What it asks.
    pub kind: RequestKind,
    /// About this transaction.
    pub member: Option<MemberId>,
    /// Canonical CBOR of a `RequestBody`.
    pub body: Vec<u8>,
    /// Not handed out before.
    pub not_before: i64,
}

/// A request.
#[derive(Debug, Clone)]
pub struct RequestRow {
    /// Its id.
    pub id: String,
    /// For this signer.
    pub signer: String,
    /// About this wallet.
    pub wallet: String,
    /// What it asks.
    pub kind: RequestKind,
    /// About this transaction.
    pub member: Option<MemberId>,
    /// Canonical CBOR of a `RequestBody`.
    pub body: Vec<u8>,
    /// Not handed out before.
    pub not_before: i64,
    /// Canonical CBOR of a `ReplyBody`.
    pub reply: Option<Vec<u8>>,
    /// What it meant.
    pub outcome: Option<Outcome>,
}

/// How a reply takes effect.
#[derive(Debug, Clone)]
pub enum ReplyEffect {
    /// Keeps the signatures (canonical CBOR of `Vec<InputSignature>`).
    Signed(Vec<u8>),
    /// Asks again later.
    Again {
        /// Wait or needs.
        outcome: Outcome,
        /// The next request.
        next: NewRequest,
        /// What to show.
        blocked: Blocked,
    },
    /// Never.
    No(Blocked),
    /// Stops the wallet.
    Alarm {
        /// What to show.
        blocked: Blocked,
    },
    /// Keeps a pool's scripts.
    Scripts(Vec<OwnScript>),
    /// Nothing.
    Ignored,
}

/// An API key to be kept.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Public part.
    pub id: String,
    /// Whose.
    pub person: String,
    /// SHA-256 of the secret part.
    pub hash: [u8; 32],
    /// May do.
    pub scopes: String,
    /// When.
    pub at: i64,
}

/// An API key.
#[derive(Debug, Clone)]
pub struct KeyRow {
    /// Public part.
    pub id: String,
    /// Whose.
    pub person: String,
    /// SHA-256 of the secret part.
    pub hash: Vec<u8>,
    /// May do.
    pub scopes: String,
    /// When it was made.
    pub created_at: i64,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}
