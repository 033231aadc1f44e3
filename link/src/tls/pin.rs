//! A TLS public key's fingerprint.

use std::{fmt, str::FromStr};

use rustls::{pki_types::CertificateDer, server::ParsedCertificate};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "sha256:";

/// SHA-256 of a SubjectPublicKeyInfo (DER), written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlsPin([u8; 32]);

/// Why a text is no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a TLS pin is written `sha256:` and 64 hex digits")]
pub struct PinError;

impl TlsPin {
    /// Of a public key.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// Of a certificate's public key.
    ///
    /// # Errors
    /// [`rustls::Error`] when the bytes are not an X.509 v3 certificate.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        Ok(Self::of_spki(&ParsedCertificate::try_from(certificate)?.subject_public_key_info()))
    }
}

impl fmt::Display for TlsPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for TlsPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TlsPin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.strip_prefix(PREFIX).ok_or(PinError)?, &mut bytes).map_err(|_| PinError)?;
        Ok(Self(bytes))
    }
}

impl Serialize for TlsPin {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TlsPin {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}
