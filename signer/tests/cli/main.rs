//! The programs as people run them: their own binaries, a real token, a real socket.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod checking;
mod commands;
mod desk;
mod ending;
mod recovery;
mod secrets;
mod setting_up;
mod signing;
