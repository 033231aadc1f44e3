//! The coordinator: orders, chain monitor, transaction sender, and the door that signers dial.
//!
//! It holds no key that money depends on. Whoever takes it over, database included, can ask the signers for everything and gets what
//! their limits allow. What it promises its own customers: an order is paid once, whatever crashes.
//!
//! - [`config`]: `coordinator.toml`; [`wallet`]: descriptors, addresses; [`store`]: everything remembered, each method one durable step;
//! - [`api`]: the customers' HTTP API; [`signer_api`]: the signers', served behind [`door`];
//! - [`monitor`] follows the chain, [`orders`] approves and batches, [`sender`] gets signatures, broadcasts, bumps and settles;
//! - [`draft`]: coin selection, PSBTs, signatures put together; [`node`]: bitcoind.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod api;
pub mod app;
pub mod attestation;
pub mod cli;
pub mod clock;
pub mod component;
pub mod config;
pub mod door;
pub mod draft;
pub mod failpoint;
pub mod key;
pub mod monitor;
pub mod node;
pub mod orders;
pub mod run;
pub mod sender;
pub mod signer_api;
pub mod store;
#[cfg(test)]
mod testing;
pub mod wallet;
