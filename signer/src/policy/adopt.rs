//! What a changed configuration may change. Lowering works at once. Raising works only under [`Raise::Config`]; under
//! [`Raise::Command`] it is ignored, with a warning, until managers order it.

use postern_protocol::{
    command::{Rate, Scope},
    units::format_amount_sat,
};

use super::{
    rules::{Limits, PolicyRules, Raise},
    scope::{ScopeState, Scopes, rate_name},
};

impl Scopes {
    /// Takes over a configuration as far as it is allowed to. Gives what the operator should know.
    pub(crate) fn adopt(&mut self, rules: &PolicyRules) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.raise == Raise::Command && rules.raise == Raise::Config {
            warnings.push("limits.raise = \"config\" is ignored: this ledger was started with \"command\"".into());
        } else {
            self.raise = rules.raise;
        }
        let raise = self.raise;
        self.signer.adopt(&Scope::Signer, &rules.signer, raise, &mut warnings);
        for (name, wallet) in &rules.wallets {
            match self.wallets.get_mut(name) {
                Some(state) => state.adopt(&Scope::Wallet(name.clone()), &wallet.limits, raise, &mut warnings),
                None => {
                    self.wallets.insert(name.clone(), ScopeState::new(&wallet.limits));
                }
            }
        }
        warnings
    }
}

impl ScopeState {
    fn adopt(&mut self, scope: &Scope, limits: &Limits, raise: Raise, warnings: &mut Vec<String>) {
        self.adopt_rates(scope, &limits.rates, raise, warnings);
        self.adopt_total(scope, limits.total_sat, raise, warnings);
    }

    fn adopt_rates(&mut self, scope: &Scope, wanted: &[Rate], raise: Raise, warnings: &mut Vec<String>) {
        if same(&self.accepted.rates, wanted) {
            return;
        }
        if raise == Raise::Config {
            self.set_rates(wanted);
            self.accepted.rates = wanted.to_vec();
            return;
        }
        let accepted = strictest(&self.accepted.rates, wanted);
        if !same(&accepted, &self.accepted.rates) {
            let in_force = strictest(&self.rates(), wanted);
            self.set_rates(&in_force);
            self.accepted.rates = accepted;
        }
        if !same(&self.accepted.rates, wanted) {
            let held: Vec<String> =
                self.buckets.iter().map(|b| format!("{} burst {}", rate_name(&b.rate()), format_amount_sat(b.rate().burst_sat))).collect();
            warnings.push(format!(
                "{scope}: the configured rates are looser than the accepted ones; in force: {}. \
                 To loosen them, apply a command: postern command new set-rate",
                held.join(", ")
            ));
        }
    }

    fn adopt_total(&mut self, scope: &Scope, wanted: Option<u64>, raise: Raise, warnings: &mut Vec<String>) {
        match (self.accepted.total_sat, wanted) {
            (old, new) if old == new => return,
            (Some(old), Some(new)) if new < old => {
                let lowered = self.allowance_sat.unwrap_or(old).saturating_sub(old.saturating_sub(new));
                self.allowance_sat = Some(lowered.max(self.used_sat));
            }
            (None, Some(new)) => {
                let new = new.max(self.used_sat);
                self.allowance_sat = Some(self.allowance_sat.map_or(new, |held| held.min(new)));
            }
            (Some(old), Some(new)) if raise == Raise::Config => {
                self.allowance_sat = Some(self.allowance_sat.unwrap_or(old).saturating_add(new.saturating_sub(old)));
            }
            (_, None) if raise == Raise::Config => self.allowance_sat = None,
            (old, new) => {
                let say = |total: Option<u64>| total.map_or("none".into(), format_amount_sat);
                warnings.push(format!(
                    "{scope}: the configured total ({}) is higher than the accepted one ({}) and is ignored. \
                     To let more out, apply a command: postern command new add-total",
                    say(new),
                    say(old)
                ));
                return;
            }
        }
        self.accepted.total_sat = wanted;
    }
}

/// True when whatever `a` lets out `b` lets out as well.
pub(super) fn at_most(a: &Rate, b: &Rate) -> bool {
    let speed = |x: &Rate, y: &Rate| u128::from(x.amount_sat).saturating_mul(u128::from(y.per_ms));
    a.burst_sat <= b.burst_sat && speed(a, b) <= speed(b, a)
}

fn same(a: &[Rate], b: &[Rate]) -> bool {
    a.iter().all(|r| b.contains(r)) && b.iter().all(|r| a.contains(r))
}

/// Holds whatever either holds, without rates that another one makes pointless.
fn strictest(old: &[Rate], new: &[Rate]) -> Vec<Rate> {
    let fresh = new.iter().filter(|n| !old.iter().any(|o| at_most(o, n) && !at_most(n, o)));
    let kept = old.iter().filter(|o| !new.iter().any(|n| at_most(n, o)));
    fresh.chain(kept).copied().collect()
}
