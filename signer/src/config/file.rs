//! The tables of `signer.toml`, as they are written. Units and secrets are read by types, so that serde's errors carry the
//! line; unknown keys are errors.

use std::{collections::BTreeMap, path::PathBuf};

use bitcoin::{Network, PublicKey, bip32::Fingerprint};
use postern_protocol::{frame::FRAME_MAX, key};
use serde::Deserialize;
use serde_spanned::Spanned;

use super::value::{FeeRate, FrameMax, Gap, InFlight, Millis, PoolMax, Sat, SecretTable, Sessions, Share};
use crate::{keystore::SESSIONS_DEFAULT, policy::rules::Raise, wallet::WalletKind};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) signer: SignerTable,
    #[serde(default)]
    pub(super) socket: SocketTable,
    #[serde(default)]
    pub(super) limits: LimitsTable,
    #[serde(default)]
    pub(super) anchor: AnchorTable,
    #[serde(default)]
    pub(super) keystore: BTreeMap<Spanned<String>, KeystoreTable>,
    #[serde(default)]
    pub(super) wallet: BTreeMap<Spanned<String>, WalletTable>,
    #[serde(default)]
    pub(super) commands: Option<CommandsTable>,
}

/// `[signer]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignerTable {
    /// Its name in heartbeats and logs.
    pub(super) name: Spanned<String>,
    /// bitcoin, testnet4, signet or regtest.
    #[serde(deserialize_with = "super::value::network")]
    pub(super) network: Network,
    /// Folder of ledger, identity key and encrypted keys; only the signer's user may enter it.
    pub(super) state: PathBuf,
    /// The Unix socket that gates and operators ask at.
    pub(super) socket: PathBuf,
    /// What gates are told of a refusal.
    #[serde(default)]
    pub(super) disclose: Disclose,
}

/// What gates are told of a refusal. Operators are always told everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disclose {
    /// The code, its kind and the time to wait.
    #[default]
    Codes,
    /// Numbers and reasons as well.
    Full,
}

/// `[socket]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SocketTable {
    /// Users (names or numbers) whose processes may ask for signatures, addresses and heartbeats and bring commands.
    pub gates: Vec<String>,
    /// Users who may see status and reasons as well. Root and the signer's own user always may.
    pub operators: Vec<String>,
    /// Largest request, in bytes.
    pub frame_max: FrameMax,
    /// Most requests under way on one connection; one more is refused as busy.
    pub max_in_flight: InFlight,
}

impl Default for SocketTable {
    fn default() -> Self {
        Self { gates: vec![], operators: vec![], frame_max: FrameMax(FRAME_MAX), max_in_flight: InFlight(256) }
    }
}

/// `[limits]` and `[wallet.NAME.limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsTable {
    /// Token buckets; all hold.
    pub(super) rate: Vec<Spanned<RateTable>>,
    /// Lifetime sum.
    pub(super) total: Option<Sat>,
    /// Who may raise a limit; only in `[limits]`.
    #[serde(deserialize_with = "super::value::raise")]
    pub(super) raise: Option<Raise>,
}

/// One token bucket.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateTable {
    /// What comes back in each `per`.
    pub(super) amount: Sat,
    pub(super) per: Millis,
    /// Capacity; `amount` when absent.
    pub(super) burst: Option<Sat>,
}

/// `[anchor]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AnchorTable {
    pub(super) kind: AnchorKind,
    pub(super) keystore: Option<Spanned<String>>,
    pub(super) lease: Option<Sat>,
}

/// Where the ledger's anchor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnchorKind {
    /// Nowhere: a restored old ledger goes unseen, and buckets start empty.
    #[default]
    None,
    /// An object on a PKCS#11 token.
    Pkcs11,
}

/// `[keystore.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeystoreTable {
    /// `pkcs11`
    pub kind: KeystoreKind,
    /// The vendor's PKCS#11 library.
    pub module: PathBuf,
    /// The token.
    pub token: TokenTable,
    /// Where the user PIN is.
    pub pin: SecretTable,
    /// Sessions (and worker threads).
    #[serde(default = "sessions_default")]
    pub sessions: Sessions,
}

fn sessions_default() -> Sessions {
    Sessions(SESSIONS_DEFAULT)
}

/// Kinds of keystore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeystoreKind {
    /// A PKCS#11 token.
    Pkcs11,
}

/// A token, known by label and serial number, never by slot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenTable {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
}

/// `[wallet.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WalletTable {
    pub(super) keystore: Spanned<String>,
    #[serde(deserialize_with = "super::value::wallet_kind")]
    pub(super) kind: WalletKind,
    pub(super) descriptor: Spanned<String>,
    pub(super) public_key: Option<Spanned<PublicKey>>,
    pub(super) fingerprint: Option<Spanned<Fingerprint>>,
    #[serde(default = "gap_default")]
    pub(super) gap: Gap,
    pub(super) pool_max: Option<Spanned<PoolMax>>,
    #[serde(default)]
    pub(super) fee: FeeTable,
    pub(super) destinations: Option<Spanned<DestinationsTable>>,
    #[serde(default)]
    pub(super) allow_op_return: bool,
    #[serde(default)]
    pub(super) allow_foreign_inputs: bool,
    pub(super) max_locktime_height: Option<u32>,
    #[serde(default)]
    pub(super) limits: LimitsTable,
}

fn gap_default() -> Gap {
    Gap(1_000)
}

/// `fee = { … }`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FeeTable {
    pub(super) max: Option<Sat>,
    pub(super) max_rate: Option<FeeRate>,
    pub(super) max_share: Option<Share>,
}

/// `destinations = …`
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "destinations are \"any\", a list of addresses, or { file = \"…\" } with an address a line")]
pub(super) enum DestinationsTable {
    /// `"any"`
    Word(String),
    /// Addresses.
    List(Vec<String>),
    /// `{ file = … }`: a file with an address a line.
    File(DestinationsFile),
}

/// `{ file = … }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DestinationsFile {
    pub(super) file: PathBuf,
}

/// `[commands]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandsTable {
    pub(super) quorum: Spanned<usize>,
    pub(super) managers: Vec<Spanned<ManagerTable>>,
    #[serde(default)]
    pub(super) on_forgery: OnForgery,
}

/// What follows from a command with a wrong signature, beside the alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnForgery {
    /// What the command names is locked until a quorum unlocks it.
    #[default]
    Lock,
    /// Nothing more: whoever reaches the socket cannot stop the signer with it.
    Refuse,
}

/// One manager.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManagerTable {
    pub(super) name: String,
    pub(super) key: key::PublicKey,
}
