//! The rows as types. Amounts are satoshi, times milliseconds since 1970.

mod attestation;
mod chain;
mod signers;

use bitcoin::{OutPoint, ScriptBuf, Txid};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use attestation::*;
pub use chain::*;
pub use signers::*;

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
        /// What was booted.
        Attest = "attest",
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
