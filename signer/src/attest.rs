//! Remote attestation: the TPM signs what was booted, together with a nonce of whoever asks and with this signer's identity.
//!
//! The key that signs is made once by `postern init` and pinned by whoever verifies, as the identity is: that it is in a TPM at all
//! is what was seen at the set-up. From then on a statement that verifies came from the same chip, now, about this boot.

mod key;

use std::collections::BTreeMap;

use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier as _};
use postern_protocol::key::PublicKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use self::key::{AttestKeyError, key_path, make_key, read_key};
use crate::tpm::{PcrSet, PcrValues, Quote, pcr_meaning, quoted};

/// What the quote is bound to begins with this; another meaning gets another number.
const DOMAIN: &[u8] = b"postern/attest/1";
/// Largest statement in bytes; nearly all of it is the event log.
pub const STATEMENT_MAX: u64 = 4 << 20;
/// Longest nonce.
const NONCE_MAX: usize = 128;
/// Shortest nonce: one that does not repeat by chance.
const NONCE_MIN: usize = 16;

/// A statement: JSON, so that it can be carried and kept anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The form's number: 1.
    pub postern_attestation: u32,
    /// The signer that it speaks for.
    pub signer: PublicKey,
    /// What whoever asked gave.
    pub nonce: String,
    /// The attestation key: `p256:` and the compressed point in hex.
    pub key: String,
    /// The PCRs (SHA-256) and their values in hex.
    pub pcrs: BTreeMap<u8, String>,
    /// TPMS_ATTEST in hex: what the TPM signed.
    pub attest: String,
    /// ECDSA over its SHA-256: r and s in hex.
    pub signature: String,
    /// The firmware's event log (TCG PC Client), base64. It explains the PCRs; it is not signed by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log: Option<String>,
}

/// What must hold of a statement.
#[derive(Debug, Clone)]
pub struct Expected {
    /// What was given when it was asked for.
    pub nonce: String,
    /// The signer.
    pub signer: PublicKey,
    /// The pinned attestation key.
    pub key: String,
    /// Values of PCRs, all of which must be in the statement.
    pub pcrs: PcrValues,
}

/// One thing that holds, or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it holds.
    pub holds: bool,
    /// In words.
    pub words: String,
}

/// Not a statement, a nonce or a key.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// The nonce has another length or holds something else than printable ASCII.
    #[error("a nonce is {NONCE_MIN} to {NONCE_MAX} printable characters, new for each question; `openssl rand -hex 16` makes one")]
    Nonce,
    /// It is not JSON of this form.
    #[error("not an attestation: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another version.
    #[error("an attestation of form {0}, and this program knows form 1")]
    Version(u32),
    /// A field is not hex of the right length.
    #[error("not an attestation: {0} is not in the right form")]
    Field(&'static str),
}

/// Checks a nonce's form.
///
/// # Errors
/// [`FormError::Nonce`].
pub fn check_nonce(nonce: &str) -> Result<(), FormError> {
    let fits = (NONCE_MIN..=NONCE_MAX).contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(()) } else { Err(FormError::Nonce) }
}

/// What a quote is bound to: nonce and identity.
#[must_use]
pub fn qualifying(nonce: &str, signer: &PublicKey) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [DOMAIN, nonce.as_bytes(), signer.to_string().as_bytes()] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The attestation key's name, from its point.
#[must_use]
pub fn key_name(point: &[u8; 64]) -> Option<String> {
    let point = p256::EncodedPoint::from_untagged_bytes(point.into());
    let key = VerifyingKey::from_encoded_point(&point).ok()?;
    Some(format!("p256:{}", hex::encode(key.to_encoded_point(true).as_bytes())))
}

impl Statement {
    /// From a quote.
    #[must_use]
    pub fn new(signer: PublicKey, nonce: &str, key: String, quote: &Quote, event_log: Option<String>) -> Self {
        Self {
            postern_attestation: 1,
            signer,
            nonce: nonce.into(),
            key,
            pcrs: quote.pcrs.0.iter().map(|(index, value)| (*index, hex::encode(value))).collect(),
            attest: hex::encode(&quote.attest),
            signature: hex::encode(quote.signature),
            event_log,
        }
    }

    /// Reads a statement. Its bytes may be anybody's.
    ///
    /// # Errors
    /// [`FormError`].
    pub fn parse(json: &[u8]) -> Result<Self, FormError> {
        let statement: Self = serde_json::from_slice(json)?;
        match statement.postern_attestation {
            1 => Ok(statement),
            other => Err(FormError::Version(other)),
        }
    }

    /// The values that it claims.
    ///
    /// # Errors
    /// [`FormError::Field`].
    pub fn values(&self) -> Result<PcrValues, FormError> {
        let mut values = PcrValues::default();
        for (index, text) in &self.pcrs {
            let mut value = [0; 32];
            hex::decode_to_slice(text, &mut value).map_err(|_| FormError::Field("pcrs"))?;
            PcrSet::new([*index]).ok_or(FormError::Field("pcrs"))?;
            values.0.insert(*index, value);
        }
        Ok(values)
    }

    /// What holds of it and what does not. It is good when everything holds.
    ///
    /// # Errors
    /// [`FormError::Field`] when it cannot be looked at at all.
    pub fn verify(&self, expected: &Expected) -> Result<Vec<Finding>, FormError> {
        let mut findings = vec![];
        let mut find = |holds: bool, good: String, bad: String| findings.push(Finding { holds, words: if holds { good } else { bad } });
        let attest = hex::decode(&self.attest).map_err(|_| FormError::Field("attest"))?;
        let signature = hex::decode(&self.signature).map_err(|_| FormError::Field("signature"))?;
        let values = self.values()?;

        // The pinned key, whatever the statement says about its own.
        let key = expected.key.strip_prefix("p256:").and_then(|text| hex::decode(text).ok());
        let key = key.and_then(|bytes| VerifyingKey::from_sec1_bytes(&bytes).ok()).ok_or(FormError::Field("the pinned key"))?;
        let signed = Signature::from_slice(&signature).is_ok_and(|signature| key.verify(&attest, &signature).is_ok());
        find(
            signed,
            format!("signed by the pinned attestation key {}", expected.key),
            format!("not signed by the pinned attestation key {}; it names {}", expected.key, self.key),
        );
        // What is not signed says nothing.
        let Some(quote) = quoted(&attest).filter(|_| signed) else {
            if signed {
                find(false, String::new(), "what is signed is no quote of a TPM".into());
            }
            return Ok(findings);
        };
        find(
            quote.qualifying == qualifying(&expected.nonce, &expected.signer),
            format!("answers this nonce, for the signer {}", expected.signer),
            format!(
                "answers another nonce or speaks for another signer than {} (it says: nonce {}, signer {})",
                expected.signer, self.nonce, self.signer
            ),
        );
        let fits = quote.pcrs.as_ref() == Some(&values.set()) && quote.digest == values.digest();
        find(fits, "the PCR values are those that the TPM signed".into(), "the PCR values are not those that the TPM signed".into());
        if fits {
            for (index, wanted) in &expected.pcrs.0 {
                let (name, found) = (pcr_meaning(*index), values.0.get(index));
                let words = match found {
                    Some(found) => format!("PCR {index} ({name}) holds {}, and {} is expected", hex::encode(found), hex::encode(wanted)),
                    None => format!("PCR {index} ({name}) is not in the statement, and {} is expected", hex::encode(wanted)),
                };
                find(found == Some(wanted), format!("PCR {index} ({name}) holds {} as expected", hex::encode(wanted)), words);
            }
            if expected.pcrs.0.is_empty() {
                find(false, String::new(), "no PCR value is expected: nothing is known about what was booted".into());
            }
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_nonce_has_a_length_and_a_form() {
        check_nonce(&"ab".repeat(16)).unwrap();
        for nonce in
            ["", "short", "0123456789abcde", "with a space in it", "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}", &"a".repeat(129)]
        {
            assert!(check_nonce(nonce).is_err(), "{nonce}");
        }
    }

    #[test]
    fn rubbish_is_no_statement() {
        for json in [&b""[..], b"{}", b"[]", b"\xff", b"{\"postern_attestation\":1}"] {
            assert!(Statement::parse(json).is_err());
        }
    }
}
