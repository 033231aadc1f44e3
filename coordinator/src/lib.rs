//! The coordinator: orders, chain monitor, transaction sender, and the door that signers dial.
#![forbid(unsafe_code)]

pub mod door;
