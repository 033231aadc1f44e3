//! From hostile bytes to a [`SpendPlan`]: nothing is read from a claim that could be proven instead. Pure.

mod plan;

pub use plan::*;
