//! Amounts, times and fee rates as they stand in the file.

use std::{fmt, time::Duration};

use bitcoin::Network;
use postern_protocol::units;
use serde::{Deserialize, Deserializer, de};

use super::Secret;

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

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(SecretPlace)
    }
}

/// Written by hand, so that a secret that was put where its place belongs is in no error.
struct SecretPlace;

impl<'de> de::Visitor<'de> for SecretPlace {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("where the secret is: { file = \"…\" } or { credential = \"…\" }")
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Secret, E> {
        Err(E::custom("a secret never stands in the file: write { file = \"…\" } or { credential = \"…\" }"))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let secret = match map.next_key::<String>()?.as_deref() {
            Some("file") => Secret::File(map.next_value()?),
            Some("credential") => Secret::Credential(map.next_value()?),
            _ => return Err(de::Error::custom("a secret is { file = \"…\" } or { credential = \"…\" }")),
        };
        match map.next_key::<String>()? {
            None => Ok(secret),
            Some(_) => Err(de::Error::custom("a secret is in one place: { file = \"…\" } or { credential = \"…\" }")),
        }
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
