//! The main job on real parts: an order goes in, a limited signature comes out, a transaction confirms. Whatever is killed,
//! cut or undone on the way, each order is paid once or not at all.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod attested;
mod chain;
mod interruptions;
mod main_job;
mod multisig;
mod orders;
mod over_tor;
mod stage;
