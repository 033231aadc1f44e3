//! The small part of what follows from the journal, in memory: limits, sums, counts. The large part (who spends which
//! outpoint) stays in the tables.

use std::collections::{BTreeMap, BTreeSet};

use postern_protocol::{
    command::{Action, Challenge, Scope},
    units::{MAX_MONEY_SAT, format_amount_sat},
};

use super::entry::{ChargeEntry, Entry, LimitsEntry, StartEntry};
use crate::policy::{
    ScopeState, Scopes, check_rates,
    rules::{Limits, Raise},
};

/// Sums over all time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Everything charged, and what crashes burnt, in satoshi.
    pub charged_sat: u64,
    /// Transactions charged.
    pub transactions: u64,
    /// Commands and locks applied.
    pub commands: u64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct State {
    pub(super) identity: [u8; 16],
    /// Never started.
    pub(super) fresh: bool,
    /// The kind of anchor that knows this ledger.
    pub(super) anchored: Option<String>,
    pub(super) charged_sat: u64,
    pub(super) transactions: u64,
    pub(super) commands: u64,
    /// The last re-base.
    pub(super) base: Option<Challenge>,
    pub(super) scopes: Scopes,
    /// By wallet and branch.
    pub(super) last_used: BTreeMap<String, BTreeMap<u32, u32>>,
}

impl State {
    /// The name under which the anchor knows this ledger. A re-base gives it a new one, so that no copy from before passes for it: the
    /// count of commands need not tell them apart where the anchor had forgotten how many there were.
    pub(super) fn known_as(&self) -> [u8; 16] {
        self.base.unwrap_or(self.identity)
    }

    /// What an entry changes. The one place, for the running signer and for `verify`.
    pub(super) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Created(identity) => {
                self.identity = *identity;
                self.fresh = true;
                // Nothing is accepted yet: the first configuration says who may raise.
                self.scopes.raise = Raise::Config;
            }
            Entry::Started(start) => self.start(start),
            Entry::Stopped(at_ms) => self.scopes.iter_mut().for_each(|scope| scope.refill(*at_ms)),
            Entry::Charged(charge) => self.charge(charge),
            Entry::Signed(..) => {}
            Entry::Commanded(serial, action, managers, at_ms) => {
                self.commands = self.commands.saturating_add(1);
                self.command(*serial, action, managers, *at_ms);
            }
            Entry::Locked(scope, why) => {
                self.commands = self.commands.saturating_add(1);
                self.scopes.entry(scope).locked = Some(why.clone());
            }
            Entry::Rebased(rebase) => {
                self.commands = rebase.commands;
                self.base = Some(rebase.base);
                self.scopes.iter_mut().for_each(|scope| scope.restart(false));
            }
        }
    }

    fn start(&mut self, start: &StartEntry) {
        self.burn(start.burnt_sat);
        self.scopes.raise = if start.raise_by_command { Raise::Command } else { Raise::Config };
        for limits in &start.limits {
            let known = self.scopes.get(&limits.scope).is_some();
            let scope = self.scopes.entry(&limits.scope);
            scope.accepted = Limits { rates: limits.accepted_rates.clone(), total_sat: limits.accepted_total_sat };
            scope.set_rates(&limits.rates);
            scope.allowance_sat = limits.allowance_sat;
            if !known {
                // What the ledger does not know of may have been this wallet's: an old copy does not know the wallet either.
                scope.burn(start.burnt_sat);
            }
        }
        let keep = start.proven || self.fresh;
        self.scopes.iter_mut().for_each(|scope| scope.restart(keep));
        self.anchored = start.anchored.then(|| start.anchor.clone());
        self.fresh = false;
    }

    /// Counts as spent what the anchor's bound says may have been.
    pub(super) fn burn(&mut self, sat: u64) {
        self.charged_sat = self.charged_sat.saturating_add(sat);
        self.scopes.iter_mut().for_each(|scope| scope.burn(sat));
    }

    fn charge(&mut self, charge: &ChargeEntry) {
        self.charged_sat = self.charged_sat.saturating_add(charge.increase_sat);
        self.transactions = self.transactions.saturating_add(1);
        self.scopes.signer.charge(charge.increase_sat, charge.at_ms);
        self.scopes.entry(&Scope::Wallet(charge.wallet.clone())).charge(charge.increase_sat, charge.at_ms);
        let branches = self.last_used.entry(charge.wallet.clone()).or_default();
        for (branch, index) in &charge.used {
            let last = branches.entry(*branch).or_default();
            *last = (*last).max(*index);
        }
    }

    fn command(&mut self, serial: u64, action: &Action, managers: &[String], at_ms: u64) {
        match action {
            Action::AddTotal(scope, sat) => {
                let scope = self.scopes.entry(scope);
                scope.allowance_sat = scope.allowance_sat.map(|held| held.saturating_add(*sat));
            }
            Action::SetTotal(scope, sat) => {
                let scope = self.scopes.entry(scope);
                scope.allowance_sat = Some(scope.used_sat.saturating_add(*sat));
            }
            Action::SetRate(scope, rates) => {
                let scope = self.scopes.entry(scope);
                scope.refill(at_ms);
                scope.set_rates(rates);
            }
            Action::Freeze(scope) => self.scopes.entry(scope).frozen = Some(format!("command {serial} of {}", managers.join(", "))),
            Action::Unfreeze(scope) => {
                let scope = self.scopes.entry(scope);
                scope.frozen = None;
                scope.locked = None;
            }
            // Has an entry of its own.
            Action::Rebase { .. } => {}
        }
    }

    /// Why a command cannot be applied; None when it can.
    pub(super) fn objection(&self, action: &Action) -> Option<Objection> {
        let (Action::AddTotal(scope, _)
        | Action::SetTotal(scope, _)
        | Action::SetRate(scope, _)
        | Action::Freeze(scope)
        | Action::Unfreeze(scope)) = action
        else {
            return None;
        };
        let Some(held) = self.scopes.get(scope) else {
            return Some(Objection::Scope(format!("{scope} is not of this signer")));
        };
        match action {
            Action::AddTotal(..) if held.allowance_sat.is_none() => {
                Some(Objection::Scope(format!("{scope} has no total; set-total gives it one")))
            }
            Action::AddTotal(_, sat) | Action::SetTotal(_, sat) if *sat > MAX_MONEY_SAT => {
                Some(Objection::Malformed(format!("{} is more than there will ever be", format_amount_sat(*sat))))
            }
            Action::SetRate(_, rates) => check_rates(rates).err().map(|e| Objection::Malformed(e.to_string())),
            _ => None,
        }
    }

    /// What an action did, in words.
    pub(super) fn effect(&self, action: &Action) -> String {
        let left = |scope: &Scope| {
            let held = self.scopes.get(scope);
            let left = held.and_then(|s| s.allowance_sat.map(|a| a.saturating_sub(s.used_sat)));
            left.map_or("any amount".into(), format_amount_sat)
        };
        match action {
            Action::AddTotal(scope, sat) => format!("{scope}: {} more may leave; {} are left", format_amount_sat(*sat), left(scope)),
            Action::SetTotal(scope, _) => format!("{scope}: {} may leave from now on", left(scope)),
            Action::SetRate(scope, rates) if rates.is_empty() => format!("{scope}: no rate limit any more"),
            Action::SetRate(scope, rates) => {
                let say = |r| format!("{} with burst {}", crate::policy::rate_name(r), format_amount_sat(r.burst_sat));
                format!("{scope}: {}", rates.iter().map(say).collect::<Vec<_>>().join(" and "))
            }
            Action::Freeze(scope) => format!("{scope}: frozen; nothing is signed until an unfreeze command"),
            Action::Unfreeze(scope) => format!("{scope}: no longer frozen or locked"),
            Action::Rebase { .. } => format!(
                "signer: goes on from here; {} count as spent, {} are left, and commands made before are void",
                format_amount_sat(self.charged_sat),
                left(&Scope::Signer)
            ),
        }
    }

    /// Frozen and locked scopes, in words.
    pub(super) fn frozen(&self) -> Vec<String> {
        let say = |(scope, held): (Scope, &ScopeState)| {
            let frozen = held.frozen.as_ref().map(|by| format!("{scope}: frozen by {by}"));
            let locked = held.locked.as_ref().map(|why| format!("{scope}: locked: {why}"));
            frozen.into_iter().chain(locked)
        };
        self.scopes.iter().flat_map(say).collect()
    }

    /// Becomes `other`, which differs in these wallets at most.
    pub(super) fn take_over(&mut self, other: &State, wallets: &BTreeSet<String>) {
        self.charged_sat = other.charged_sat;
        self.transactions = other.transactions;
        self.commands = other.commands;
        self.base = other.base;
        self.scopes.signer.clone_from(&other.scopes.signer);
        for name in wallets {
            if let Some(held) = other.scopes.wallets.get(name) {
                self.scopes.wallets.insert(name.clone(), held.clone());
            }
            if let Some(used) = other.last_used.get(name) {
                self.last_used.insert(name.clone(), used.clone());
            }
        }
    }

    pub(super) fn totals(&self) -> Totals {
        Totals { charged_sat: self.charged_sat, transactions: self.transactions, commands: self.commands }
    }

    /// The limits that differ from `before`, for the journal.
    pub(super) fn changed_limits(&self, before: &State) -> Vec<LimitsEntry> {
        let limits = |scope: Scope, held: &ScopeState| LimitsEntry {
            scope,
            accepted_rates: held.accepted.rates.clone(),
            accepted_total_sat: held.accepted.total_sat,
            rates: held.rates(),
            allowance_sat: held.allowance_sat,
        };
        let now =
            self.scopes.iter().map(|(scope, held)| (before.scopes.get(&scope).map(|b| limits(scope.clone(), b)), limits(scope, held)));
        now.filter(|(old, new)| old.as_ref() != Some(new)).map(|(_, new)| new).collect()
    }
}

/// Why a command cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Objection {
    /// It names what is not there.
    Scope(String),
    /// Its numbers make no sense.
    Malformed(String),
}
