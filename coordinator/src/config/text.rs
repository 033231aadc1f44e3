//! Amounts, times and fee rates as they stand in the file.

use std::time::Duration;

use bitcoin::Network;
use postern_protocol::units;
use serde::{Deserialize, Deserializer, de};

/// Satoshi, written `"0.04 BTC"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub u64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        units::parse_amount_sat(&String::deserialize(d)?).map(Self).map_err(de::Error::custom)
    }
}

/// A time, written `"30 s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

impl Span {
    /// From milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// In milliseconds.
    #[must_use]
    pub fn ms(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// As the standard library has it.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        units::parse_duration_ms(&String::deserialize(d)?).map(Self).map_err(de::Error::custom)
    }
}

/// Satoshi per 1,000 virtual bytes, written `"12 sat/vB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeeRate(u64);

impl FeeRate {
    /// From satoshi per 1,000 virtual bytes.
    #[must_use]
    pub const fn from_sat_per_kvb(sat: u64) -> Self {
        Self(sat)
    }

    /// In satoshi per 1,000 virtual bytes.
    #[must_use]
    pub const fn sat_per_kvb(self) -> u64 {
        self.0
    }

    /// The fee of so many weight units, rounded up.
    #[must_use]
    pub fn fee_sat(self, weight_wu: u64) -> u64 {
        weight_wu.saturating_mul(self.0).div_ceil(4_000)
    }
}

impl<'de> Deserialize<'de> for FeeRate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        units::parse_fee_rate_sat_per_kvb(&String::deserialize(d)?).map(Self).map_err(de::Error::custom)
    }
}

pub(super) fn network<'de, D: Deserializer<'de>>(d: D) -> Result<Network, D::Error> {
    match String::deserialize(d)?.as_str() {
        "bitcoin" => Ok(Network::Bitcoin),
        "testnet4" => Ok(Network::Testnet4),
        "signet" => Ok(Network::Signet),
        "regtest" => Ok(Network::Regtest),
        other => Err(de::Error::unknown_variant(other, &["bitcoin", "testnet4", "signet", "regtest"])),
    }
}
