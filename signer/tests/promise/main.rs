//! The proof of the promise of the limits (`docs/limits.md`): whatever happens, what can leave is at most burst + rate × time, and at
//! most the total.
//!
//! - `observer` judges, from nothing but what was granted and when;
//! - `model` is the reference: what the documentation says, as a small program;
//! - `site` makes real PSBTs of real wallets;
//! - `story` says what can happen, and how often;
//! - `machine` plays long random stories against the real analysis, policy and ledger on disk, beside the model, under the observer;
//! - `hostile` tries what somebody at the gate would try;
//! - `judging` shows that the observer can say no.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod hostile;
mod judging;
mod machine;
// The exploration uses the rest.
#[allow(dead_code)]
mod model;
mod observer;
mod site;
mod story;
