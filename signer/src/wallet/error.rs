//! Why a wallet cannot be made of a descriptor.

use bitcoin::Network;

use super::{GAP_MAX, Position};

/// What is wrong with a wallet's descriptor or keys, and what mends it. Never holds a private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalletError {
    /// A private key stands in the descriptor. It must be considered lost: the file that holds it is not secret.
    #[error("the descriptor holds a private key; write its public half (xpub…, 02…), and consider that key disclosed")]
    PrivateKey,
    /// Not a descriptor.
    #[error("not a descriptor: {reason}")]
    Syntax {
        /// What the parser said.
        reason: String,
    },
    /// A kind of script that is not signed.
    #[error("{what} is not supported; use pkh(…), sh(wpkh(…)), wpkh(…), wsh(…), or tr(…) in a wallet of kind seed")]
    Unsupported {
        /// The script.
        what: String,
    },
    /// Taproot needs BIP-340 signatures, which tokens cannot make.
    #[error("tr(…) needs BIP-340 signatures, which no PKCS#11 token makes: use kind = \"seed\", or wpkh(…)")]
    Taproot,
    /// Miniscript's sanity check failed.
    #[error("the script is not safe to use: {reason}")]
    NotSane {
        /// Which rule.
        reason: String,
    },
    /// Hardened steps after an extended public key cannot be derived.
    #[error("{key}: hardened steps after an xpub cannot be derived; put them into the origin: [fingerprint/84h/0h/0h]xpub…/<0;1>/*")]
    Hardened {
        /// The key expression.
        key: String,
    },
    /// An extended key of another network.
    #[error("{key} is not a key for {network}: mainnet keys begin with xpub, those of test networks with tpub")]
    WrongNetwork {
        /// The key expression.
        key: String,
        /// The wallet's network.
        network: Network,
    },
    /// An uncompressed key.
    #[error("{key} is uncompressed; compressed keys only (02…, 03…)")]
    Uncompressed {
        /// The key.
        key: String,
    },
    /// Not two branches, nor a single address.
    #[error("{reason}; write …/<0;1>/* for receive and change addresses, or a descriptor without `*` for a single address")]
    Branches {
        /// What there is instead.
        reason: String,
    },
    /// Our key is not in the descriptor.
    #[error("our key {key} does not stand in the descriptor")]
    OwnKeyMissing {
        /// The key.
        key: String,
    },
    /// Our key stands there with another origin than it has.
    #[error("our key stands in the descriptor as {found}; its origin is {expected}")]
    Origin {
        /// In the descriptor.
        found: String,
        /// As it is.
        expected: String,
    },
    /// The word `pool` in a wallet of another kind, or a pool wallet without it.
    #[error("{reason}")]
    PoolWord {
        /// Which.
        reason: String,
    },
    /// The gap is not sensible.
    #[error("a gap of {gap}: it must be 1 to {GAP_MAX}")]
    Gap {
        /// What was asked for.
        gap: u32,
    },
    /// Two positions have the same script, so change could not be told from payments.
    #[error("positions {first} and {second} have the same script; a key's branches must not be another key's in reverse")]
    ScriptTwice {
        /// The first one.
        first: Position,
        /// The second one.
        second: Position,
    },
    /// There is no such position, or its pool key is not known yet.
    #[error("no script at {position}: {reason}")]
    Position {
        /// Which.
        position: Position,
        /// Why.
        reason: String,
    },
    /// Pool keys that do not fit those that are known.
    #[error("pool key {branch}/{index}: {reason}")]
    PoolKeys {
        /// The branch.
        branch: u32,
        /// The first index at fault.
        index: u32,
        /// Why.
        reason: String,
    },
}
