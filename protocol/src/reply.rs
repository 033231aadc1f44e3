//! What the signer answers: signatures, facts about itself, or a [`Refusal`]. No field of the asker's is echoed
//! but the request's id.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{attest::Statement, refusal::Refusal};

/// Most addresses in one reply.
pub const ADDRESSES_MAX: u32 = 1_000;
/// Most scripts that a signer recognises on a branch of a wallet at all, about 1 KB of its memory each. Nothing is received past it; change
/// goes to earlier ones again.
pub const BRANCH_MAX: u32 = 1_000_000;

/// One reply, one frame.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Reply {
    /// [`crate::PROTOCOL_VERSION`].
    #[n(0)]
    pub version: u16,
    /// The request's id.
    #[n(1)]
    pub id: u64,
    /// The answer.
    #[n(2)]
    pub body: ReplyBody,
}

/// The kinds of reply.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ReplyBody {
    /// The signatures.
    #[n(0)]
    Signed(#[n(0)] Signed),
    /// A typed no.
    #[n(1)]
    Refused(#[n(0)] Refusal),
    /// A run of addresses.
    #[n(2)]
    Addresses(#[n(0)] Vec<Address>),
    /// The wallets' public halves.
    #[n(3)]
    Wallets(#[n(0)] Vec<WalletInfo>),
    /// For operators.
    #[n(4)]
    Status(#[n(0)] Box<Status>),
    /// A COSE_Sign1 over a [`crate::heartbeat::Heartbeat`].
    #[n(5)]
    Heartbeat(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A manager's command took effect.
    #[n(6)]
    Applied(#[n(0)] Applied),
    /// What was booted, as the TPM says it.
    #[n(7)]
    Attested(#[n(0)] Box<Statement>),
}

/// Signatures of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Signed {
    /// Txid of the unsigned transaction, in internal (not display) byte order.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub unsigned_txid: [u8; 32],
    /// One entry for each signature.
    #[n(1)]
    pub signatures: Vec<InputSignature>,
}

/// One signature and where it goes in a PSBT.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct InputSignature {
    /// Index of the input.
    #[n(0)]
    pub input: u32,
    /// The signing key: 33 bytes compressed (ECDSA) or 32 bytes x-only (Schnorr; the output key for a key path spend,
    /// the leaf's key for a script path spend).
    #[cbor(n(1), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// DER with the sighash byte (ECDSA), or 64/65 bytes (BIP 340).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// Where it belongs.
    #[n(3)]
    pub place: SignaturePlace,
}

/// The PSBT field a signature belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SignaturePlace {
    /// PSBT_IN_PARTIAL_SIG (BIP 174).
    #[n(0)]
    Partial,
    /// PSBT_IN_TAP_KEY_SIG (BIP 371).
    #[n(1)]
    TapKey,
    /// PSBT_IN_TAP_SCRIPT_SIG (BIP 371), for this leaf hash.
    #[n(2)]
    TapLeaf(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
}

/// An address as keys and script; the asker knows the network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Address {
    /// 0 receive, 1 change.
    #[n(0)]
    pub branch: u32,
    /// Index in the branch.
    #[n(1)]
    pub index: u32,
    /// The output script.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub script_pubkey: Vec<u8>,
    /// For a `pool` wallet the key's 33 bytes; empty where the descriptor gives it.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
}

/// A wallet's public half.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct WalletInfo {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// `hsm`, `pool`, `seed`.
    #[n(1)]
    pub kind: String,
    /// Its public descriptor (BIP 380) with checksum; a pool wallet's holds the word `pool` where each key goes.
    #[n(2)]
    pub descriptor: String,
    /// Addresses are recognised this far past the last used one.
    #[n(3)]
    pub gap: u32,
}

/// A limit as a gauge. Amounts in satoshi.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct LimitLevel {
    /// `signer` or the wallet's name.
    #[n(0)]
    pub scope: String,
    /// `rate 0.04 BTC per 1 min` or `total`.
    #[n(1)]
    pub name: String,
    /// What may still go out now.
    #[n(2)]
    pub available_sat: u64,
    /// Burst, or the total.
    #[n(3)]
    pub capacity_sat: u64,
    /// Refill: satoshi per [`Self::per_ms`]; 0 for a total.
    #[n(4)]
    pub refill_sat: u64,
    /// Refill period in milliseconds; 0 for a total.
    #[n(5)]
    pub per_ms: u64,
}

/// What an operator sees (`postern status`).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct Status {
    /// The signer's name.
    #[n(0)]
    pub signer: String,
    /// bitcoin, testnet4, signet or regtest.
    #[n(1)]
    pub network: String,
    /// SHA-256 of the policy, as `check` prints it, in hex.
    #[n(2)]
    pub policy_hash: String,
    /// Identity key, as text ([`crate::key`]).
    #[n(3)]
    pub identity: String,
    /// How long the daemon has run, in milliseconds.
    #[n(4)]
    pub uptime_ms: u64,
    /// All limits, the signer's own first.
    #[n(5)]
    pub limits: Vec<LimitLevel>,
    /// Number of the journal's last entry.
    #[n(6)]
    pub ledger_seq: u64,
    /// Hash of the journal's last entry, in hex.
    #[n(7)]
    pub ledger_head: String,
    /// `none`, `pkcs11-label`, …, and whether it proved the ledger to be the latest.
    #[n(8)]
    pub anchor: String,
    /// One for each keystore.
    #[n(9)]
    pub keystores: Vec<KeystoreStatus>,
    /// Frozen or locked scopes, with the reason.
    #[n(10)]
    pub frozen: Vec<String>,
    /// The newest refusals, newest first.
    #[n(11)]
    pub refusals: Vec<PastRefusal>,
    /// Sum of all charges ever, in satoshi.
    #[n(12)]
    pub charged_sat: u64,
    /// Transactions ever charged.
    #[n(13)]
    pub charged_transactions: u64,
    /// The challenge of the ledger's last re-base in hex, which commands name; None when there was none.
    #[n(14)]
    pub base: Option<String>,
    /// Ledger and anchor do not agree, and nothing is charged until the managers re-base.
    #[n(15)]
    pub rebase: Option<RebaseNeeded>,
}

/// What a re-base command must answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct RebaseNeeded {
    /// What does not agree.
    #[n(0)]
    pub why: String,
    /// 16 random bytes in hex; others at the next start.
    #[n(1)]
    pub challenge: String,
    /// What ledger and anchor know to be spent, in satoshi: the least that a re-base may count.
    #[n(2)]
    pub least_sat: u64,
}

/// A keystore's health.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct KeystoreStatus {
    /// Name in the configuration.
    #[n(0)]
    pub name: String,
    /// Token label, serial, module.
    #[n(1)]
    pub token: String,
    /// `ready`, or what is wrong and what mends it.
    #[n(2)]
    pub state: String,
    /// Whether it can sign now.
    #[n(3)]
    pub ready: bool,
}

/// One refusal of the past.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct PastRefusal {
    /// Wall clock, seconds since 1970.
    #[n(0)]
    pub at: u64,
    /// Wallet, if any.
    #[n(1)]
    pub wallet: String,
    /// Code.
    #[n(2)]
    pub code: String,
    /// The reason in words.
    #[n(3)]
    pub message: String,
}

/// A manager's command took effect.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct Applied {
    /// The command's serial.
    #[n(0)]
    pub serial: u64,
    /// What it did, in words.
    #[n(1)]
    pub effect: String,
}
