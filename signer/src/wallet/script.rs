//! What a script of ours is, and with which keys it is spent.

use bitcoin::{PublicKey, ScriptBuf, bip32::DerivationPath, taproot::TapNodeHash};

/// How a wallet's private keys are kept (design: keys).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalletKind {
    /// One key, born in the token, never extractable.
    Hsm,
    /// Numbered keys, born in the token, stored wrapped under a token key.
    Pool,
    /// A BIP-32 seed, encrypted by a token key.
    Seed,
}

/// Where in a wallet a script stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// 0 receive, 1 change. A wallet with a single address has only branch 0 and its change returns there.
    pub branch: u32,
    /// Index in the branch.
    pub index: u32,
}

impl std::fmt::Display for Position {
    /// As in a path: `1/42`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.branch, self.index)
    }
}

/// Where a keystore finds a private key. Always checked against [`KeyRef::public_key`] before and after it signs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyLocator {
    /// The wallet's only key.
    Hsm,
    /// A numbered key.
    Pool(Position),
    /// Derived from the seed along this full path from the master key.
    Seed(DerivationPath),
}

/// A key of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRef {
    /// Where to find it.
    pub locator: KeyLocator,
    /// Its public half, the pin. Untweaked, also for Taproot.
    pub public_key: PublicKey,
}

/// A script of ours, all of it derived, nothing of it taken from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnScript {
    /// Where it stands.
    pub position: Position,
    /// The output script.
    pub script_pubkey: ScriptBuf,
    /// How it is spent.
    pub spend: SpendScript,
    /// Keys of ours that can sign for it (for Taproot: see [`SpendScript::Taproot`]).
    pub keys: Vec<KeyRef>,
    /// Weight units of a satisfied input beyond the 41 bytes × 4 of its outpoint, empty scriptSig and sequence; upper bound,
    /// the count of witness items included.
    pub satisfaction_weight: u64,
}

/// The scripts revealed when spending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpendScript {
    /// BIP 44.
    P2pkh,
    /// BIP 141.
    P2wpkh,
    /// BIP 141 in BIP 16, with the redeem script.
    P2shP2wpkh {
        /// The v0 program.
        redeem_script: ScriptBuf,
    },
    /// BIP 141 with the witness script.
    P2wsh {
        /// `sortedmulti` or any sane miniscript.
        witness_script: ScriptBuf,
    },
    /// BIP 341.
    Taproot {
        /// The internal key, x-only.
        internal_key: bitcoin::key::XOnlyPublicKey,
        /// Parity of the output key: the lowest bit of a control block's first byte.
        output_key_parity: bitcoin::key::Parity,
        /// Root of the script tree; none when there is no tree.
        merkle_root: Option<TapNodeHash>,
        /// The key that signs the key path, when the internal key is ours.
        key_path: Option<KeyRef>,
        /// Each leaf that names a key of ours, with those keys.
        leaves: Vec<TapLeaf>,
    },
}

/// A leaf that we can sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapLeaf {
    /// The script.
    pub script: ScriptBuf,
    /// Leaf version 0xc0.
    pub version: bitcoin::taproot::LeafVersion,
    /// Keys of ours in it.
    pub keys: Vec<KeyRef>,
}
