//! Single values: texts with units, numbers in ranges, words out of a few, and where secrets are.

use std::{fmt, path::PathBuf};

use bitcoin::{Network, PublicKey, bip32::Fingerprint};
use postern_protocol::{frame::FRAME_MAX, units};
use serde::{Deserialize, Deserializer, de};

use crate::{keystore::PinSource, policy::rules::Raise, wallet::WalletKind};

/// A number in a range, with an error that names the range.
macro_rules! ranged {
    ($($name:ident, $inner:ty, $range:expr, $wanted:literal;)+) => {$(
        #[doc = concat!("A number: ", $wanted, ".")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let number = i64::deserialize(d)?;
                <$inner>::try_from(number)
                    .ok()
                    .filter(|n| $range.contains(n))
                    .map(Self)
                    .ok_or_else(|| de::Error::custom(format!("{number} is not {}", $wanted)))
            }
        }
    )+};
}

ranged! {
    InFlight, usize, (1..=10_000), "a number from 1 to 10000";
    Sessions, usize, (1..=64), "a number from 1 to 64";
    Gap, u32, (1..=100_000), "a number from 1 to 100000";
    PoolMax, u32, (1..=1_000_000), "a number from 1 to 1000000";
    NvIndex, u32, (0x0180_0000..=0x01bf_ffff), "one of the owner's NV indices, 0x01800000 to 0x01bfffff";
}

/// A text with a unit, read into the unit's integer.
macro_rules! with_unit {
    ($($name:ident, $inner:ty, $unit:literal, $parse:path;)+) => {$(
        #[doc = $unit]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) struct $name(pub(super) $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                $parse(&String::deserialize(d)?).map(Self).map_err(de::Error::custom)
            }
        }
    )+};
}

with_unit! {
    Sat, u64, "Satoshi.", units::parse_amount_sat;
    Millis, u64, "Milliseconds.", units::parse_duration_ms;
    FeeRate, u64, "Satoshi per 1,000 virtual bytes.", units::parse_fee_rate_sat_per_kvb;
    Share, u32, "Parts per million.", units::parse_share_ppm;
}

/// A text with a form of its own.
macro_rules! with_form {
    ($($name:ident, $inner:ty, $wanted:literal;)+) => {$(
        #[doc = concat!("A text: ", $wanted, ".")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) struct $name(pub(super) $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map(Self).map_err(|_| de::Error::custom(format!("`{text}` is not {}", $wanted)))
            }
        }
    )+};
}

with_form! {
    PublicKeyText, PublicKey, "a public key: 66 hex digits that begin with 02 or 03, as `postern wallet new` prints it";
    FingerprintText, Fingerprint, "a fingerprint: 8 hex digits, as in the descriptor";
}

/// A size in bytes: the largest frame that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameMax(pub usize);

impl<'de> Deserialize<'de> for FrameMax {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let bytes = units::parse_size_bytes(&text).map_err(de::Error::custom)?;
        usize::try_from(bytes)
            .ok()
            .filter(|bytes| (4_096..=FRAME_MAX).contains(bytes))
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a size from \"4 KiB\" to \"16 MiB\"")))
    }
}

/// Where a secret is; never the secret itself.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretTable(PinSource);

impl fmt::Debug for SecretTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SecretTable {
    /// The place.
    #[must_use]
    pub fn source(&self) -> &PinSource {
        &self.0
    }
}

const INLINE: &str = "a secret must not stand in the configuration; write { file = \"…\" } or { credential = \"…\" }";

struct SecretVisitor;

impl<'de> de::Visitor<'de> for SecretVisitor {
    type Value = SecretTable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{ file = \"…\" } or { credential = \"…\" }")
    }

    // What stands here is the secret: the message does not repeat it.
    fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretTable, E> {
        Err(E::custom(INLINE))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretTable, E> {
        Err(E::custom(INLINE))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretTable, E> {
        Err(E::custom(INLINE))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretTable, E> {
        Err(E::custom(INLINE))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<SecretTable, A::Error> {
        Err(de::Error::custom(INLINE))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<SecretTable, A::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Source {
            File(PathBuf),
            Credential(String),
        }
        Ok(SecretTable(match Source::deserialize(de::value::MapAccessDeserializer::new(map))? {
            Source::File(path) => PinSource::File(path),
            Source::Credential(name) => PinSource::Credential(name),
        }))
    }
}

impl<'de> Deserialize<'de> for SecretTable {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(SecretVisitor)
    }
}

const NETWORKS: [(&str, Network); 4] =
    [("bitcoin", Network::Bitcoin), ("testnet4", Network::Testnet4), ("signet", Network::Signet), ("regtest", Network::Regtest)];
const KINDS: [(&str, WalletKind); 3] = [("hsm", WalletKind::Hsm), ("pool", WalletKind::Pool), ("seed", WalletKind::Seed)];

/// A network's name in configurations, commands and heartbeats.
pub(super) fn network_name(network: Network) -> &'static str {
    NETWORKS.iter().find(|(_, known)| *known == network).map_or("unknown", |(name, _)| name)
}

/// A kind's name in configurations.
pub(super) fn kind_name(kind: WalletKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("unknown", |(name, _)| name)
}

/// One of a few words; the error is worded like serde's own, so that the nearest word is found from it.
fn word<'de, D: Deserializer<'de>, T: Copy>(d: D, words: &[(&'static str, T)]) -> Result<T, D::Error> {
    let text = String::deserialize(d)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        de::Error::custom(format!("unknown variant `{text}`, expected one of {}", known.join(", ")))
    })
}

pub(super) fn network<'de, D: Deserializer<'de>>(d: D) -> Result<Network, D::Error> {
    word(d, &NETWORKS)
}

pub(super) fn raise<'de, D: Deserializer<'de>>(d: D) -> Result<Raise, D::Error> {
    word(d, &[("command", Raise::Command), ("config", Raise::Config)])
}

pub(super) fn wallet_kind<'de, D: Deserializer<'de>>(d: D) -> Result<WalletKind, D::Error> {
    word(d, &KINDS)
}
