//! What a signer's link and the coordinator must know of each other: two small public files (TOML), carried by hand once.

use serde::{Deserialize, Serialize};

use crate::key::PublicKey;

/// Written by `postern-link init`, read by `postern-coordinator signer add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkPublic {
    /// SHA-256 of the link's TLS public key (SubjectPublicKeyInfo, DER), `sha256:` and 64 hex digits.
    pub tls_pin: String,
    /// Onion service client authorisation, `descriptor:x25519:…` (tor rend-spec-v3, appendix G).
    pub client_auth: String,
    /// The signer's identity key.
    pub signer_key: PublicKey,
}

/// Written by `postern-coordinator signer add`, read by `postern-link run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorPublic {
    /// SHA-256 of the coordinator's TLS public key, as above.
    pub tls_pin: String,
    /// The onion address with port, `….onion:443`; absent when only the direct way is offered.
    pub onion: Option<String>,
    /// Host and port for the direct way (LAN).
    pub direct: Option<String>,
}
