//! What is fuzzed: one function for each target, which takes any bytes and panics only when a promise is broken. The fuzzer runs
//! them (`fuzz_targets/`), and an ordinary test runs them on everything that was ever found (`softhsm-test/tests/findings.rs`).
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic)]

mod psbt;
pub mod structured;
pub mod wallets;
#[path = "../../coordinator/src/api/wish.rs"]
#[allow(dead_code, reason = "what only the coordinator uses")]
pub mod wish;
mod words;

/// A target: its name and what runs it.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("frame", words::frame),
    ("psbt", psbt::raw),
    ("psbt_structured", structured::run),
    ("config", words::config),
    ("command", words::command),
    ("heartbeat", words::heartbeat),
    ("bodies", words::bodies),
    ("wishes", words::wishes),
    ("entry", words::entry),
    ("ledger", words::ledger),
];

/// Runs a target.
#[allow(dead_code, reason = "only the fuzzer's programs need it")]
pub fn run(target: &str, bytes: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).unwrap_or_else(|| panic!("no target {target}"));
    body(bytes);
}
