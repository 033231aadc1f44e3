//! What was charged before and spends the same coins.
//!
//! A *family* belongs to one outpoint of one wallet: every member spends it, so at most one member can confirm, and the
//! family is charged the maximum over its members. That alone bounds what can confirm in all. It does not bound how fast:
//! let A spend coins 1 and 2, and B coins 2 and 3. Both are charged, only one can confirm. If C, which spends coin 1 alone,
//! now rode for free on A's charge, B and C could confirm together, and money would leave that no rate saw in this hour.
//! So a transaction joins a family only when everything that excludes the family's leader (the member with the
//! largest outflow) excludes the new one too. Then whatever can confirm beside the new one could have confirmed beside the
//! leader, and what could leave grows by no more than the increase.

use std::collections::BTreeSet;

use bitcoin::OutPoint;

use crate::analysis::SpendPlan;

/// At most so many families are looked at, largest charge first. Looking at fewer only charges more.
pub const FAMILIES_MAX: usize = 8;
/// At most so many rivals of a leader are looked at; a family with more is not joined.
pub const RIVALS_MAX: usize = 64;

/// A family takes no more members than this: free variations of one transaction must not fill the disk.
pub const MEMBERS_MAX: u64 = 256;

/// What a transaction has to do with earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kin {
    /// This very transaction was charged to this wallet before.
    pub repeat: Option<Repeat>,
    /// It was charged before to another wallet of this signer: it then joins no family.
    pub shared: bool,
    /// Families of the outpoints that it spends.
    pub families: Vec<Family>,
}

/// An earlier charge of the same transaction to the same wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// The charge.
    pub charge: u64,
    /// The outflow that was seen then, in satoshi.
    pub outflow_sat: u64,
}

/// A spend family, as seen from a transaction that might join it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// The charge that founded it, which names it.
    pub founder: u64,
    /// The outpoint that all members spend.
    pub outpoint: OutPoint,
    /// Largest outflow of its members, in satoshi: what it was charged.
    pub charge_sat: u64,
    /// How many transactions it has.
    pub members: u64,
    /// The inputs of each charged transaction that spends an outpoint of the leader's which the new one does not spend.
    /// None: too many to look at.
    pub rivals: Option<Vec<Vec<OutPoint>>>,
}

/// Where a transaction belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It is charged already: the number of that charge.
    Repeat(u64),
    /// To the family that this charge founded, of this outpoint.
    Joins(u64, OutPoint),
    /// To a new family of this outpoint.
    Founds(OutPoint),
}

impl Kin {
    /// Where the plan belongs, and how much of its outflow is charged there already.
    pub(super) fn place(&self, plan: &SpendPlan) -> (Membership, u64) {
        match self.repeat {
            Some(repeat) if plan.outflow_sat() <= repeat.outflow_sat => return (Membership::Repeat(repeat.charge), repeat.outflow_sat),
            // More of its inputs are ours than were known then (a foreign input came within the gap): more is signed now.
            Some(_) => return (founds(plan), 0),
            None => {}
        }
        let spends: BTreeSet<OutPoint> = plan.transaction().input.iter().map(|i| i.previous_output).collect();
        let mut best: Option<&Family> = None;
        for family in self.families.iter().filter(|f| !self.shared && f.takes(&spends)) {
            if best.is_none_or(|b| family.charge_sat > b.charge_sat) {
                best = Some(family);
            }
        }
        match best {
            Some(family) => (Membership::Joins(family.founder, family.outpoint), family.charge_sat),
            None => (founds(plan), 0),
        }
    }
}

fn founds(plan: &SpendPlan) -> Membership {
    Membership::Founds(plan.inputs().first().map(|i| i.outpoint).unwrap_or_default())
}

impl Family {
    fn takes(&self, spends: &BTreeSet<OutPoint>) -> bool {
        let excluded = |rival: &Vec<OutPoint>| rival.iter().any(|o| spends.contains(o));
        self.members < MEMBERS_MAX
            && spends.contains(&self.outpoint)
            && self.rivals.as_ref().is_some_and(|rivals| rivals.iter().all(excluded))
    }
}
