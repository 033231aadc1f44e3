//! The words that the signer, its gates and the coordinator speak. Nothing here reads a clock or holds
//! a secret, and the only I/O is to read a configuration file.
//!
//! - [`frame`]: length-prefixed frames on the signer's socket;
//! - [`canonical`]: deterministic CBOR (RFC 8949 §4.2.1), for everything that is sent or signed;
//! - [`request`], [`reply`], [`refusal`]: what is asked and what is answered;
//! - [`command`]: managers' commands, [`heartbeat`]: the signer's signed report, both in COSE (RFC 9052);
//! - [`attest`]: what a TPM says of the boot, and how that is checked;
//! - [`api`]: the JSON bodies between link and coordinator, [`pairing`]: what they know of each other;
//! - [`config_file`]: configuration files with errors that name line and nearest match;
//! - [`units`]: amounts, times and fee rates as people write them.
#![forbid(unsafe_code)]

pub mod api;
pub mod attest;
pub mod canonical;
pub mod command;
pub mod config_file;
pub mod frame;
pub mod heartbeat;
pub mod key;
pub mod pairing;
pub mod refusal;
pub mod reply;
pub mod request;
pub mod units;

/// Version of the socket protocol. A request with another one is refused with `refused.version_unsupported`.
pub const PROTOCOL_VERSION: u16 = 1;
