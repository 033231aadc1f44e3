//! What was charged before and spends the same coins.
//!
//! A *family* belongs to one outpoint of one wallet: every member spends it, so at most one member can confirm, and the
//! family is charged the maximum over its members. That bounds what can confirm in all. It does not yet bound how fast.
//! Let A spend coins 1 and 2, and B coins 2 and 3. Both are charged, one can confirm. If C, which spends coin 1 alone, now rode
//! for free on A's charge, then B and C could confirm together, and money would leave that no rate has seen.
//!
//! So a transaction joins a family only when it spends every coin that the family's leader spends (the leader is the
//! member with the largest outflow). Then whatever can confirm beside the new one could have confirmed beside the
//! leader, so what can leave grows by no more than the increase, and that is charged. A fee bump that keeps its coins, and
//! perhaps adds some, always joins. This needs no knowledge of other transactions: it holds even for a ledger that was put back
//! from an old copy and has forgotten some.

use std::collections::BTreeSet;

use bitcoin::OutPoint;

use crate::analysis::SpendPlan;

/// At most so many families are looked at, largest charge first. Looking at fewer only charges more.
pub const FAMILIES_MAX: usize = 8;
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

/// A spend family.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Family {
    /// The charge that founded it, which names it.
    pub founder: u64,
    /// The outpoint that all members spend.
    pub outpoint: OutPoint,
    /// Largest outflow of its members, in satoshi: what it was charged.
    pub charge_sat: u64,
    /// How many transactions it has.
    pub members: u64,
    /// Everything that the member with the largest outflow spends.
    pub leader_spends: Vec<OutPoint>,
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
        // A transaction with inputs of others may be charged to another wallet of this signer as well.
        let alone = !self.shared && plan.inputs().len() == plan.transaction().input.len();
        let spends: BTreeSet<OutPoint> = plan.inputs().iter().map(|i| i.outpoint).collect();
        let mut best: Option<&Family> = None;
        for family in self.families.iter().filter(|f| alone && f.takes(&spends)) {
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

impl Family {
    fn takes(&self, spends: &BTreeSet<OutPoint>) -> bool {
        self.members < MEMBERS_MAX && spends.contains(&self.outpoint) && self.leader_spends.iter().all(|o| spends.contains(o))
    }
}

fn founds(plan: &SpendPlan) -> Membership {
    Membership::Founds(plan.inputs().first().map(|i| i.outpoint).unwrap_or_default())
}
