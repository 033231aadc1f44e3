//! `link.toml`. Every key is documented at its field; `configs/link.toml` shows all of them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use postern_protocol::{config_file, units};
use serde::{Deserialize, Deserializer, de};

pub use postern_protocol::config_file::ConfigError;

use crate::tor::TorTable;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// Who is linked.
    pub link: LinkTable,
    /// Tor, for `mode = "tor"`.
    #[serde(default)]
    pub tor: TorTable,
}

/// `[link]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkTable {
    /// The link's own keys and Tor's state. Only the link's user may enter it.
    pub state: PathBuf,
    /// The signer's Unix socket.
    pub signer: PathBuf,
    /// The coordinator's public file, as `postern-coordinator signer add` wrote it.
    pub coordinator: PathBuf,
    /// How to reach the coordinator.
    pub mode: Mode,
    /// Most requests taken and not yet answered at one time.
    #[serde(default = "default_in_flight")]
    pub max_in_flight: InFlight,
    /// How often the signer's signed report goes out.
    #[serde(default = "default_heartbeat", deserialize_with = "duration")]
    pub heartbeat: Duration,
}

/// The way to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Its onion service.
    Tor,
    /// TCP, for a LAN. The same TLS with the same keys.
    Direct,
}

/// A number from 1 to 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight(pub u32);

impl<'de> Deserialize<'de> for InFlight {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match i64::deserialize(d)? {
            n @ 1..=1_000 => Ok(Self(u32::try_from(n).map_err(de::Error::custom)?)),
            n => Err(de::Error::custom(format!("{n} is not a number from 1 to 1000"))),
        }
    }
}

fn default_in_flight() -> InFlight {
    InFlight(64)
}

fn default_heartbeat() -> Duration {
    Duration::from_secs(30)
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    units::parse_duration_ms(&String::deserialize(d)?).map(Duration::from_millis).map_err(de::Error::custom)
}

impl LinkConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], with line and nearest match.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        config_file::read(path)
    }
}

#[cfg(test)]
mod tests;
