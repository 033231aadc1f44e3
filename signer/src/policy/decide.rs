//! The decision. Nothing changes on a refusal, since nothing is changed here at all.

use postern_protocol::{
    command::Scope,
    refusal::{Refusal, RefusalCode},
    units::{format_amount_sat, format_duration_ms},
};

use super::{
    bucket::Fit,
    kin::{Kin, Membership},
    rules::{Destinations, PolicyRules},
    scope::{ScopeState, Scopes, rate_name},
};
use crate::{analysis::SpendPlan, clock::Uptime};

/// Everything that a decision depends on besides the plan and the time.
#[derive(Debug, Clone, Copy)]
pub struct PolicyState<'a> {
    /// What the configuration states.
    pub rules: &'a PolicyRules,
    /// What is in force, and what was spent.
    pub scopes: &'a Scopes,
    /// What was charged before and spends the same coins. Empty: nothing was.
    pub kin: &'a Kin,
}

/// A transaction that the policy lets pass. Only [`decide`] makes one, and only the ledger charges it.
#[derive(Debug, PartialEq, Eq)]
pub struct Authorized {
    increase_sat: u64,
    membership: Membership,
    at_ms: u64,
}

impl Authorized {
    /// What is charged: how much more could leave once this is signed.
    #[must_use]
    pub fn increase_sat(&self) -> u64 {
        self.increase_sat
    }
    /// The family that is charged.
    #[must_use]
    pub fn membership(&self) -> Membership {
        self.membership
    }
    /// When it was decided, as uptime in milliseconds.
    #[must_use]
    pub fn at_ms(&self) -> u64 {
        self.at_ms
    }
}

/// Whether the plan fits the limits now, and what it would be charged.
///
/// Checked in this order: frozen, locked, destinations, then (for what is not charged yet) burst, total, level. So a refusal
/// never says "wait" where waiting does not help.
///
/// # Errors
/// `WalletUnknown`, `Frozen`, `Locked`, `DestinationForbidden`, `RateBurst`, `TotalReached`, `RateWait`.
pub fn decide(state: &PolicyState<'_>, plan: &SpendPlan, now: Uptime) -> Result<Authorized, Refusal> {
    let name = plan.wallet();
    let (Some(rules), Some(wallet)) = (state.rules.wallets.get(name), state.scopes.wallets.get(name)) else {
        return Err(Refusal::new(RefusalCode::WalletUnknown, format!("no [wallet.{name}] is configured")));
    };
    let wallet_scope = Scope::Wallet(name.into());
    let scopes = [(&Scope::Signer, &state.scopes.signer), (&wallet_scope, wallet)];
    for (scope, held) in scopes {
        check_held(scope, held)?;
    }
    check_destinations(plan, &rules.destinations)?;

    let (membership, charged_sat) = state.kin.place(plan);
    let mut increase_sat = plan.outflow_sat().saturating_sub(charged_sat);
    if let Membership::Founds(_) = membership {
        // With inputs of others it may be that nothing leaves. An entry in the ledger is not free even so.
        increase_sat = increase_sat.max(plan.relay_fee_sat());
    }
    let at_ms = now.as_millis();
    if increase_sat > 0 {
        for (scope, held) in scopes {
            check_burst(scope, held, increase_sat)?;
        }
        for (scope, held) in scopes {
            check_total(scope, held, increase_sat)?;
        }
        check_levels(&scopes, increase_sat, at_ms)?;
    }
    Ok(Authorized { increase_sat, membership, at_ms })
}

fn check_held(scope: &Scope, held: &ScopeState) -> Result<(), Refusal> {
    let mend = "a command signed by the quorum ends it: postern command new unfreeze";
    if let Some(by) = &held.frozen {
        return Err(Refusal::new(RefusalCode::Frozen, format!("{scope}: frozen by {by}; {mend}")));
    }
    if let Some(why) = &held.locked {
        return Err(Refusal::new(RefusalCode::Locked, format!("{scope}: locked: {why}; find out who did it, then {mend}")));
    }
    Ok(())
}

fn check_destinations(plan: &SpendPlan, destinations: &Destinations) -> Result<(), Refusal> {
    let Destinations::Scripts(scripts) = destinations else { return Ok(()) };
    let data = |value_sat: u64, script: &bitcoin::Script| value_sat == 0 && script.is_op_return();
    match plan.payments().iter().find(|p| !scripts.contains(&p.script_pubkey) && !data(p.value_sat, &p.script_pubkey)) {
        None => Ok(()),
        Some(payment) => Err(Refusal::new(
            RefusalCode::DestinationForbidden,
            format!(
                "output {} pays {} to script {:x}, which is not in [wallet.{}] destinations",
                payment.output,
                format_amount_sat(payment.value_sat),
                payment.script_pubkey,
                plan.wallet()
            ),
        )),
    }
}

fn check_burst(scope: &Scope, held: &ScopeState, increase_sat: u64) -> Result<(), Refusal> {
    match held.buckets.iter().map(super::Bucket::rate).find(|rate| increase_sat > rate.burst_sat) {
        None => Ok(()),
        Some(rate) => Err(Refusal::new(
            RefusalCode::RateBurst,
            format!(
                "{scope}, {}: {} is more than the burst of {}; split the payment, or raise the rate by a command",
                rate_name(&rate),
                format_amount_sat(increase_sat),
                format_amount_sat(rate.burst_sat)
            ),
        )),
    }
}

fn check_total(scope: &Scope, held: &ScopeState, increase_sat: u64) -> Result<(), Refusal> {
    let allowance = held.allowance_sat.unwrap_or(u64::MAX);
    let left = allowance.saturating_sub(held.used_sat);
    if increase_sat <= left {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::TotalReached,
        format!(
            "{scope}: {} is more than the {} left of the total of {}; at least {} more must be let out by a command: postern command new add-total",
            format_amount_sat(increase_sat),
            format_amount_sat(left),
            format_amount_sat(allowance),
            format_amount_sat(increase_sat.saturating_sub(left))
        ),
    ))
}

fn check_levels(scopes: &[(&Scope, &ScopeState)], increase_sat: u64, now_ms: u64) -> Result<(), Refusal> {
    let waits = scopes.iter().flat_map(|(scope, held)| {
        held.buckets_at(now_ms).filter_map(move |bucket| match bucket.fit(increase_sat) {
            Fit::Now => None,
            Fit::After(ms) => Some((ms, *scope, bucket)),
            Fit::Never => Some((u64::MAX, *scope, bucket)),
        })
    });
    // Buckets only fill while nothing is charged, so the longest wait is the wait for all of them.
    let Some((wait_ms, scope, bucket)) = waits.max_by_key(|(ms, ..)| *ms) else { return Ok(()) };
    let refusal = Refusal::new(
        RefusalCode::RateWait,
        format!(
            "{scope}, {}: {} is more than the {} there are now of a burst of {}; it fits in {}",
            rate_name(&bucket.rate()),
            format_amount_sat(increase_sat),
            format_amount_sat(bucket.level_sat()),
            format_amount_sat(bucket.rate().burst_sat),
            format_duration_ms(wait_ms)
        ),
    );
    Err(refusal.wait_ms(wait_ms))
}
