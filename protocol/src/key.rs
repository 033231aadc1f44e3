//! Ed25519 public keys as people see them: `ed25519:` and 64 hex digits. Signers and managers are known by such a key.

use std::{fmt, str::FromStr};

use ed25519_dalek::VerifyingKey;
use minicbor::{Decode, Encode, bytes::ByteArray};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

const PREFIX: &str = "ed25519:";

/// A public key that signs commands or heartbeats.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// Why a text or bytes are not a public key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// Not `ed25519:` and 64 hex digits.
    #[error("a public key is written `ed25519:` and 64 hex digits")]
    Form,
    /// Not a point, or one of small order, with which a signature proves nothing.
    #[error("this is not a usable Ed25519 point")]
    Point,
}

impl PublicKey {
    /// From its 32 bytes; points of small order are refused.
    ///
    /// # Errors
    /// [`KeyError::Point`].
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Point)?;
        if key.is_weak() { Err(KeyError::Point) } else { Ok(Self(key)) }
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The first 8 bytes of the SHA-256 of the key: short enough for paper, and only a hint which key to try.
    #[must_use]
    pub fn id(&self) -> [u8; 8] {
        let digest = Sha256::digest(self.0.as_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(digest.get(..8).unwrap_or(&[0; 8]));
        id
    }

    /// Whether this key made the signature; strict rules (RFC 8032 with canonical points).
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else { return false };
        self.0.verify_strict(message, &signature).is_ok()
    }
}

impl From<VerifyingKey> for PublicKey {
    fn from(key: VerifyingKey) -> Self {
        Self(key)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        let digits = text.strip_prefix(PREFIX).ok_or(KeyError::Form)?;
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| KeyError::Form)?;
        Self::from_bytes(bytes)
    }
}

/// In CBOR the 32 bytes.
impl<C> Encode<C> for PublicKey {
    fn encode<W: minicbor::encode::Write>(&self, e: &mut minicbor::Encoder<W>, _: &mut C) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(self.0.as_bytes())?;
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for PublicKey {
    fn decode(d: &mut minicbor::Decoder<'b>, c: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        Self::from_bytes(ByteArray::decode(d, c)?.into()).map_err(|e| minicbor::decode::Error::message(e.to_string()).at(at))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}
