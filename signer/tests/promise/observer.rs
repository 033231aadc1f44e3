//! The promise of `docs/limits.md`, judged from the outside: from what was granted and when, and from nothing else. Nothing here
//! uses the code under test, nor the model beside it.
//!
//! M is the most that could have left: the heaviest set of granted transactions of which no two spend the same coin. For each
//! rate, M may grow over any stretch of time by at most burst + rate × length; and M may not pass the total.

use std::collections::BTreeMap;

/// Coins as bits.
pub type Coins = u32;

/// A token bucket as the configuration states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rate {
    pub amount_sat: u64,
    pub per_ms: u64,
    pub burst_sat: u64,
}

/// A transaction that the signer agreed to sign for one wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grant {
    pub transaction: u64,
    pub wallet: usize,
    /// Every coin that it spends, whoever owns it.
    pub spends: Coins,
    /// What it takes out of that wallet.
    pub outflow_sat: u64,
}

/// M: the most that can leave if the best set of these confirms. Exact.
pub fn most_that_can_leave(grants: &[Grant]) -> u64 {
    // A transaction that two wallets sign takes from both; asked for twice by one wallet, it takes once.
    let mut worth: BTreeMap<(u64, usize), (Coins, u64)> = BTreeMap::new();
    for grant in grants {
        let (_, sat) = worth.entry((grant.transaction, grant.wallet)).or_insert((grant.spends, 0));
        *sat = (*sat).max(grant.outflow_sat);
    }
    let mut transactions: BTreeMap<u64, (Coins, u64)> = BTreeMap::new();
    for ((transaction, _), (spends, sat)) in worth {
        transactions.entry(transaction).or_insert((spends, 0)).1 += sat;
    }
    // Of those that spend the same coins only the heaviest can be in the best set.
    let mut heaviest: BTreeMap<Coins, u64> = BTreeMap::new();
    for (spends, sat) in transactions.into_values() {
        let best = heaviest.entry(spends).or_default();
        *best = (*best).max(sat);
    }
    let all = heaviest.keys().fold(0, |all, spends| all | spends);
    best_of(all, &heaviest, &mut BTreeMap::new())
}

/// The heaviest set that spends nothing but `free`: the lowest free coin is spent by one of them, or by none.
fn best_of(free: Coins, heaviest: &BTreeMap<Coins, u64>, known: &mut BTreeMap<Coins, u64>) -> u64 {
    if free == 0 {
        return 0;
    }
    if let Some(sat) = known.get(&free) {
        return *sat;
    }
    let lowest = free & free.wrapping_neg();
    let mut best = best_of(free & !lowest, heaviest, known);
    for (spends, sat) in heaviest.iter().filter(|(spends, _)| *spends & lowest != 0 && *spends & !free == 0) {
        best = best.max(sat + best_of(free & !spends, heaviest, known));
    }
    known.insert(free, best);
    best
}

/// One rate, judged grant by grant: how much M has grown beyond what the rate gave, at most, over all stretches that end now. It needs
/// no history, so the exploration of every story can carry it along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ahead {
    pub rate: Rate,
    at_ms: u64,
    /// One satoshi is so many of these, so that nothing is rounded.
    parts: u128,
    ahead: u128,
}

impl Ahead {
    pub fn new(rate: Rate, now_ms: u64) -> Self {
        Self { rate, at_ms: now_ms, parts: u128::from(rate.per_ms), ahead: 0 }
    }

    pub fn pass(&mut self, now_ms: u64) {
        let length = u128::from(now_ms.saturating_sub(self.at_ms));
        let given = length * u128::from(self.rate.amount_sat) * (self.parts / u128::from(self.rate.per_ms));
        self.ahead = self.ahead.saturating_sub(given);
        self.at_ms = now_ms.max(self.at_ms);
    }

    /// From now on another rate holds in its place.
    pub fn change(&mut self, rate: Rate, now_ms: u64) {
        self.pass(now_ms);
        let parts = least_common_multiple(self.parts, u128::from(rate.per_ms));
        self.ahead *= parts / self.parts;
        (self.rate, self.parts) = (rate, parts);
    }

    /// M grows; false when that breaks the promise.
    pub fn grown(&mut self, sat: u64, now_ms: u64) -> bool {
        self.pass(now_ms);
        self.ahead += u128::from(sat) * self.parts;
        sat == 0 || self.ahead <= u128::from(self.rate.burst_sat) * self.parts
    }
}

/// From when on a rate holds.
#[derive(Debug, Clone)]
struct Piece {
    rate: Rate,
    from_ms: u64,
}

/// A bucket's history: a rate, and what it was changed to.
#[derive(Debug, Clone)]
struct Line {
    pieces: Vec<Piece>,
    /// Grants before this one are none of its business.
    first: usize,
    /// The same, grant by grant.
    ahead: Ahead,
}

/// Watches one scope: the signer or a wallet.
#[derive(Debug, Clone)]
pub struct Observer {
    grants: Vec<Grant>,
    /// When each was granted, in milliseconds that the signer ran.
    at_ms: Vec<u64>,
    /// M before the first grant, and after each.
    most: Vec<u64>,
    lines: Vec<Line>,
    /// What M may reach. None: no total.
    ceiling: Option<u64>,
    /// Nothing is promised of the total any more.
    forgotten: bool,
}

impl Observer {
    pub fn new(rates: &[Rate], total_sat: Option<u64>) -> Self {
        let mut observer = Self { grants: vec![], at_ms: vec![], most: vec![0], lines: vec![], ceiling: total_sat, forgotten: false };
        observer.rates_hold(rates, 0);
        observer
    }

    /// M now.
    pub fn most(&self) -> u64 {
        self.most.last().copied().unwrap_or(0)
    }

    /// These rates hold from now on, besides those that hold already.
    pub fn rates_hold(&mut self, rates: &[Rate], now_ms: u64) {
        let first = self.grants.len();
        let line = |rate: &Rate| Line { pieces: vec![Piece { rate: *rate, from_ms: now_ms }], first, ahead: Ahead::new(*rate, now_ms) };
        self.lines.extend(rates.iter().map(line));
    }

    /// Managers put these rates in the place of the ones before. What was spent stays spent: if there is one before and one after,
    /// stretches over the change are still bounded, by what each gave while it held and by the burst of the new one. Of
    /// several this observer does not ask which of the old ones a new one goes on from.
    pub fn rates_change(&mut self, rates: &[Rate], now_ms: u64) {
        match (&mut self.lines[..], rates) {
            ([line], [rate]) => {
                line.pieces.push(Piece { rate: *rate, from_ms: now_ms });
                line.ahead.change(*rate, now_ms);
            }
            _ => {
                self.lines.clear();
                self.rates_hold(rates, now_ms);
            }
        }
    }

    /// From now on so much more may leave.
    pub fn total_set(&mut self, sat: u64) {
        self.forgotten = false;
        self.ceiling = Some(self.most() + sat);
    }

    /// So much more than before may leave.
    pub fn total_added(&mut self, sat: u64) {
        self.ceiling = self.ceiling.map(|ceiling| ceiling + sat);
    }

    /// The total was lowered by so much; or it is `new`, and there was none.
    pub fn total_lowered(&mut self, old: Option<u64>, new: u64) {
        if self.forgotten {
            return;
        }
        let ceiling = match old {
            Some(old) => self.ceiling.unwrap_or(old).saturating_sub(old.saturating_sub(new)),
            None => self.ceiling.map_or(new, |held| held.min(new)),
        };
        self.ceiling = Some(ceiling.max(self.most()));
    }

    /// No total is promised any more, until managers set one.
    pub fn no_total(&mut self) {
        (self.ceiling, self.forgotten) = (None, true);
    }

    /// An old copy was put back: its limits are in force again.
    pub fn limits_of(&mut self, copy: &Observer, now_ms: u64) {
        let rates = |lines: &[Line]| -> Vec<Rate> { lines.iter().filter_map(|l| l.pieces.last()).map(|p| p.rate).collect() };
        if rates(&self.lines) != rates(&copy.lines) {
            self.lines.clear();
            self.rates_hold(&rates(&copy.lines), now_ms);
        }
        self.ceiling = copy.ceiling.map(|ceiling| ceiling.max(self.most()));
    }

    /// Notes a grant; says what it breaks.
    pub fn granted(&mut self, grant: Grant, now_ms: u64) -> Result<(), String> {
        let before = self.most();
        self.grants.push(grant);
        self.at_ms.push(now_ms);
        let most = if self.grants[..self.grants.len() - 1].contains(&grant) { before } else { most_that_can_leave(&self.grants) };
        self.most.push(most);
        let mut lines = std::mem::take(&mut self.lines);
        let judge = |line: &mut Line| {
            let kept = line.ahead.grown(most - before, now_ms);
            self.check(line, kept)
        };
        let judged: Vec<_> = lines.iter_mut().map(judge).collect();
        self.lines = lines;
        if let Some(ceiling) = self.ceiling.filter(|ceiling| most > *ceiling) {
            return Err(format!("{most} sat can leave, the total is {ceiling} sat: {:?}", self.grants));
        }
        judged.into_iter().collect()
    }

    /// Every stretch that ends with the last grant. Where M did not grow there is nothing to say: the stretch is a shorter one and time
    /// in which nothing left; a burst that was lowered meanwhile does not judge what left before.
    fn check(&self, line: &Line, kept_by_the_other_form: bool) -> Result<(), String> {
        let Some(last) = line.pieces.last() else { return Ok(()) };
        let end_ms = self.at_ms.last().copied().unwrap_or(0);
        // Everything in parts of a satoshi that no period needs to be rounded to.
        let parts = line.pieces.iter().fold(1, |parts, piece| least_common_multiple(parts, u128::from(piece.rate.per_ms)));
        let (mut ahead, mut longest) = (0, end_ms);
        for first in line.first..self.grants.len() {
            let begin_ms = self.at_ms[first];
            let mut given = 0;
            for (n, piece) in line.pieces.iter().enumerate() {
                let until = line.pieces.get(n + 1).map_or(end_ms, |next| next.from_ms).min(end_ms);
                let length = until.saturating_sub(piece.from_ms.max(begin_ms));
                given += u128::from(length) * u128::from(piece.rate.amount_sat) * (parts / u128::from(piece.rate.per_ms));
            }
            let beyond = (u128::from(self.most() - self.most[first]) * parts).saturating_sub(given);
            if beyond > ahead {
                (ahead, longest) = (beyond, begin_ms);
            }
        }
        let grew = self.most[self.grants.len()] > self.most[self.grants.len() - 1];
        let kept = !grew || ahead <= u128::from(last.rate.burst_sat) * parts;
        let says = format!("{:?} of {:?}", line.pieces, self.grants);
        if ahead * line.ahead.parts != line.ahead.ahead * parts || kept != kept_by_the_other_form {
            return Err(format!("{FORMS_DIFFER}: {ahead} of {parts} parts, and {:?}: {says}", line.ahead));
        }
        if kept {
            return Ok(());
        }
        let sat = ahead / parts;
        Err(format!("from {longest} ms to {end_ms} ms {sat} sat more can leave than before, beyond what the rate gave; {says}"))
    }
}

/// What the observer says when its two forms do not agree.
pub const FORMS_DIFFER: &str = "the observer contradicts itself";

fn least_common_multiple(a: u128, b: u128) -> u128 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}
