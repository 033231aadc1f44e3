//! The TPM's parts on real software TPMs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod anchor;
mod attesting;
mod board;
mod daemon;
mod keystore;
mod sealing;
