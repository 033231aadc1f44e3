//! A key expression of a descriptor: as in BIP 380, or the word `pool`.

use std::{fmt, str::FromStr};

use bitcoin::{
    PublicKey,
    hashes::{hash160, ripemd160, sha256},
};
use miniscript::{
    MiniscriptKey,
    descriptor::{DescriptorPublicKey, SinglePubKey},
    hash256,
};

/// The word that stands where a pool wallet's numbered keys go.
const POOL: &str = "pool";

/// A key expression.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum WalletKey {
    /// The numbered key of the position.
    Pool,
    /// A public key or an extended one.
    Public(Box<DescriptorPublicKey>),
}

impl WalletKey {
    /// Extended keys that end in `/*`.
    pub(super) fn has_wildcard(&self) -> bool {
        matches!(self, Self::Public(key) if key.has_wildcard())
    }

    /// The key itself where it is neither extended nor numbered.
    pub(super) fn single(&self) -> Option<PublicKey> {
        match self {
            Self::Public(key) => match key.as_ref() {
                DescriptorPublicKey::Single(single) => Some(match single.key {
                    SinglePubKey::FullKey(full) => full,
                    SinglePubKey::XOnly(x) => PublicKey::new(x.public_key(bitcoin::key::Parity::Even)),
                }),
                DescriptorPublicKey::XPub(_) | DescriptorPublicKey::MultiXPub(_) => None,
            },
            Self::Pool => None,
        }
    }
}

impl fmt::Display for WalletKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool => f.write_str(POOL),
            Self::Public(key) => key.fmt(f),
        }
    }
}

impl FromStr for WalletKey {
    type Err = <DescriptorPublicKey as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == POOL { Ok(Self::Pool) } else { text.parse().map(|key| Self::Public(Box::new(key))) }
    }
}

impl MiniscriptKey for WalletKey {
    type Sha256 = sha256::Hash;
    type Hash256 = hash256::Hash;
    type Ripemd160 = ripemd160::Hash;
    type Hash160 = hash160::Hash;

    fn is_uncompressed(&self) -> bool {
        matches!(self, Self::Public(key) if key.is_uncompressed())
    }
    fn is_x_only_key(&self) -> bool {
        matches!(self, Self::Public(key) if key.is_x_only_key())
    }
    fn num_der_paths(&self) -> usize {
        match self {
            Self::Pool => 0,
            Self::Public(key) => key.num_der_paths(),
        }
    }
}
