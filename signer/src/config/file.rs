//! The tables of `signer.toml`, as they are written. Units and secrets are read by types, so that serde's errors carry the
//! line; unknown keys are errors.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use bitcoin::Network;
use postern_protocol::{frame::FRAME_MAX, key};
use serde::{Deserialize, Deserializer, de};
use serde_spanned::Spanned;

use super::{
    keystore::KeystoreFile,
    value::{FeeRate, FingerprintText, FrameMax, Gap, InFlight, Millis, NvIndex, PoolMax, PublicKeyText, Sat, Share},
};
use crate::{policy::rules::Raise, wallet::WalletKind};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Who and where it is.
    pub(super) signer: SignerTable,
    /// Who may ask, and how much at a time.
    #[serde(default)]
    pub(super) socket: SocketTable,
    /// The limits of all wallets together.
    #[serde(default)]
    pub(super) limits: LimitsTable,
    /// Where the ledger's anchor is; nowhere without it.
    pub(super) anchor: Option<AnchorTable>,
    /// What the signer's process may still reach once it runs.
    #[serde(default)]
    pub(super) sandbox: SandboxTable,
    /// Where keys are.
    #[serde(default)]
    pub(super) keystore: BTreeMap<Spanned<String>, KeystoreFile>,
    /// What is spent from, and how.
    #[serde(default)]
    pub(super) wallet: BTreeMap<Spanned<String>, WalletTable>,
    /// Who may loosen the limits; nobody without it.
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
    pub gates: Vec<Spanned<String>>,
    /// Users who may see status and reasons as well. Root and the signer's own user always may.
    pub operators: Vec<Spanned<String>>,
    /// Largest request, `"4 KiB"` to `"16 MiB"`.
    pub frame_max: FrameMax,
    /// Most requests under way at one time on one connection.
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
    /// Who may raise a limit, `"command"` or `"config"`; only in `[limits]`.
    pub(super) raise: Option<Spanned<RaiseWord>>,
}

/// `raise = …`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(super) struct RaiseWord(#[serde(deserialize_with = "super::value::raise")] pub(super) Raise);

/// One token bucket.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateTable {
    /// What comes back in each `per`.
    pub(super) amount: Sat,
    /// How long that takes.
    pub(super) per: Millis,
    /// Capacity; `amount` when absent.
    pub(super) burst: Option<Sat>,
}

/// `[anchor]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnchorTable {
    /// `none`, `pkcs11` or `tpm`.
    pub(super) kind: Spanned<AnchorKind>,
    /// For `pkcs11` and `tpm`: the keystore whose token or TPM holds it.
    pub(super) keystore: Option<Spanned<String>>,
    /// For `tpm`: the NV index.
    pub(super) index: Option<Spanned<NvIndex>>,
    /// By how much the bound is raised at a time, and so what a crash may burn.
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
    /// A TPM's non-volatile memory.
    Tpm,
}

/// `[sandbox]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxTable {
    /// What follows from a kernel that lacks a part.
    pub missing: OnMissing,
    /// Files and folders that the token's module reads and writes besides SoftHSM's, which are known.
    pub read_write: Vec<PathBuf>,
    /// Files and folders that it reads.
    pub read: Vec<PathBuf>,
    /// The module talks to a service on this machine (pcscd, opencryptoki): Unix sockets and System V IPC stay allowed.
    pub local_services: bool,
    /// The module dials its HSM over TCP: network sockets stay allowed, also to whoever takes the signer over.
    pub dangerous_network: bool,
}

/// What follows from a kernel without Landlock or seccomp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMissing {
    /// A warning in the log, and a line of `check`.
    #[default]
    Warn,
    /// The signer does not start.
    Refuse,
}

/// `[wallet.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WalletTable {
    /// The keystore's name.
    pub(super) keystore: Spanned<String>,
    /// `hsm`, `pool` or `seed`: how its keys are kept.
    #[serde(deserialize_with = "super::value::wallet_kind")]
    pub(super) kind: WalletKind,
    /// Its public descriptor (BIP 380, BIP 389), as `postern wallet new` prints it.
    pub(super) descriptor: Spanned<String>,
    /// For `hsm`: our key in the descriptor.
    pub(super) public_key: Option<Spanned<PublicKeyText>>,
    /// For `seed`: which keys of the descriptor are ours, where it names those of several signers.
    pub(super) fingerprint: Option<Spanned<FingerprintText>>,
    /// Addresses are recognised this far past the last used one.
    #[serde(default = "gap_default")]
    pub(super) gap: Gap,
    /// For `pool`: most keys of one branch.
    pub(super) pool_max: Option<Spanned<PoolMax>>,
    /// Caps on the fee; all that are given hold.
    #[serde(default)]
    pub(super) fee: FeeTable,
    /// Where money may go: `"any"`, a list of addresses, or `{ file = … }`.
    pub(super) destinations: Option<Spanned<DestinationsTable>>,
    /// OP_RETURN outputs of value zero pass.
    #[serde(default)]
    pub(super) allow_op_return: bool,
    /// Inputs of others pass, when proven like own ones.
    #[serde(default)]
    pub(super) allow_foreign_inputs: bool,
    /// Latest absolute lock time, as a block height, that is signed.
    pub(super) max_locktime_height: Option<u32>,
    /// The wallet's own limits; the signer's hold as well.
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
    /// Of a transaction.
    pub(super) max: Option<Sat>,
    /// Of a transaction, per virtual byte.
    pub(super) max_rate: Option<FeeRate>,
    /// Of what is paid to others.
    pub(super) max_share: Option<Share>,
}

/// `destinations = …`
#[derive(Debug)]
pub(super) enum DestinationsTable {
    /// `"any"`
    Word(String),
    /// Addresses.
    List(Vec<Spanned<String>>),
    /// `{ file = … }`: a file with an address a line.
    File(DestinationsFile),
}

// By hand: serde's `untagged` would lose where each address stands.
impl<'de> Deserialize<'de> for DestinationsTable {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct DestinationsVisitor;

        impl<'de> de::Visitor<'de> for DestinationsVisitor {
            type Value = DestinationsTable;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"any\", a list of addresses, or { file = \"…\" } with an address a line")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<DestinationsTable, E> {
                Ok(DestinationsTable::Word(word.into()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<DestinationsTable, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(DestinationsTable::List)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<DestinationsTable, A::Error> {
                Deserialize::deserialize(de::value::MapAccessDeserializer::new(map)).map(DestinationsTable::File)
            }
        }

        d.deserialize_any(DestinationsVisitor)
    }
}

/// `{ file = … }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DestinationsFile {
    /// Absolute, or relative to the configuration's folder.
    pub(super) file: PathBuf,
}

/// `[commands]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandsTable {
    /// How many must sign what loosens a limit.
    pub(super) quorum: Spanned<usize>,
    /// Who may sign.
    pub(super) managers: Vec<Spanned<ManagerTable>>,
    /// What follows from a forged command, beside the alarm: `lock` or `refuse`.
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
    /// The name that stands in the journal.
    pub(super) name: Spanned<String>,
    /// The public key, `ed25519:…`, as `postern command keygen` prints it.
    pub(super) key: key::PublicKey,
}
