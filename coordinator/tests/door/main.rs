//! The real link against the real door, directly and over a private Tor network. Behind the door stands a small office that hands out
//! requests and keeps answers, behind the link a small vault that speaks the signer's socket protocol.
#![allow(clippy::unwrap_used, missing_docs)]

mod direct;
mod office;
mod onion;
mod stage;
mod vault;
