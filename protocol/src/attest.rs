//! Remote attestation: a TPM signs what was booted, together with a nonce of whoever asks and with the signer's identity; and the
//! signer's identity signs which key of which TPM that was.
//!
//! The signer makes statements, `postern attest verify` and the coordinator check them: both with [`Statement::verify`].

mod event_log;
mod pcr;
mod quote;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minicbor::{Decode, Encode};
use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

pub use self::{
    event_log::{Event, EventLog, EventLogError, changed_measurements, explain},
    pcr::{PcrSet, PcrValues, pcr_meaning},
    quote::{Quoted, quoted},
};
use crate::key::PublicKey;

/// What the quote is bound to begins with this; another meaning gets another number.
const DOMAIN: &[u8] = b"postern/attest/1";
/// What the identity signs begins with this.
const IDENTITY_DOMAIN: &[u8] = b"postern/attest-identity/1";
/// Largest statement as JSON, in bytes; nearly all of it is the event log.
pub const STATEMENT_MAX: u64 = 4 << 20;
/// Largest event log that is carried along, in bytes.
pub const EVENT_LOG_MAX: usize = 1 << 20;
/// Largest TPMS_ATTEST, in bytes; they have about 150.
const ATTEST_MAX: usize = 1024;
/// Longest nonce.
const NONCE_MAX: usize = 128;
/// Shortest nonce: one that does not repeat by chance.
const NONCE_MIN: usize = 16;
/// The form's number.
const FORM: u32 = 1;

/// A statement: canonical CBOR on the wire, JSON to be carried and kept anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cbor(map)]
pub struct Statement {
    /// The form's number: 1.
    #[n(0)]
    pub postern_attestation: u32,
    /// The signer that it speaks for.
    #[n(1)]
    pub signer: PublicKey,
    /// What whoever asked gave.
    #[n(2)]
    pub nonce: String,
    /// The attestation key: `p256:` and the compressed point in hex.
    #[n(3)]
    pub key: String,
    /// The PCRs (SHA-256) and their values.
    #[n(4)]
    pub pcrs: PcrValues,
    /// TPMS_ATTEST: what the TPM signed. In hex.
    #[cbor(n(5), with = "minicbor::bytes")]
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub attest: Vec<u8>,
    /// The attestation key's ECDSA over its SHA-256: r and s in hex.
    #[cbor(n(6), with = "minicbor::bytes")]
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub signature: Vec<u8>,
    /// The signer's identity key's Ed25519 over attestation key and TPMS_ATTEST, in hex: without it, whoever carries the first statement
    /// could put a TPM of its own in the place of the signer's.
    #[cbor(n(7), with = "minicbor::bytes")]
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub identity_signature: Vec<u8>,
    /// The firmware's event log (TCG PC Client), base64. It explains the PCRs; it is not signed by itself.
    #[cbor(n(8), with = "minicbor::bytes")]
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub event_log: Option<Vec<u8>>,
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
    #[error("an attestation of form {0}, and this program knows form {FORM}")]
    Version(u32),
    /// A field is too long, or not what it should be.
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
    bound(&[DOMAIN, nonce.as_bytes(), signer.to_string().as_bytes()])
}

/// What the signer's identity signs: which attestation key said what. Nonce, PCRs and identity are in the TPMS_ATTEST.
#[must_use]
pub fn vouched(key: &str, attest: &[u8]) -> [u8; 32] {
    bound(&[IDENTITY_DOMAIN, key.as_bytes(), attest])
}

fn bound(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
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

fn key_of(name: &str) -> Option<VerifyingKey> {
    let bytes = hex::decode(name.strip_prefix("p256:")?).ok()?;
    VerifyingKey::from_sec1_bytes(&bytes).ok()
}

impl Statement {
    /// Reads a statement. Its bytes may be anybody's.
    ///
    /// # Errors
    /// [`FormError`].
    pub fn parse(json: &[u8]) -> Result<Self, FormError> {
        let statement: Self = serde_json::from_slice(json)?;
        statement.check_form()?;
        Ok(statement)
    }

    /// What the types cannot say: lengths, and the form's number.
    fn check_form(&self) -> Result<(), FormError> {
        check_nonce(&self.nonce)?;
        match self {
            Self { postern_attestation: other, .. } if *other != FORM => Err(FormError::Version(*other)),
            Self { key, .. } if key_of(key).is_none() => Err(FormError::Field("key")),
            Self { attest, .. } if attest.len() > ATTEST_MAX => Err(FormError::Field("attest")),
            Self { signature, .. } if signature.len() != 64 => Err(FormError::Field("signature")),
            Self { identity_signature, .. } if identity_signature.len() != 64 => Err(FormError::Field("identity_signature")),
            Self { event_log: Some(log), .. } if log.len() > EVENT_LOG_MAX => Err(FormError::Field("event_log")),
            _ => Ok(()),
        }
    }

    /// What must hold of any statement of this signer that answers this nonce, whatever it says.
    #[must_use]
    pub fn expected_of_itself(&self, nonce: &str, signer: PublicKey) -> Expected {
        Expected { nonce: nonce.into(), signer, key: self.key.clone(), pcrs: self.pcrs.clone() }
    }

    /// What holds of it and what does not. It is good when everything holds.
    ///
    /// # Errors
    /// [`FormError`] when it cannot be looked at at all.
    pub fn verify(&self, expected: &Expected) -> Result<Vec<Finding>, FormError> {
        self.check_form()?;
        let mut findings = vec![];
        let mut find = |holds: bool, good: String, bad: String| findings.push(Finding { holds, words: if holds { good } else { bad } });

        // The pinned key, whatever the statement says about its own.
        let key = key_of(&expected.key).ok_or(FormError::Field("the pinned key"))?;
        let signed = Signature::from_slice(&self.signature).is_ok_and(|signature| key.verify(&self.attest, &signature).is_ok());
        find(
            signed,
            format!("signed by the pinned attestation key {}", expected.key),
            format!("not signed by the pinned attestation key {}; it names {}", expected.key, self.key),
        );
        // What is not signed says nothing.
        let Some(quote) = quoted(&self.attest).filter(|_| signed) else {
            if signed {
                find(false, String::new(), "what is signed is no quote of a TPM".into());
            }
            return Ok(findings);
        };
        find(
            expected.signer.verifies(&vouched(&self.key, &self.attest), &self.identity_signature),
            format!("vouched for by the signer's identity {}", expected.signer),
            format!("not vouched for by the signer's identity {}; it names {}", expected.signer, self.signer),
        );
        find(
            quote.qualifying == qualifying(&expected.nonce, &expected.signer),
            format!("answers this nonce, for the signer {}", expected.signer),
            format!(
                "answers another nonce or speaks for another signer than {} (it says: nonce {}, signer {})",
                expected.signer, self.nonce, self.signer
            ),
        );
        let fits = quote.pcrs.as_ref() == Some(&self.pcrs.set()) && quote.digest == self.pcrs.digest();
        find(fits, "the PCR values are those that the TPM signed".into(), "the PCR values are not those that the TPM signed".into());
        if fits {
            for (index, wanted) in &expected.pcrs.0 {
                let (name, found) = (pcr_meaning(*index), self.pcrs.0.get(index));
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

fn to_hex<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&hex::encode(bytes))
}

fn from_hex<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
    hex::decode(String::deserialize(d)?).map_err(de::Error::custom)
}

fn to_base64<S: Serializer>(bytes: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(s)
}

fn from_base64<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
    Option::<String>::deserialize(d)?.map(|text| STANDARD.decode(text).map_err(de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests;
