//! What the configuration pins about a wallet's keys.

use bitcoin::{
    Network, PublicKey,
    bip32::{DerivationPath, Fingerprint, Xpub},
};

/// A wallet and the public keys by which its private ones are recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletBinding {
    /// The wallet's name: letters, digits, `-` and `_`.
    pub wallet: String,
    /// The network that its seed or pool was made for.
    pub network: Network,
    /// What is pinned.
    pub keys: BoundKeys,
}

/// What is pinned about a wallet's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundKeys {
    /// The wallet's only key.
    Hsm {
        /// Its public half.
        public_key: PublicKey,
    },
    /// Every account key that the descriptor names as ours, at least one.
    Seed {
        /// Origins and extended public keys.
        accounts: Vec<AccountKey>,
    },
    /// Numbered keys: each is pinned by the pool file, whose batches are authenticated by a token key.
    Pool,
}

/// An extended public key with its origin (BIP 380).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountKey {
    /// Of the master key.
    pub fingerprint: Fingerprint,
    /// From the master key.
    pub path: DerivationPath,
    /// At the end of the path.
    pub xpub: Xpub,
}

impl std::fmt::Display for AccountKey {
    /// As in a descriptor: `[d34db33f/84'/1'/0']tpub…`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            return write!(f, "[{}]{}", self.fingerprint, self.xpub);
        }
        write!(f, "[{}/{}]{}", self.fingerprint, self.path, self.xpub)
    }
}
