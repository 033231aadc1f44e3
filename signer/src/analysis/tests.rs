//! The analysis on real scripts of every kind, and on everything that is wrong with a PSBT.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)]

mod bounds;
mod change;
mod every_refusal;
mod every_script;
mod hostile;
mod money;
mod raw;
mod site;
