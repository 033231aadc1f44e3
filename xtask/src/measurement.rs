//! What a bench says: one line of JSON on standard output for each thing it measured. Everything else it wants to say goes to
//! standard error.
//!
//! A bench is an example whose name begins with `bench_`, in any crate (`signer/examples/bench_ledger.rs`). `cargo xtask bench`
//! builds it in release, runs it alone, prints all lines as one table and keeps them under `target/bench/`.
//!
//! ```json
//! {"name":"ledger: charges, 16 clients","value":38500.0,"unit":"/s","ratio":0.91,"goal":"at least 0.8 of bare SQLite commits","ok":true}
//! ```
//!
//! Absolute values move with the machine. What must hold is therefore said as a `ratio` between two things that the same run
//! measured; `goal` says it in words and `ok` whether it held. A line without `ok` only informs. `cargo xtask bench` fails when one
//! is false.

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measurement {
    /// What was measured: `AREA: WHAT`.
    pub(crate) name: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what: `/s`, `ms`, `x`, `MiB`.
    pub(crate) unit: String,
    /// Against what the goal compares it with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// What is wanted, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<String>,
    /// Whether the goal was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ok: Option<bool>,
}
