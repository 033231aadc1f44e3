//! The signer alone, on a real token, asked through its socket; what it signs is judged by bitcoind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod coins;
mod commands;
mod interruptions;
mod limits;
mod multisig;
mod refusals;
mod sandbox;
mod scripts;
