//! The signer's numbers against bitcoind's: for random payments from wallets of every kind, what the analysis says of inputs,
//! outputs, fee and change is what bitcoind says, and every signature over its digests is good for bitcoind.
//!
//! A few hundred by default; `POSTERN_DIFFERENTIAL=5000` makes as many, `POSTERN_DIFFERENTIAL_SEED=7` others. The seed that failed
//! stands in the message.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

mod daemon;
mod judge;
mod library;
mod random;
mod wallets;
