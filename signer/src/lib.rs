//! The signer: it refuses. It signs a transaction only when every input and every change output is proven to be its
//! own, the money that leaves fits the limits, and the charge is on disk. It listens on no network, believes no gate and
//! keeps no key outside hardware longer than a signature takes.
//!
//! A request goes one way, one room per step; each step's type can only be made by the step before:
//!
//! ```text
//! bytes -intake-> Request -analysis-> SpendPlan -policy-> Authorized -ledger-> Charged -keystore-> Signed -reply->
//! ```
//!

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod analysis;
pub mod anchor;
pub mod attest;
pub mod cli;
pub mod client;
pub mod clock;
pub mod command;
pub mod config;
pub mod daemon;
pub mod identity;
pub mod intake;
pub mod keystore;
mod lane;
pub mod ledger;
pub mod policy;
pub mod protection;
pub mod sandbox;
pub mod secret;
pub mod sign;
pub mod tpm;
pub mod wallet;
