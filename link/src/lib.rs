//! `postern-link`: the gate that dials out. It has no keys that money depends on, opens no port, and can neither raise a
//! limit nor get a signature that the signer's policy refuses; taken over, it can delay and drop.
//!
//! ```text
//! signer's socket <── signer ── desk ── session ── api ── tls ── way ──> coordinator (Tor onion service, or direct)
//! ```
//!
//! - [`config`]: `link.toml`; [`identity`]: the link's own keys and its public file;
//! - [`tls`]: mutual TLS 1.3 with pinned keys, for both ends; [`tor`]: Tor as configured, private networks included;
//! - [`way`]: how to get a stream to the coordinator; [`api`]: HTTP calls over it;
//! - [`signer`]: the signer's socket, many requests in flight;
//! - [`desk`]: what is being worked on and what is not delivered yet; it outlives every connection;
//! - [`session`]: one time of being connected; [`daemon`]: sessions for ever.
#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod desk;
pub mod identity;
pub mod keyfile;
pub mod session;
pub mod signer;
pub mod tls;
pub mod tor;
pub mod way;
