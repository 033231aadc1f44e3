//! The journal's entries, in canonical CBOR, and their hash chain. Everything else in the ledger follows from them.

use bitcoin::{OutPoint, Txid, hashes::Hash as _};
use minicbor::{Decode, Encode};
use postern_protocol::{
    command::{Action, Challenge, Rate, Scope},
    reply::InputSignature,
};
use sha2::{Digest, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

/// Domain tag of the hash chain.
const DOMAIN: &[u8] = b"postern/journal/1";
/// Bytes of an outpoint in an entry: txid in internal order, then the index, little-endian (as in a transaction).
pub(super) const OUTPOINT_LEN: usize = 36;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Entry {
    /// The ledger was made; its identity.
    #[n(0)]
    Created(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]),
    /// The daemon started.
    #[n(1)]
    Started(#[n(0)] StartEntry),
    /// The daemon stopped cleanly, at this uptime in milliseconds.
    #[n(2)]
    Stopped(#[n(0)] u64),
    /// A transaction was charged.
    #[n(3)]
    Charged(#[n(0)] ChargeEntry),
    /// The signatures of that charge.
    #[n(4)]
    Signed(#[n(0)] u64, #[n(1)] Vec<InputSignature>),
    /// A manager's command took effect: serial, action, who signed, uptime in milliseconds.
    #[n(5)]
    Commanded(#[n(0)] u64, #[n(1)] Action, #[n(2)] Vec<String>, #[n(3)] u64),
    /// A scope was locked, and why.
    #[n(6)]
    Locked(#[n(0)] Scope, #[n(1)] String),
    /// The managers' re-base took effect; the start before it counts what is spent.
    #[n(7)]
    Rebased(#[n(0)] RebaseEntry),
}

/// What a start found and changed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StartEntry {
    /// The anchor's kind.
    #[n(0)]
    pub anchor: String,
    /// Whether the anchor remembers anything.
    #[n(1)]
    pub anchored: bool,
    /// Whether it proved the ledger to be the latest: then the buckets keep their levels.
    #[n(2)]
    pub proven: bool,
    /// Satoshi counted as spent because the anchor's bound was higher.
    #[n(3)]
    pub burnt_sat: u64,
    /// Hash of the policy.
    #[n(4)]
    pub policy_hash: String,
    /// Whether only a command may raise a limit.
    #[n(5)]
    pub raise_by_command: bool,
    /// Scopes whose limits the configuration changed.
    #[n(6)]
    pub limits: Vec<LimitsEntry>,
}

/// A re-base.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RebaseEntry {
    /// The command's serial.
    #[n(0)]
    pub serial: u64,
    /// Who signed it.
    #[n(1)]
    pub managers: Vec<String>,
    /// The challenge that it answered: commands made before are void.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub base: Challenge,
    /// What it counted as spent, in satoshi.
    #[n(3)]
    pub spent_sat: u64,
    /// Commands ever applied, this one included, as far as ledger or anchor know.
    #[n(4)]
    pub commands: u64,
    /// What did not agree.
    #[n(5)]
    pub why: String,
}

/// New limits of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LimitsEntry {
    /// Which.
    #[n(0)]
    pub scope: Scope,
    /// The configuration's rates as accepted.
    #[n(1)]
    pub accepted_rates: Vec<Rate>,
    /// The configuration's total as accepted.
    #[n(2)]
    pub accepted_total_sat: Option<u64>,
    /// The rates in force.
    #[n(3)]
    pub rates: Vec<Rate>,
    /// What the sum of all charges may reach.
    #[n(4)]
    pub allowance_sat: Option<u64>,
}

/// A charge.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ChargeEntry {
    /// The wallet.
    #[n(0)]
    pub wallet: String,
    /// Txid of the unsigned transaction, in internal byte order.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub txid: [u8; 32],
    /// Everything that it spends, 36 bytes each, in order.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub outpoints: Vec<u8>,
    /// Own inputs minus proven change.
    #[n(3)]
    pub outflow_sat: u64,
    /// The fee in it.
    #[n(4)]
    pub fee_sat: u64,
    /// What was charged.
    #[n(5)]
    pub increase_sat: u64,
    /// To which family.
    #[n(6)]
    pub family: FamilyEntry,
    /// Uptime in milliseconds.
    #[n(7)]
    pub at_ms: u64,
    /// Branch and highest index of the wallet's scripts that occur in it.
    #[n(8)]
    pub used: Vec<(u32, u32)>,
}

/// The family of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum FamilyEntry {
    /// A new one, of the outpoint of this input.
    #[n(0)]
    Founds(#[n(0)] u32),
    /// The one that this charge founded, of the outpoint of this input.
    #[n(1)]
    Joins(#[n(0)] u64, #[n(1)] u32),
}

impl Entry {
    /// Its kind in a word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Entry::Created(_) => "created",
            Entry::Started(_) => "started",
            Entry::Stopped(_) => "stopped",
            Entry::Charged(_) => "charged",
            Entry::Signed(..) => "signed",
            Entry::Commanded(..) => "commanded",
            Entry::Locked(..) => "locked",
            Entry::Rebased(_) => "rebased",
        }
    }
}

impl ChargeEntry {
    /// What it spends.
    pub fn outpoints(&self) -> impl Iterator<Item = OutPoint> + '_ {
        self.outpoints.chunks_exact(OUTPOINT_LEN).filter_map(from_bytes)
    }

    /// The txid of its unsigned transaction.
    #[must_use]
    pub fn unsigned_txid(&self) -> Txid {
        Txid::from_byte_array(self.txid)
    }

    /// The 36 bytes of one of them.
    pub(super) fn outpoint(&self, input: u32) -> Option<[u8; OUTPOINT_LEN]> {
        self.outpoints.as_chunks().0.get(usize::try_from(input).ok()?).copied()
    }
}

/// The 36 bytes of an outpoint.
pub(super) fn to_bytes(outpoint: &OutPoint) -> [u8; OUTPOINT_LEN] {
    let mut bytes = [0; OUTPOINT_LEN];
    let (txid, vout) = bytes.split_at_mut(32);
    txid.copy_from_slice(outpoint.txid.as_byte_array());
    vout.copy_from_slice(&outpoint.vout.to_le_bytes());
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<OutPoint> {
    let (txid, vout) = bytes.split_first_chunk::<32>()?;
    Some(OutPoint { txid: Txid::from_byte_array(*txid), vout: u32::from_le_bytes(vout.try_into().ok()?) })
}

/// The hash of an entry: over the tag, its number, the hash before it, its kind and its body.
pub(super) fn chain(seq: u64, prev: &Hash, kind: &str, body: &[u8]) -> Hash {
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes();
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(seq.to_be_bytes());
    hash.update(prev);
    hash.update(length(kind.as_bytes()));
    hash.update(kind);
    hash.update(length(body));
    hash.update(body);
    hash.finalize().into()
}
