//! The signer's report to the coordinator: a canonical CBOR [`Heartbeat`] in a COSE_Sign1 (RFC 9052 §4.2) under the signer's
//! identity key. The link carries it and can neither make nor change one.

use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, iana};
use ed25519_dalek::{Signer as _, SigningKey};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{canonical, key::PublicKey, reply::LimitLevel};

/// Domain tag: external additional data of the signature.
pub const DOMAIN: &[u8] = b"postern/heartbeat/1";
/// Largest heartbeat, in bytes.
pub const HEARTBEAT_MAX: usize = 64 * 1024;
/// Longest nonce, in bytes.
pub const NONCE_MAX: usize = 64;

/// What the signer reports.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct Heartbeat {
    /// The coordinator's nonce.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub nonce: Vec<u8>,
    /// The signer's name.
    #[n(1)]
    pub signer: String,
    /// bitcoin, testnet4, signet or regtest.
    #[n(2)]
    pub network: String,
    /// SHA-256 of the policy in hex.
    #[n(3)]
    pub policy_hash: String,
    /// Number of the journal's last entry.
    #[n(4)]
    pub ledger_seq: u64,
    /// Hash of the journal's last entry, in hex.
    #[n(5)]
    pub ledger_head: String,
    /// All limits.
    #[n(6)]
    pub limits: Vec<LimitLevel>,
    /// Sum of all charges ever, in satoshi.
    #[n(7)]
    pub charged_sat: u64,
    /// How long the daemon has run, in milliseconds.
    #[n(8)]
    pub uptime_ms: u64,
    /// Names of keystores that cannot sign now.
    #[n(9)]
    pub keystores_down: Vec<String>,
    /// Frozen or locked scopes.
    #[n(10)]
    pub frozen: Vec<String>,
}

/// Why bytes are not a heartbeat of this signer.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// Over [`HEARTBEAT_MAX`].
    #[error("{0} bytes; a heartbeat has at most {HEARTBEAT_MAX}")]
    TooLarge(usize),
    /// Not COSE_Sign1.
    #[error("not a COSE_Sign1 message: {0}")]
    Cose(String),
    /// The payload is not a heartbeat.
    #[error("the payload is not a heartbeat: {0}")]
    Payload(#[from] canonical::CanonicalError),
    /// The signature is not the signer's.
    #[error("the signature is not by the signer's identity key")]
    Forged,
    /// The report answers another question.
    #[error("the nonce is not the one that was asked with")]
    Nonce,
}

/// Signs a report.
///
/// # Errors
/// [`HeartbeatError::Cose`] when it cannot be encoded.
pub fn sign(heartbeat: &Heartbeat, key: &SigningKey) -> Result<Vec<u8>, HeartbeatError> {
    let header = HeaderBuilder::new().algorithm(iana::Algorithm::EdDSA).build();
    CoseSign1Builder::new()
        .protected(header)
        .payload(canonical::to_vec(heartbeat))
        .create_signature(DOMAIN, |data| key.sign(data).to_bytes().to_vec())
        .build()
        .to_vec()
        .map_err(|e| HeartbeatError::Cose(e.to_string()))
}

/// Believes a report only when this signer made it for this nonce.
///
/// # Errors
/// [`HeartbeatError`]; never panics, whatever the bytes.
pub fn verify(bytes: &[u8], signer: &PublicKey, nonce: &[u8]) -> Result<Heartbeat, HeartbeatError> {
    if bytes.len() > HEARTBEAT_MAX {
        return Err(HeartbeatError::TooLarge(bytes.len()));
    }
    let cose = CoseSign1::from_slice(bytes).map_err(|e| HeartbeatError::Cose(e.to_string()))?;
    cose.verify_signature(DOMAIN, |bytes, data| if signer.verifies(data, bytes) { Ok(()) } else { Err(()) })
        .map_err(|()| HeartbeatError::Forged)?;
    let heartbeat: Heartbeat = canonical::from_slice(cose.payload.as_deref().unwrap_or_default())?;
    if heartbeat.nonce == nonce { Ok(heartbeat) } else { Err(HeartbeatError::Nonce) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_heartbeat_is_believed_only_from_its_signer_and_for_its_nonce() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let report = Heartbeat {
            nonce: vec![1, 2, 3],
            signer: "vault-1".into(),
            network: "regtest".into(),
            policy_hash: String::new(),
            ledger_seq: 7,
            ledger_head: String::new(),
            limits: vec![],
            charged_sat: 5,
            uptime_ms: 1,
            keystores_down: vec![],
            frozen: vec![],
        };
        let bytes = sign(&report, &key).unwrap();
        let public = key.verifying_key().into();
        assert_eq!(verify(&bytes, &public, &[1, 2, 3]).unwrap(), report);
        assert!(matches!(verify(&bytes, &public, &[1, 2, 4]), Err(HeartbeatError::Nonce)));
        let other = SigningKey::from_bytes(&[4; 32]).verifying_key().into();
        assert!(matches!(verify(&bytes, &other, &[1, 2, 3]), Err(HeartbeatError::Forged)));
    }
}
