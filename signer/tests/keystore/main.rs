//! The keystore on real SoftHSM tokens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hsm;
mod label;
mod pin;
mod pool;
mod recovery;
mod seed;
mod site;
