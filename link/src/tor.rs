//! Tor as this project configures it, for the link and for the coordinator's onion service.
//!
//! The public network, bridges in front of it, or a private network. With a private network nothing of the public one is left in the
//! configuration: a client that mixed the two would dial strangers.

mod client_auth;
mod private;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use arti_client::{
    TorClientConfig,
    config::{BridgeConfigBuilder, CfgPath, TorClientConfigBuilder, pt::TransportConfigBuilder},
};
use serde::Deserialize;
use tor_config::ExplicitOrAuto;
use tor_dircommon::fallback::FallbackList;
use tor_guardmgr::VanguardMode;
use tor_keymgr::config::CTorClientKeystoreConfigBuilder;

pub use client_auth::{ClientAuthKey, ClientAuthPublic};
pub use private::{Fallback, PrivateNetwork, PrivateNetworkError};

use crate::keyfile::{self, KeyFileError};

/// How long a descriptor is believed when a connect with it fails. Tor's own 15 minutes would keep a restarted service unreachable.
const DESCRIPTOR_REFETCH: Duration = Duration::from_secs(30);

/// The `[tor]` table, the same in every daemon's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TorTable {
    /// Where Tor keeps its state and cache; without it, `tor` in the daemon's own state folder.
    pub state: Option<PathBuf>,
    /// Bridge lines, as `bridges.torproject.org` gives them. With any, no relay is contacted but through them.
    #[serde(default)]
    pub bridges: Vec<String>,
    /// Programs that disguise the traffic to bridges.
    #[serde(default)]
    pub transports: Vec<TransportTable>,
    /// How far the path is pinned against guard discovery.
    #[serde(default)]
    pub vanguards: Vanguards,
    /// A file that describes a private network ([`PrivateNetwork`]); then nothing but that network is ever contacted.
    pub private_network: Option<PathBuf>,
}

/// A pluggable transport.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportTable {
    /// What it speaks, for example `obfs4`.
    pub protocols: Vec<String>,
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// Vanguards (proposals 292 and 333): which hops are drawn from a small, slowly changing set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vanguards {
    /// The second hop. What Tor does by default.
    #[default]
    Lite,
    /// The second and the third hop. Slower; for an address that lives for years, as a coordinator's does.
    Full,
}

/// Why Tor cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum TorError {
    /// A bridge line is wrong.
    #[error("[tor] bridges, line {line}: {problem}")]
    Bridge {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A transport is wrong.
    #[error("[tor] transports: `{0}` is not a transport's name")]
    Transport(String),
    /// The private network's file is wrong.
    #[error(transparent)]
    Private(#[from] PrivateNetworkError),
    /// A bridge of the public network together with a private network.
    #[error("[tor] bridges, line {line}: not a loopback address; with a private_network nothing else is dialled")]
    BridgeOutsidePrivate {
        /// Which, from 1.
        line: usize,
    },
    /// A folder or key cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// Arti refuses the configuration.
    #[error("Tor's configuration does not hold: {0}")]
    Config(String),
    /// The public network's relays are still in a private configuration. A bug, and nothing is dialled.
    #[error("{found} fallback relays are configured where the private network has {wanted}; not dialling")]
    FallbacksMixed {
        /// In the built configuration.
        found: usize,
        /// In the private network.
        wanted: usize,
    },
}

impl TorTable {
    /// The configuration for Arti. `state` is the folder to use when the table names none; `client_auth` is the key for one onion service.
    ///
    /// # Errors
    /// [`TorError`].
    pub fn client_config(&self, state: &Path, client_auth: Option<(&str, &ClientAuthKey)>) -> Result<TorClientConfig, TorError> {
        let root = self.state.clone().unwrap_or_else(|| state.join("tor"));
        let (state, cache, keys) = (root.join("state"), root.join("cache"), root.join("client-auth"));
        for folder in [&root, &state, &cache, &keys] {
            keyfile::private_folder(folder)?;
        }
        let mut config = TorClientConfigBuilder::default();
        config.storage().state_dir(CfgPath::new_literal(&state)).cache_dir(CfgPath::new_literal(&cache));
        config.circuit_timing().hs_dir_requery_interval(DESCRIPTOR_REFETCH);
        config.vanguards().mode(ExplicitOrAuto::Explicit(match self.vanguards {
            Vanguards::Lite => VanguardMode::Lite,
            Vanguards::Full => VanguardMode::Full,
        }));
        if let Some((onion, key)) = client_auth {
            key.write_for(&keys, onion)?;
            let mut store = CTorClientKeystoreConfigBuilder::default();
            store.id("client-auth".parse().map_err(|e| TorError::Config(format!("{e}")))?).path(keys);
            config.storage().keystore().ctor().clients().access().push(store);
        }
        self.add_bridges(&mut config)?;
        let private = self.private_network.as_deref().map(PrivateNetwork::load).transpose()?;
        if let Some(network) = &private {
            network.replace_public(&mut config)?;
        }
        let built = config.build().map_err(|e| TorError::Config(e.to_string()))?;
        if let Some(network) = &private {
            let fallbacks: &FallbackList = built.as_ref();
            if fallbacks.len() != network.fallbacks.len() {
                return Err(TorError::FallbacksMixed { found: fallbacks.len(), wanted: network.fallbacks.len() });
            }
        }
        Ok(built)
    }

    fn add_bridges(&self, config: &mut TorClientConfigBuilder) -> Result<(), TorError> {
        for (index, line) in self.bridges.iter().enumerate() {
            let bridge: BridgeConfigBuilder =
                line.parse().map_err(|e| TorError::Bridge { line: index.saturating_add(1), problem: format!("{e}") })?;
            if self.private_network.is_some() && !is_on_loopback(line) {
                return Err(TorError::BridgeOutsidePrivate { line: index.saturating_add(1) });
            }
            config.bridges().bridges().push(bridge);
        }
        for transport in &self.transports {
            let mut built = TransportConfigBuilder::default();
            let protocols: Result<Vec<_>, _> =
                transport.protocols.iter().map(|name| name.parse().map_err(|_| TorError::Transport(name.clone()))).collect();
            built.protocols(protocols?).path(CfgPath::new_literal(&transport.path)).arguments(transport.arguments.clone());
            config.bridges().transports().push(built);
        }
        Ok(())
    }
}

/// Whether a bridge line dials this machine only. A transport's own host names are none of ours to judge, so they count as elsewhere.
fn is_on_loopback(bridge: &str) -> bool {
    let addresses: Vec<SocketAddr> = bridge.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests;
