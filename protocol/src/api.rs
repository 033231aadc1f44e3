//! JSON bodies between a link and the coordinator's signer API. Requests and replies are carried as they are
//! on the signer's socket (base64 of canonical CBOR), so the link translates nothing.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /signer/v1/pull` | [`Pull`] | [`Pulled`], after at most `wait_ms` |
//! | `POST /signer/v1/replies` | [`Reply`] | 204; a reply to a request that is answered already is 204 as well |
//! | `POST /signer/v1/heartbeat` | [`Heartbeat`] | 204 |

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest long poll, in milliseconds.
pub const PULL_WAIT_MAX_MS: u64 = 30_000;

/// Bytes that are base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        STANDARD.decode(String::deserialize(d)?).map(Self).map_err(de::Error::custom)
    }
}

/// Asks for work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// How many requests the link can take now.
    pub capacity: u32,
    /// How long to hold the call open when there is none, at most [`PULL_WAIT_MAX_MS`].
    pub wait_ms: u64,
    /// Ids that the link is still working on; the coordinator does not hand those out again.
    pub in_flight: Vec<String>,
}

/// Work. The coordinator hands a request out again whenever it has no reply and the link does not name it as in flight;
/// the signer makes repeats free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// What to ask the signer.
    pub requests: Vec<Request>,
    /// Nonce for the next heartbeat, in base64.
    pub heartbeat_nonce: Base64,
}

/// One request for the signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The coordinator's id, at most 64 characters.
    pub id: String,
    /// A [`crate::request::RequestBody`].
    pub body: Base64,
}

/// One reply of the signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The request's id.
    pub id: String,
    /// A [`crate::reply::ReplyBody`].
    pub body: Base64,
}

/// A signed report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// COSE_Sign1, see [`crate::heartbeat`].
    pub cose: Base64,
}
