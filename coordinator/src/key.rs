//! API keys: `postern_ID_SECRET`, 256 random bits of secret. Only a hash of it is kept; a stolen database opens no door.

use std::{collections::BTreeSet, fmt, str::FromStr};

use rand::RngCore as _;
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "postern";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Make and cancel orders, get deposit addresses.
    Create,
    /// Approve orders.
    Approve,
    /// See everything.
    Read,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Approve => "approve",
            Self::Read => "read",
        })
    }
}

/// Not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scope: create, approve, read")]
pub struct ScopeError(String);

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text {
            "create" => Ok(Self::Create),
            "approve" => Ok(Self::Approve),
            "read" => Ok(Self::Read),
            other => Err(ScopeError(other.to_owned())),
        }
    }
}

/// As the store keeps them: `create,read`.
#[must_use]
pub fn scopes_text(scopes: &BTreeSet<Scope>) -> String {
    scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// From that; what is no scope gives none.
#[must_use]
pub fn parse_scopes(text: &str) -> BTreeSet<Scope> {
    text.split(',').filter_map(|word| word.parse().ok()).collect()
}

/// A key as its owner has it. Printed once, when it is made.
pub struct ApiKey {
    id: [u8; ID_BYTES],
    secret: [u8; SECRET_BYTES],
}

impl ApiKey {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        let mut key = Self { id: [0; ID_BYTES], secret: [0; SECRET_BYTES] };
        rand::rngs::OsRng.fill_bytes(&mut key.id);
        rand::rngs::OsRng.fill_bytes(&mut key.secret);
        key
    }

    /// From its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
        let mut key = Self { id: [0; ID_BYTES], secret: [0; SECRET_BYTES] };
        hex::decode_to_slice(id, &mut key.id).ok()?;
        hex::decode_to_slice(secret, &mut key.secret).ok()?;
        Some(key)
    }

    /// Its public part.
    #[must_use]
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }

    /// What is kept of its secret part. With 256 random bits there is nothing to guess: no slow hash is needed.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// Whether this is the key that was kept; takes the same time wherever they differ.
    #[must_use]
    pub fn matches(&self, kept: &[u8]) -> bool {
        let hash = self.hash();
        kept.len() == hash.len() && kept.iter().zip(hash).fold(0_u8, |differ, (a, b)| differ | (a ^ b)) == 0
    }

    /// The text for its owner.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}_{}_{}", hex::encode(self.id), hex::encode(self.secret))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}_{}_…", hex::encode(self.id))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_reads_back_and_matches_only_its_own_hash() {
        let key = ApiKey::generate();
        let read = ApiKey::parse(&key.reveal()).unwrap();
        assert_eq!(read.id(), key.id());
        assert!(read.matches(&key.hash()));
        assert!(!read.matches(&ApiKey::generate().hash()));
        assert!(!read.matches(&[]));
    }

    #[test]
    fn a_key_does_not_show_its_secret_in_logs() {
        let key = ApiKey::generate();
        assert!(!format!("{key:?}").contains(&hex::encode(key.secret)));
    }
}
