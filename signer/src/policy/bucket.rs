//! A token bucket in exact integers. It is kept as a deficit (burst − level), in units of satoshi × `per_ms`, so that one
//! millisecond gives back exactly `amount_sat` units and nothing is ever rounded.

use postern_protocol::command::Rate;

/// One rate and what is missing from its burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket {
    rate: Rate,
    deficit: u128,
}

/// Whether an amount fits a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It fits.
    Now,
    /// It will fit after exactly this many milliseconds, and not one earlier.
    After(u64),
    /// It is larger than the burst, or the bucket never refills.
    Never,
}

impl Bucket {
    /// A bucket from which nothing was taken.
    #[must_use]
    pub const fn full(rate: Rate) -> Self {
        Self { rate, deficit: 0 }
    }

    /// A bucket from which everything was taken.
    #[must_use]
    pub fn empty(rate: Rate) -> Self {
        Self { rate, deficit: units(rate.burst_sat, rate.per_ms) }
    }

    /// From [`Self::deficit`].
    #[must_use]
    pub fn with_deficit(rate: Rate, sat: u64, rest: u64) -> Self {
        Self { rate, deficit: units(sat, rate.per_ms).saturating_add(u128::from(rest)) }
    }

    /// The rate.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// What is missing: whole satoshi, and the rest in satoshi / `per_ms`.
    #[must_use]
    pub fn deficit(&self) -> (u64, u64) {
        let per = u128::from(self.rate.per_ms.max(1));
        let whole = self.deficit.checked_div(per).unwrap_or(0);
        let rest = self.deficit.checked_rem(per).unwrap_or(0);
        (u64::try_from(whole).unwrap_or(u64::MAX), u64::try_from(rest).unwrap_or(u64::MAX))
    }

    /// Gives back what `elapsed_ms` earn.
    pub fn refill(&mut self, elapsed_ms: u64) {
        self.deficit = self.deficit.saturating_sub(units(self.rate.amount_sat, elapsed_ms));
    }

    /// Whole satoshi that could leave now.
    #[must_use]
    pub fn level_sat(&self) -> u64 {
        let per = u128::from(self.rate.per_ms.max(1));
        let level = units(self.rate.burst_sat, self.rate.per_ms).saturating_sub(self.deficit).checked_div(per);
        level.and_then(|sat| u64::try_from(sat).ok()).unwrap_or(0)
    }

    /// Whether `sat` fits.
    #[must_use]
    pub fn fit(&self, sat: u64) -> Fit {
        if sat > self.rate.burst_sat {
            return Fit::Never;
        }
        let wanted = self.deficit.saturating_add(units(sat, self.rate.per_ms));
        let missing = wanted.saturating_sub(units(self.rate.burst_sat, self.rate.per_ms));
        if missing == 0 {
            return Fit::Now;
        }
        match self.rate.amount_sat {
            0 => Fit::Never,
            amount => Fit::After(u64::try_from(missing.div_ceil(u128::from(amount))).unwrap_or(u64::MAX)),
        }
    }

    /// Takes `sat` out, whether it fits or not.
    pub fn take(&mut self, sat: u64) {
        self.deficit = self.deficit.saturating_add(units(sat, self.rate.per_ms));
    }

    /// The same deficit, rounded up by less than a satoshi / `per_ms`, under another rate.
    #[must_use]
    pub fn under(&self, rate: Rate) -> Self {
        let old_per = u128::from(self.rate.per_ms.max(1));
        let new_per = u128::from(rate.per_ms);
        let whole = self.deficit.checked_div(old_per).unwrap_or(0);
        let rest = self.deficit.checked_rem(old_per).unwrap_or(0);
        let deficit = whole.saturating_mul(new_per).saturating_add(rest.saturating_mul(new_per).div_ceil(old_per));
        Self { rate, deficit }
    }

    /// True when the deficit in satoshi is larger than the other's.
    #[must_use]
    pub(super) fn owes_more_than(&self, other: &Self) -> bool {
        self.under(other.rate).deficit > other.deficit
    }
}

/// `a × b`; two u64 always fit.
fn units(a: u64, b: u64) -> u128 {
    u128::from(a).saturating_mul(u128::from(b))
}
