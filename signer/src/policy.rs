//! The limits: [`decide`]`(&PolicyState, &SpendPlan, now)` says how much a transaction adds to what could leave, and whether
//! that fits. Pure: no I/O, no clock, no globals.
//!
//! - [`rules`]: what the configuration states; [`ScopeState`], [`Scopes`]: what is in force and what was spent;
//! - [`Bucket`]: one rate, exact;
//! - [`Kin`]: what was charged before and spends the same coins; it decides what is a fee bump and what is new money;
//! - `adopt`: what a changed configuration may change.
//!
//! `docs/limits.md` states the promise and works through examples.

mod adopt;
mod bucket;
mod decide;
mod kin;
pub mod rules;
mod scope;

pub use bucket::{Bucket, Fit};
pub use decide::{Authorized, PolicyState, decide};
pub use kin::{FAMILIES_MAX, Family, Kin, MEMBERS_MAX, Membership, Repeat};
pub(crate) use scope::RATES_MAX;
pub(crate) use scope::rate_name;
pub use scope::{RateError, ScopeState, Scopes, check_rates};

#[cfg(test)]
mod tests;
