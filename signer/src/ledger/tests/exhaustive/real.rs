//! The code under test, with the families' table and the anchor's few bytes in memory.

use std::{cmp::Reverse, collections::BTreeSet};

use bitcoin::hashes::Hash as _;
use postern_protocol::command::Action;

use super::{
    super::{
        super::{
            entry::{ChargeEntry, Entry, FamilyEntry, StartEntry},
            state::State,
        },
        *,
    },
    model::{self, Order, Verdict},
    observer::{self, Coins},
};
use crate::policy::{FAMILIES_MAX, Family, Kin, MEMBERS_MAX, Membership, PolicyState, Repeat, decide};

/// The anchor's few bytes, and whether its mark fits the ledger on disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    state: State,
    charges: BTreeMap<usize, (u64, u64)>,
    families: Vec<(Coins, Family)>,
    serials: BTreeSet<u64>,
    pub(super) marked: bool,
}

/// The code under test, with tables and anchor in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Real {
    pub(super) disk: Disk,
    pub(super) copy: Option<Disk>,
    anchor: Option<(u64, u64)>,
    pub(super) missing_commands: u64,
    seen_ms: u64,
}

pub(super) const LEASE: u64 = 30;

pub(super) fn in_real(limits: &Limits) -> PolicyRules {
    let wallet = WalletPolicy { limits: Limits::default(), destinations: Destinations::Any };
    PolicyRules { raise: Raise::Command, signer: limits.clone(), wallets: BTreeMap::from([(HOT.into(), wallet)]) }
}

pub(super) fn in_model(limits: &Limits) -> Vec<model::Limits> {
    let rate = |r: &Rate| observer::Rate { amount_sat: r.amount_sat, per_ms: r.per_ms, burst_sat: r.burst_sat };
    let signer = model::Limits { rates: limits.rates.iter().map(rate).collect(), total_sat: limits.total_sat };
    vec![signer, model::Limits::default()]
}

impl Real {
    pub(super) fn new(anchored: bool) -> Self {
        let mut state = State::default();
        state.apply(&Entry::Created([7; 16]));
        let disk = Disk { state, charges: BTreeMap::new(), families: vec![], serials: BTreeSet::new(), marked: false };
        Self { disk, copy: None, anchor: anchored.then_some((0, 0)), missing_commands: 0, seen_ms: 0 }
    }

    fn write(&mut self, unmark: bool) {
        self.disk.marked = false;
        if unmark && let Some(copy) = &mut self.copy {
            copy.marked = false;
        }
    }

    pub(super) fn start(&mut self, limits: &Limits) -> u64 {
        let before = self.disk.state.clone();
        let (bound_sat, commands) = self.anchor.unwrap_or_default();
        let burnt_sat = bound_sat.saturating_sub(before.charged_sat);
        self.missing_commands = commands.saturating_sub(before.commands);
        let proven = self.anchor.is_some() && burnt_sat == 0 && commands == before.commands && self.disk.marked;
        let mut wanted = before.clone();
        wanted.burn(burnt_sat);
        wanted.scopes.adopt(&in_real(limits));
        self.disk.state.apply(&Entry::Started(StartEntry {
            anchor: "memory".into(),
            anchored: self.anchor.is_some(),
            proven,
            burnt_sat,
            policy_hash: String::new(),
            raise_by_command: wanted.scopes.raise == Raise::Command,
            limits: wanted.changed_limits(&before),
        }));
        self.write(false);
        self.seen_ms = 0;
        burnt_sat
    }

    pub(super) fn ask(&mut self, rules: &PolicyRules, number: usize, spends: Coins, plan: &SpendPlan, now: u64) -> Verdict {
        self.seen_ms = self.seen_ms.max(now);
        if self.missing_commands > 0 {
            return Verdict::Stale;
        }
        let repeat = self.disk.charges.get(&number).map(|(charge, outflow_sat)| Repeat { charge: *charge, outflow_sat: *outflow_sat });
        // As `tables::kin` finds them: for each input the largest first, then over all.
        let mut families: Vec<Family> = vec![];
        for coin in (0..3).map(|n| 1 << n).filter(|coin| spends & coin != 0) {
            let mut of_coin: Vec<Family> = self.disk.families.iter().filter(|(c, _)| *c == coin).map(|(_, f)| f.clone()).collect();
            of_coin.sort_by_key(|f| (Reverse(f.charge_sat), f.founder));
            families.extend(of_coin.into_iter().take(FAMILIES_MAX));
        }
        families.sort_by_key(|f| Reverse(f.charge_sat));
        families.truncate(FAMILIES_MAX);
        let kin = Kin { repeat, shared: false, families };
        let state = PolicyState { rules, scopes: &self.disk.state.scopes, kin: &kin };
        let authorized = match decide(&state, plan, at(self.seen_ms)) {
            Ok(authorized) => authorized,
            Err(refusal) => return verdict(&refusal),
        };
        let increase_sat = authorized.increase_sat();
        let all: Vec<OutPoint> = plan.inputs().iter().map(|i| i.outpoint).collect();
        let charge = u64::try_from(self.disk.charges.len()).unwrap();
        let family = match authorized.membership() {
            Membership::Repeat(_) => return Verdict::Granted { increase_sat, repeat: true },
            Membership::Founds(outpoint) => {
                let family = Family { founder: charge, outpoint, charge_sat: plan.outflow_sat(), members: 1, leader_spends: all };
                self.disk.families.push((1 << (outpoint.vout - 1), family));
                FamilyEntry::Founds(0)
            }
            Membership::Joins(founder, _) => {
                let (_, family) = self.disk.families.iter_mut().find(|(_, f)| f.founder == founder).unwrap();
                assert!(family.members < MEMBERS_MAX);
                family.members += 1;
                if plan.outflow_sat() > family.charge_sat {
                    (family.charge_sat, family.leader_spends) = (plan.outflow_sat(), all);
                }
                FamilyEntry::Joins(founder, 0)
            }
        };
        self.write(true);
        self.disk.charges.insert(number, (charge, plan.outflow_sat()));
        self.disk.state.apply(&Entry::Charged(ChargeEntry {
            wallet: HOT.into(),
            txid: plan.unsigned_txid().to_byte_array(),
            outpoints: vec![],
            outflow_sat: plan.outflow_sat(),
            fee_sat: plan.fee_sat(),
            increase_sat,
            family,
            at_ms: authorized.at_ms(),
            used: vec![],
        }));
        let charged_sat = self.disk.state.charged_sat;
        if let Some((bound_sat, _)) = self.anchor.as_mut().filter(|(bound_sat, _)| charged_sat > *bound_sat) {
            *bound_sat = (*bound_sat + LEASE).max(charged_sat);
        }
        Verdict::Granted { increase_sat, repeat: false }
    }

    pub(super) fn order(&mut self, serial: u64, order: &Order, now: u64) -> bool {
        self.seen_ms = self.seen_ms.max(now);
        let action = match order {
            Order::AddTotal(sat) => Action::AddTotal(Scope::Signer, *sat),
            Order::SetTotal(sat) => Action::SetTotal(Scope::Signer, *sat),
            Order::SetRates(rates) => {
                let rates = rates.iter().map(|r| rate(r.amount_sat, r.per_ms, r.burst_sat)).collect();
                Action::SetRate(Scope::Signer, rates)
            }
            Order::Freeze => Action::Freeze(Scope::Signer),
            Order::Unfreeze => Action::Unfreeze(Scope::Signer),
        };
        let stale = self.missing_commands > 0 && *order != Order::Freeze;
        if self.disk.serials.contains(&serial) || stale || self.disk.state.objection(&action).is_some() {
            return false;
        }
        self.write(true);
        self.disk.serials.insert(serial);
        self.disk.state.apply(&Entry::Commanded(serial, action, vec![], self.seen_ms));
        if let Some((_, commands)) = &mut self.anchor {
            *commands += 1;
        }
        true
    }

    /// The last charge did not reach the disk; what the anchor was told, it knows.
    pub(super) fn tear(&mut self, before: Disk) {
        self.disk = Disk { marked: self.disk.marked, ..before };
    }

    pub(super) fn stop(&mut self, now: u64) {
        self.seen_ms = self.seen_ms.max(now);
        self.write(true);
        self.disk.state.apply(&Entry::Stopped(self.seen_ms));
        self.disk.marked = true;
        if let Some((bound_sat, _)) = &mut self.anchor {
            *bound_sat = self.disk.state.charged_sat;
        }
    }
}

fn verdict(refusal: &Refusal) -> Verdict {
    match refusal.code {
        RefusalCode::Frozen => Verdict::Frozen,
        RefusalCode::RateBurst => Verdict::Burst,
        RefusalCode::TotalReached => Verdict::Total,
        RefusalCode::RateWait => Verdict::WaitMs(refusal.wait_ms.unwrap()),
        other => panic!("{other}"),
    }
}
