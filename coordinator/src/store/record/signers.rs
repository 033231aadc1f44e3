//! Rows about signers, what is asked of them, and API keys.

use postern_protocol::key::PublicKey;

use super::{AttestationChange, Blocked, MemberId, Outcome, OwnScript, RequestKind};

/// A signer to be paired.
#[derive(Debug, Clone)]
pub struct NewSigner {
    /// Its name here.
    pub name: String,
    /// Its link's TLS key.
    pub tls_pin: String,
    /// Its link's key for the onion service.
    pub client_auth: String,
    /// Its identity.
    pub signer_key: PublicKey,
    /// When.
    pub at: i64,
}

/// A paired signer.
#[derive(Debug, Clone)]
pub struct SignerRow {
    /// Its name here.
    pub name: String,
    /// Its link's TLS key.
    pub tls_pin: String,
    /// Its link's key for the onion service.
    pub client_auth: String,
    /// Its identity.
    pub signer_key: PublicKey,
    /// When its link last asked for work.
    pub last_pull_at: Option<i64>,
    /// When its last report came.
    pub heartbeat_at: Option<i64>,
    /// The report, JSON.
    pub heartbeat: Option<String>,
}

/// A request to be kept.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// Chosen at random.
    pub id: String,
    /// For this signer.
    pub signer: String,
    /// About this wallet.
    pub wallet: String,
    /// What it asks.
    pub kind: RequestKind,
    /// About this transaction.
    pub member: Option<MemberId>,
    /// Canonical CBOR of a `RequestBody`.
    pub body: Vec<u8>,
    /// Not handed out before.
    pub not_before: i64,
}

/// A request.
#[derive(Debug, Clone)]
pub struct RequestRow {
    /// Its id.
    pub id: String,
    /// For this signer.
    pub signer: String,
    /// About this wallet.
    pub wallet: String,
    /// What it asks.
    pub kind: RequestKind,
    /// About this transaction.
    pub member: Option<MemberId>,
    /// Canonical CBOR of a `RequestBody`.
    pub body: Vec<u8>,
    /// Not handed out before.
    pub not_before: i64,
    /// Canonical CBOR of a `ReplyBody`.
    pub reply: Option<Vec<u8>>,
    /// What it meant.
    pub outcome: Option<Outcome>,
}

/// How a reply takes effect.
#[derive(Debug, Clone)]
pub enum ReplyEffect {
    /// Keeps the signatures (canonical CBOR of `Vec<InputSignature>`).
    Signed(Vec<u8>),
    /// Asks again later.
    Again {
        /// Wait or needs.
        outcome: Outcome,
        /// The next request.
        next: NewRequest,
        /// What to show.
        blocked: Blocked,
    },
    /// Never.
    No(Blocked),
    /// Stops the wallet.
    Alarm {
        /// What to show.
        blocked: Blocked,
    },
    /// Keeps a pool's scripts.
    Scripts(Vec<OwnScript>),
    /// Notes what was booted.
    Attested(AttestationChange),
    /// Nothing.
    Ignored,
}

/// An API key to be kept.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Public part.
    pub id: String,
    /// Whose.
    pub person: String,
    /// SHA-256 of the secret part.
    pub hash: [u8; 32],
    /// May do.
    pub scopes: String,
    /// When.
    pub at: i64,
}

/// An API key.
#[derive(Debug, Clone)]
pub struct KeyRow {
    /// Public part.
    pub id: String,
    /// Whose.
    pub person: String,
    /// SHA-256 of the secret part.
    pub hash: Vec<u8>,
    /// May do.
    pub scopes: String,
    /// When it was made.
    pub created_at: i64,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}
