//! The limits: `decide(&PolicyState, &SpendPlan, now) -> Verdict`. Pure: no I/O, no clock, no globals.

pub mod rules;
