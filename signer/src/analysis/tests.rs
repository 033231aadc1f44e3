//! The analysis on real scripts of every kind. What is wrong with a PSBT is in the corpus, `softhsm-test/hostile/`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)]

mod bounds;
mod change;
mod every_script;
mod fields;
mod hostile;
mod money;
mod site;
