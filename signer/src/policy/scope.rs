//! What is in force for a scope (the signer, or a wallet), and what was spent.

use std::collections::BTreeMap;

use postern_protocol::{
    command::{Rate, Scope},
    reply::LimitLevel,
    units::{MAX_MONEY_SAT, format_amount_sat, format_duration_ms},
};

use super::{
    adopt::at_most,
    bucket::Bucket,
    rules::{Limits, PolicyRules, Raise},
};

/// Most rates that a scope can have.
pub(crate) const RATES_MAX: usize = 8;

/// Why rates cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// More than eight.
    #[error("{0} rates; a scope has at most {RATES_MAX}")]
    TooMany(usize),
    /// Amount, time or burst is zero, or above 21,000,000 BTC.
    #[error("a rate of {amount} per {per} with burst {burst}: each must be more than zero and an amount at most 21,000,000 BTC")]
    OutOfRange {
        /// As written.
        amount: String,
        /// As written.
        per: String,
        /// As written.
        burst: String,
    },
}

/// Whether rates make sense.
///
/// # Errors
/// [`RateError`] names the rate.
pub fn check_rates(rates: &[Rate]) -> Result<(), RateError> {
    if rates.len() > RATES_MAX {
        return Err(RateError::TooMany(rates.len()));
    }
    let sane = |r: &Rate| r.per_ms > 0 && (1..=MAX_MONEY_SAT).contains(&r.amount_sat) && (1..=MAX_MONEY_SAT).contains(&r.burst_sat);
    match rates.iter().find(|r| !sane(r)) {
        None => Ok(()),
        Some(r) => Err(RateError::OutOfRange {
            amount: format_amount_sat(r.amount_sat),
            per: format_duration_ms(r.per_ms),
            burst: format_amount_sat(r.burst_sat),
        }),
    }
}

/// What is in force for one scope, and what was spent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ScopeState {
    /// The configuration's limits as far as they were accepted.
    pub(crate) accepted: Limits,
    /// The rates in force, with their deficits at [`Self::at_ms`].
    pub(crate) buckets: Vec<Bucket>,
    /// Uptime in milliseconds up to which the buckets are refilled.
    pub(crate) at_ms: u64,
    /// Sum of all charges ever (and of what a crash burnt), in satoshi.
    pub(crate) used_sat: u64,
    /// What [`Self::used_sat`] may reach. None: no total.
    pub(crate) allowance_sat: Option<u64>,
    /// Frozen by a manager's command; says by whom.
    pub(crate) frozen: Option<String>,
    /// Locked after a forgery; says why.
    pub(crate) locked: Option<String>,
}

impl ScopeState {
    /// A scope that has never charged anything: full buckets, the whole total.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            accepted: limits.clone(),
            buckets: limits.rates.iter().copied().map(Bucket::full).collect(),
            allowance_sat: limits.total_sat,
            ..Self::default()
        }
    }

    /// The rates in force.
    #[must_use]
    pub fn rates(&self) -> Vec<Rate> {
        self.buckets.iter().map(Bucket::rate).collect()
    }

    /// Why it is locked.
    #[must_use]
    pub fn locked(&self) -> Option<&str> {
        self.locked.as_deref()
    }

    /// The buckets as they are at `now_ms`; an earlier time than the last one changes nothing.
    pub(crate) fn buckets_at(&self, now_ms: u64) -> impl Iterator<Item = Bucket> + '_ {
        let elapsed = now_ms.saturating_sub(self.at_ms);
        self.buckets.iter().map(move |bucket| {
            let mut bucket = *bucket;
            bucket.refill(elapsed);
            bucket
        })
    }

    /// Refills up to `now_ms`.
    pub(crate) fn refill(&mut self, now_ms: u64) {
        self.buckets = self.buckets_at(now_ms).collect();
        self.at_ms = self.at_ms.max(now_ms);
    }

    /// Takes a charge out of everything.
    pub(crate) fn charge(&mut self, sat: u64, now_ms: u64) {
        self.refill(now_ms);
        for bucket in &mut self.buckets {
            bucket.take(sat);
        }
        self.used_sat = self.used_sat.saturating_add(sat);
    }

    /// Counts as spent what may have been spent without this ledger's knowledge. Nothing can have passed the allowance.
    pub(crate) fn burn(&mut self, sat: u64) {
        let most = self.allowance_sat.unwrap_or(u64::MAX).max(self.used_sat);
        self.used_sat = self.used_sat.saturating_add(sat).min(most);
    }

    /// The daemon started: its uptime begins at zero. Deficits stay when the ledger is proven to be the latest.
    pub(crate) fn restart(&mut self, keep: bool) {
        self.at_ms = 0;
        if !keep {
            for bucket in &mut self.buckets {
                let empty = Bucket::empty(bucket.rate());
                if empty.owes_more_than(bucket) {
                    *bucket = empty;
                }
            }
        }
    }

    /// Puts other rates in force. What was spent stays spent: a new bucket takes over the deficit of the old one with the same
    /// rate, else the largest of those with the same period and of those that it is stricter than (it may be all that is left of
    /// their promise), else the largest deficit there is.
    pub(crate) fn set_rates(&mut self, rates: &[Rate]) {
        let inherit = |rate: &Rate| {
            let largest = |same: &dyn Fn(&Rate) -> bool| {
                self.buckets.iter().filter(|b| same(&b.rate())).copied().reduce(|a, b| if b.owes_more_than(&a) { b } else { a })
            };
            largest(&|old| old == rate)
                .or_else(|| largest(&|old| old.per_ms == rate.per_ms || at_most(rate, old)))
                .or_else(|| largest(&|_| true))
                .map_or(Bucket::full(*rate), |old| old.under(*rate))
        };
        self.buckets = rates.iter().map(inherit).collect();
    }

    fn levels(&self, name: &str, now_ms: u64, out: &mut Vec<LimitLevel>) {
        for bucket in self.buckets_at(now_ms) {
            let rate = bucket.rate();
            out.push(LimitLevel {
                scope: name.into(),
                name: rate_name(&rate),
                available_sat: bucket.level_sat(),
                capacity_sat: rate.burst_sat,
                refill_sat: rate.amount_sat,
                per_ms: rate.per_ms,
            });
        }
        if let Some(allowance) = self.allowance_sat {
            out.push(LimitLevel {
                scope: name.into(),
                name: "total".into(),
                available_sat: allowance.saturating_sub(self.used_sat),
                capacity_sat: allowance,
                refill_sat: 0,
                per_ms: 0,
            });
        }
    }
}

/// `rate 0.04 BTC per 1 min`.
pub(crate) fn rate_name(rate: &Rate) -> String {
    format!("rate {} per {}", format_amount_sat(rate.amount_sat), format_duration_ms(rate.per_ms))
}

/// All scopes of a signer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Scopes {
    /// Who may raise a limit, as accepted.
    pub(crate) raise: Raise,
    /// The signer's own.
    pub(crate) signer: ScopeState,
    /// Each wallet's, also of wallets that are no longer configured.
    pub(crate) wallets: BTreeMap<String, ScopeState>,
}

impl Scopes {
    /// Of a signer that has never charged anything (`postern simulate`, a new ledger).
    #[must_use]
    pub fn new(rules: &PolicyRules) -> Self {
        Self {
            raise: rules.raise,
            signer: ScopeState::new(&rules.signer),
            wallets: rules.wallets.iter().map(|(name, wallet)| (name.clone(), ScopeState::new(&wallet.limits))).collect(),
        }
    }

    /// One scope.
    #[must_use]
    pub fn get(&self, scope: &Scope) -> Option<&ScopeState> {
        match scope {
            Scope::Signer => Some(&self.signer),
            Scope::Wallet(name) => self.wallets.get(name),
        }
    }

    /// One scope, to change it. A wallet's is made when it is missing.
    pub(crate) fn entry(&mut self, scope: &Scope) -> &mut ScopeState {
        match scope {
            Scope::Signer => &mut self.signer,
            Scope::Wallet(name) => self.wallets.entry(name.clone()).or_default(),
        }
    }

    /// All of them, the signer's first.
    pub fn iter(&self) -> impl Iterator<Item = (Scope, &ScopeState)> {
        let wallets = self.wallets.iter().map(|(name, state)| (Scope::Wallet(name.clone()), state));
        std::iter::once((Scope::Signer, &self.signer)).chain(wallets)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut ScopeState> {
        std::iter::once(&mut self.signer).chain(self.wallets.values_mut())
    }

    /// The gauges of all scopes that `rules` name, the signer's first.
    #[must_use]
    pub fn levels(&self, rules: &PolicyRules, now_ms: u64) -> Vec<LimitLevel> {
        let mut out = Vec::new();
        self.signer.levels("signer", now_ms, &mut out);
        for (name, wallet) in self.wallets.iter().filter(|(name, _)| rules.wallets.contains_key(*name)) {
            wallet.levels(name, now_ms, &mut out);
        }
        out
    }
}
