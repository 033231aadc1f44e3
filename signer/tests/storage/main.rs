//! What a ledger survives: power cuts, full and failing disks, flipped bits, old copies, old formats, a second process.
//!
//! `docs/ledger.md` says what is promised; each test is named after its part of that.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, missing_docs)]

mod day;
mod disk;
mod failing;
mod pages;
mod plans;
mod power;
mod power_again;
mod rollback;
mod versions;
mod vfs;
