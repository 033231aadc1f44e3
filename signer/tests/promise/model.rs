//! A small model of charge, family, bucket, total, command, crash and restore: what `docs/limits.md` says, in as few words as it
//! takes, and as slow as it likes. It uses no code of the signer. [`Rules`] has one rule per function, so that a test can break one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    hash::Hash,
    marker::PhantomData,
};

use super::observer::{Coins, Rate};

/// The published rules. Each can be broken alone, to see that somebody notices.
pub trait Rules: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static {
    /// Whether a transaction belongs to the family of `coin` whose leader spends `leader`.
    fn joins(spends: Coins, coin: Coins, leader: Coins) -> bool {
        spends & coin != 0 && leader & !spends == 0
    }
    /// What a family that was charged so much is given back when a member with this outflow joins.
    fn given_back(_before_sat: u64, _member_sat: u64) -> u64 {
        0
    }
    /// What is missing from a bucket at the start, of what was missing before. All in units.
    fn missing_at_start(owed: u128, burst: u128, latest: bool) -> u128 {
        if latest { owed } else { owed.max(burst) }
    }
    /// What is missing from a new bucket that takes an old one's place. In units of the new one.
    fn missing_after_change(owed: u128) -> u128 {
        owed
    }
    /// What counts as charged at the start.
    fn charged_at_start(ledger_sat: u64, bound_sat: u64) -> u64 {
        ledger_sat.max(bound_sat)
    }
    /// The time by which buckets fill, of how long the process ran and how far the wall clock was stepped.
    fn time_ms(ran_ms: u64, _stepped_ms: u64) -> u64 {
        ran_ms
    }
    /// What a transaction is charged that takes so much out, so much of it for the fee.
    fn charge(outflow_sat: u64, _fee_sat: u64) -> u64 {
        outflow_sat
    }
    /// Whether a charge is on disk before it is granted.
    const DURABLE_FIRST: bool = true;
    /// Whether a command's serial is remembered.
    const SERIALS: bool = true;
}

/// As published.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Published;
impl Rules for Published {}

/// A transaction as one wallet sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transaction {
    pub id: u64,
    pub wallet: usize,
    pub own: Coins,
    pub foreign: Coins,
    pub outflow_sat: u64,
    pub fee_sat: u64,
    /// What an entry in the ledger costs at least.
    pub least_sat: u64,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Granted {
        increase_sat: u64,
        repeat: bool,
    },
    /// The ledger is an old copy: commands are missing.
    Stale,
    Frozen,
    Burst,
    Total,
    WaitMs(u64),
}

/// What managers order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Order {
    AddTotal(u64),
    SetTotal(u64),
    SetRates(Vec<Rate>),
    Freeze,
    Unfreeze,
}

/// Limits of a scope as configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Limits {
    pub rates: Vec<Rate>,
    pub total_sat: Option<u64>,
}

/// A bucket. One satoshi is `per_ms` units, so that nothing is rounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Bucket {
    rate: Rate,
    /// What is missing from the burst.
    owed: u128,
}

impl Bucket {
    fn burst(&self) -> u128 {
        u128::from(self.rate.burst_sat) * u128::from(self.rate.per_ms)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Scope {
    accepted: Limits,
    buckets: Vec<Bucket>,
    /// Until when they are filled.
    at_ms: u64,
    used_sat: u64,
    allowance_sat: Option<u64>,
    frozen: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Family {
    wallet: usize,
    coin: Coins,
    leader: Coins,
    charge_sat: u64,
    members: u64,
}

/// What is on disk. Scope 0 is the signer, the others its wallets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Disk {
    fresh: bool,
    /// The anchor's mark fits this ledger: it was stopped cleanly, and nothing was charged or ordered since.
    marked: bool,
    scopes: Vec<Scope>,
    charges: BTreeMap<(u64, usize), u64>,
    families: Vec<Family>,
    serials: BTreeSet<u64>,
    charged_sat: u64,
    commands: u64,
    /// The number of the last re-base.
    base: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Anchor {
    bound_sat: u64,
    commands: u64,
    /// Somebody erased it.
    erased: bool,
    /// The last re-base that it knows.
    base: Option<u64>,
}

/// The whole signer, as far as limits are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Model<R> {
    disk: Disk,
    /// Old copies of the disk.
    copies: Vec<Disk>,
    anchor: Option<Anchor>,
    lease_sat: u64,
    /// How many re-bases there ever were, on whatever disk.
    rebases: u64,
    /// The latest uptime that anybody named in this run.
    seen_ms: u64,
    stepped_ms: u64,
    unsynced: Option<Disk>,
    rules: PhantomData<R>,
}

impl<R: Rules> Model<R> {
    /// A new ledger that was never started. The signer's limits come first.
    pub fn new(limits: &[Limits], anchored: bool, lease_sat: u64) -> Self {
        let scope = |limits: &Limits| Scope {
            accepted: limits.clone(),
            buckets: limits.rates.iter().map(|rate| Bucket { rate: *rate, owed: 0 }).collect(),
            allowance_sat: limits.total_sat,
            ..Scope::default()
        };
        let disk = Disk {
            fresh: true,
            marked: false,
            scopes: limits.iter().map(scope).collect(),
            charges: BTreeMap::new(),
            families: vec![],
            serials: BTreeSet::new(),
            charged_sat: 0,
            commands: 0,
            base: None,
        };
        let anchor = anchored.then(Anchor::default);
        Self { disk, copies: vec![], anchor, lease_sat, rebases: 0, seen_ms: 0, stepped_ms: 0, unsynced: None, rules: PhantomData }
    }

    /// The latest uptime that anybody named in this run.
    pub fn seen_ms(&self) -> u64 {
        self.seen_ms
    }

    /// The configuration's total of a scope, as accepted.
    pub fn accepted_total_sat(&self, scope: usize) -> Option<u64> {
        self.disk.scopes[scope].accepted.total_sat
    }

    /// Whether ledger and anchor do not agree: alarm, or commands are missing that the anchor knows.
    pub fn is_stale(&self) -> bool {
        self.is_alarmed() || self.anchor.as_ref().is_some_and(|a| a.commands > self.disk.commands)
    }

    /// Whether the anchor was erased, or knows the ledger by another re-base. Nothing is written before managers re-base.
    pub fn is_alarmed(&self) -> bool {
        self.anchor.as_ref().is_some_and(|a| a.erased || a.base != self.disk.base)
    }

    /// What a re-base must count as spent at least.
    pub fn least_sat(&self) -> u64 {
        self.anchor.as_ref().map_or(0, |a| a.bound_sat).max(self.disk.charged_sat)
    }

    /// The re-base after which a command is made that is made now.
    pub fn base(&self) -> Option<u64> {
        self.disk.base
    }

    /// Somebody erases the anchor.
    pub fn erase_anchor(&mut self) {
        if let Some(anchor) = &mut self.anchor {
            *anchor = Anchor { erased: true, ..Anchor::default() };
        }
    }

    /// Somebody sets the wall clock forward.
    pub fn step_clock(&mut self, ms: u64) {
        self.stepped_ms += ms;
    }

    /// Something changes on disk. The anchor's mark, where it is taken away, fits no ledger any more.
    fn write(&mut self, unmark: bool) {
        if !R::DURABLE_FIRST {
            self.unsynced.get_or_insert_with(|| self.disk.clone());
        }
        self.disk.marked = false;
        if unmark {
            self.copies.iter_mut().for_each(|copy| copy.marked = false);
        }
    }

    fn now(&mut self, now_ms: u64) -> u64 {
        self.seen_ms = self.seen_ms.max(now_ms);
        R::time_ms(self.seen_ms, self.stepped_ms)
    }

    /// The family that a transaction joins: the one that was charged most, of the eight that are looked at.
    fn joins(&self, asked: &Transaction) -> Option<usize> {
        if asked.foreign != 0 || self.disk.charges.keys().any(|(id, _)| *id == asked.id) {
            return None;
        }
        let families = || self.disk.families.iter().enumerate().filter(|(_, f)| f.wallet == asked.wallet);
        let most_first = |found: &mut Vec<(usize, &Family)>| {
            found.sort_by_key(|(_, f)| std::cmp::Reverse(f.charge_sat));
            found.truncate(8);
        };
        let mut found = vec![];
        for coin in (0..Coins::BITS).map(|n| 1 << n).filter(|coin| asked.own & coin != 0) {
            let mut of_coin: Vec<_> = families().filter(|(_, f)| f.coin == coin).collect();
            most_first(&mut of_coin);
            found.extend(of_coin);
        }
        most_first(&mut found);
        found.into_iter().find(|(_, f)| f.members < 256 && R::joins(asked.own, f.coin, f.leader)).map(|(n, _)| n)
    }

    /// Asks for a transaction.
    pub fn ask(&mut self, asked: &Transaction, now_ms: u64) -> Verdict {
        let now_ms = self.now(now_ms);
        if self.is_stale() {
            return Verdict::Stale;
        }
        let scopes = [0, asked.wallet + 1];
        if scopes.iter().any(|s| self.disk.scopes[*s].frozen) {
            return Verdict::Frozen;
        }
        let charge_sat = R::charge(asked.outflow_sat, asked.fee_sat);
        let key = (asked.id, asked.wallet);
        if self.disk.charges.get(&key).is_some_and(|before| charge_sat <= *before) {
            return Verdict::Granted { increase_sat: 0, repeat: true };
        }
        let joins = self.joins(asked);
        let increase_sat = match joins {
            Some(family) => charge_sat.saturating_sub(self.disk.families[family].charge_sat),
            None => charge_sat.max(asked.least_sat),
        };
        let given_back_sat = joins.map_or(0, |n| R::given_back(self.disk.families[n].charge_sat, charge_sat));
        let refusals = scopes.iter().filter_map(|s| self.disk.scopes[*s].filled(now_ms).refuses(increase_sat));
        if let Some(refusal) = refusals.max_by_key(severity) {
            return refusal;
        }
        self.write(true);
        match joins.and_then(|n| self.disk.families.get_mut(n)) {
            Some(family) => {
                if charge_sat > family.charge_sat {
                    family.leader = asked.own;
                }
                family.charge_sat = family.charge_sat.max(charge_sat) - given_back_sat;
                family.members += 1;
            }
            None => self.disk.families.push(Family {
                wallet: asked.wallet,
                coin: asked.own & asked.own.wrapping_neg(),
                leader: asked.own | asked.foreign,
                charge_sat,
                members: 1,
            }),
        }
        self.disk.charges.insert(key, charge_sat);
        self.disk.charged_sat += increase_sat;
        for scope in scopes {
            let scope = &mut self.disk.scopes[scope];
            *scope = scope.filled(now_ms);
            scope.used_sat = (scope.used_sat + increase_sat) - given_back_sat;
            for bucket in &mut scope.buckets {
                bucket.owed += u128::from(increase_sat) * u128::from(bucket.rate.per_ms);
                bucket.owed = bucket.owed.saturating_sub(u128::from(given_back_sat) * u128::from(bucket.rate.per_ms));
            }
        }
        let charged_sat = self.disk.charged_sat;
        if let Some(anchor) = self.anchor.as_mut().filter(|anchor| charged_sat > anchor.bound_sat) {
            anchor.bound_sat = (anchor.bound_sat + self.lease_sat).max(charged_sat);
        }
        Verdict::Granted { increase_sat, repeat: false }
    }

    /// Managers order something about a scope, in a command that was made after a re-base. False: it is refused.
    pub fn order(&mut self, serial: u64, base: Option<u64>, scope: usize, order: &Order, now_ms: u64) -> bool {
        let now_ms = self.now(now_ms);
        let used = R::SERIALS && self.disk.serials.contains(&serial);
        let no_total = matches!(order, Order::AddTotal(_)) && self.disk.scopes[scope].allowance_sat.is_none();
        let untimely = self.is_stale() || base != self.disk.base;
        if used || no_total || self.is_alarmed() || (untimely && *order != Order::Freeze) {
            return false;
        }
        self.write(true);
        self.disk.serials.insert(serial);
        self.disk.commands += 1;
        if let Some(anchor) = &mut self.anchor {
            anchor.commands += 1;
        }
        let scope = &mut self.disk.scopes[scope];
        match order {
            Order::AddTotal(sat) => scope.allowance_sat = scope.allowance_sat.map(|held| held + sat),
            Order::SetTotal(sat) => scope.allowance_sat = Some(scope.used_sat + sat),
            Order::SetRates(rates) => {
                *scope = scope.filled(now_ms);
                scope.set_rates::<R>(rates);
            }
            Order::Freeze => scope.frozen = true,
            Order::Unfreeze => scope.frozen = false,
        }
        true
    }

    /// Managers say that so much was spent in all, and to go on from here. None: they say it of another run. False: it is refused.
    pub fn rebase(&mut self, serial: u64, spent_sat: Option<u64>, limits: &[Limits], now_ms: u64) -> bool {
        self.now(now_ms);
        let enough = spent_sat.filter(|sat| *sat >= self.least_sat() && self.is_stale());
        let Some(spent_sat) = enough.filter(|_| !self.disk.serials.contains(&serial)) else { return false };
        self.write(true);
        self.begin(limits, spent_sat, false);
        self.disk.commands = self.anchor.as_ref().map_or(0, |a| a.commands).max(self.disk.commands) + 1;
        self.disk.serials.insert(serial);
        self.rebases += 1;
        self.disk.base = Some(self.rebases);
        self.anchor = Some(Anchor { bound_sat: spent_sat, commands: self.disk.commands, erased: false, base: self.disk.base });
        true
    }

    /// A clean stop.
    pub fn stop(&mut self, now_ms: u64) {
        let now_ms = self.now(now_ms);
        if self.is_alarmed() {
            return;
        }
        self.write(true);
        self.unsynced = None;
        self.disk.marked = true;
        self.disk.scopes.iter_mut().for_each(|scope| *scope = scope.filled(now_ms));
        if let Some(anchor) = &mut self.anchor {
            anchor.bound_sat = self.disk.charged_sat;
        }
    }

    /// The process is gone.
    pub fn crash(&mut self) {
        if let Some(synced) = self.unsynced.take() {
            self.disk = synced;
        }
    }

    /// The last charge did not reach the disk; what the anchor was told, it knows.
    pub fn tear(&mut self, before: &Self) {
        self.disk = Disk { marked: self.disk.marked, ..before.disk.clone() };
    }

    /// Copies the disk.
    pub fn copy(&mut self) {
        self.copies.push(self.disk.clone());
    }

    /// Puts an old copy back. The process must be gone.
    pub fn restore(&mut self, copy: usize) {
        self.disk = self.copies[copy].clone();
    }

    /// The process starts, with this configuration.
    pub fn start(&mut self, limits: &[Limits]) {
        (self.seen_ms, self.stepped_ms) = (0, 0);
        if self.is_alarmed() {
            return;
        }
        let (bound_sat, commands) = self.anchor.as_ref().map_or((0, 0), |a| (a.bound_sat, a.commands));
        let charged_sat = R::charged_at_start(self.disk.charged_sat, bound_sat);
        let burnt_sat = charged_sat - self.disk.charged_sat;
        let proven = self.anchor.is_some() && self.disk.marked && burnt_sat == 0 && commands == self.disk.commands;
        // What was never started cannot have lost anything.
        let latest = proven || self.disk.fresh;
        self.write(false);
        self.unsynced = None;
        self.begin(limits, charged_sat, latest);
    }

    /// Counts so much as charged in all, takes the configuration over, and begins a run.
    fn begin(&mut self, limits: &[Limits], charged_sat: u64, latest: bool) {
        let burnt_sat = charged_sat - self.disk.charged_sat;
        (self.disk.charged_sat, self.disk.fresh) = (charged_sat, false);
        for (scope, wanted) in self.disk.scopes.iter_mut().zip(limits) {
            let most = scope.allowance_sat.unwrap_or(u64::MAX).max(scope.used_sat);
            scope.used_sat = scope.used_sat.saturating_add(burnt_sat).min(most);
            scope.adopt::<R>(wanted);
            scope.at_ms = 0;
            for bucket in &mut scope.buckets {
                bucket.owed = R::missing_at_start(bucket.owed, bucket.burst(), latest);
            }
        }
    }
}

/// What waiting does not mend comes first.
fn severity(refusal: &Verdict) -> (u8, u64) {
    match refusal {
        Verdict::Granted { .. } => (0, 0),
        Verdict::WaitMs(ms) => (1, *ms),
        Verdict::Total => (2, 0),
        Verdict::Burst => (3, 0),
        Verdict::Stale | Verdict::Frozen => (4, 0),
    }
}

impl Scope {
    /// The same at a later time.
    fn filled(&self, now_ms: u64) -> Self {
        let mut filled = self.clone();
        let elapsed = now_ms.saturating_sub(self.at_ms);
        for bucket in &mut filled.buckets {
            bucket.owed = bucket.owed.saturating_sub(u128::from(bucket.rate.amount_sat) * u128::from(elapsed));
        }
        filled.at_ms = self.at_ms.max(now_ms);
        filled
    }

    /// The worst reason to refuse an increase.
    fn refuses(&self, sat: u64) -> Option<Verdict> {
        if sat == 0 {
            return None;
        }
        if self.buckets.iter().any(|b| sat > b.rate.burst_sat) {
            return Some(Verdict::Burst);
        }
        if self.allowance_sat.is_some_and(|allowance| self.used_sat + sat > allowance) {
            return Some(Verdict::Total);
        }
        let waits = self.buckets.iter().map(|b| {
            let missing = (b.owed + u128::from(sat) * u128::from(b.rate.per_ms)).saturating_sub(b.burst());
            u64::try_from(missing.div_ceil(u128::from(b.rate.amount_sat))).unwrap_or(u64::MAX)
        });
        waits.max().filter(|ms| *ms > 0).map(Verdict::WaitMs)
    }

    /// A new bucket goes on from the old one of the same rate; else, of those with the same period and those that it is within, from the
    /// one that lacks most; else from the one that lacks most.
    fn set_rates<R: Rules>(&mut self, rates: &[Rate]) {
        let old = std::mem::take(&mut self.buckets);
        let lacks = |bucket: &Bucket, per_ms: u64| (bucket.owed * u128::from(per_ms)).div_ceil(u128::from(bucket.rate.per_ms));
        let owed = |rate: &Rate| {
            let most = |fits: &dyn Fn(&Rate) -> bool| old.iter().filter(|b| fits(&b.rate)).map(|b| lacks(b, rate.per_ms)).max();
            let inherited =
                most(&|o| o == rate).or_else(|| most(&|o| o.per_ms == rate.per_ms || within(rate, o))).or_else(|| most(&|_| true));
            R::missing_after_change(inherited.unwrap_or(0))
        };
        self.buckets = rates.iter().map(|rate| Bucket { rate: *rate, owed: owed(rate) }).collect();
    }

    /// Takes over a configuration by its strict half.
    fn adopt<R: Rules>(&mut self, wanted: &Limits) {
        let accepted = strictest(&self.accepted.rates, &wanted.rates);
        if !same(&wanted.rates, &self.accepted.rates) && !same(&accepted, &self.accepted.rates) {
            let held: Vec<Rate> = self.buckets.iter().map(|b| b.rate).collect();
            self.set_rates::<R>(&strictest(&held, &wanted.rates));
            self.accepted.rates = accepted;
        }
        match (self.accepted.total_sat, wanted.total_sat) {
            (Some(old), Some(new)) if new < old => {
                let held = self.allowance_sat.unwrap_or(old).saturating_sub(old - new);
                (self.allowance_sat, self.accepted.total_sat) = (Some(held.max(self.used_sat)), Some(new));
            }
            (None, Some(new)) => {
                let new_or_used = new.max(self.used_sat);
                self.allowance_sat = Some(self.allowance_sat.map_or(new_or_used, |held| held.min(new_or_used)));
                self.accepted.total_sat = Some(new);
            }
            _ => {}
        }
    }
}

/// Nothing passes `a` that would not pass `b`.
fn within(a: &Rate, b: &Rate) -> bool {
    let (fast_a, fast_b) = (u128::from(a.amount_sat) * u128::from(b.per_ms), u128::from(b.amount_sat) * u128::from(a.per_ms));
    a.burst_sat <= b.burst_sat && fast_a <= fast_b
}

fn same(a: &[Rate], b: &[Rate]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}

/// All of both that matter.
fn strictest(old: &[Rate], new: &[Rate]) -> Vec<Rate> {
    let fresh = new.iter().filter(|n| !old.iter().any(|o| within(o, n) && !within(n, o)));
    let kept = old.iter().filter(|o| !new.iter().any(|n| within(n, o)));
    fresh.chain(kept).copied().collect()
}
