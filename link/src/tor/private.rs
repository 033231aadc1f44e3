//! A private Tor network: its authorities and where to fetch its directory, in a file of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use arti_client::config::{TorClientConfigBuilder, dir::FallbackDir};
use serde::{Deserialize, Serialize};
use tor_llcrypto::pk::{ed25519::Ed25519Identity, rsa::RsaIdentity};

use postern_protocol::config_file::{self, ConfigError};

/// A network of one's own, for tests and rehearsals, all of it on this machine: an address that is not loopback is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivateNetwork {
    /// The authorities' v3 identities, 40 hex digits each.
    pub authorities: Vec<String>,
    /// Relays to fetch the first directory from.
    pub fallbacks: Vec<Fallback>,
}

/// A relay that serves the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// RSA identity, 40 hex digits.
    pub rsa: String,
    /// Ed25519 identity, base64 without padding.
    pub ed25519: String,
    /// Where it listens for the onion-routing protocol.
    pub orport: SocketAddr,
}

/// Why a private network cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateNetworkError {
    /// The file cannot be read or understood.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// An identity is wrong.
    #[error("{path}: `{text}` is not {wanted}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What stands there.
        text: String,
        /// What should.
        wanted: &'static str,
    },
    /// Not on this machine.
    #[error("{path}: {orport} is not a loopback address; a private network lives on one machine, and nothing else is dialled with it")]
    NotLoopback {
        /// The file.
        path: PathBuf,
        /// The address.
        orport: SocketAddr,
    },
    /// No authority or no fallback.
    #[error("{path}: needs at least one of `authorities` and of `fallbacks`")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl PrivateNetwork {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`PrivateNetworkError`].
    pub fn load(path: &Path) -> Result<Self, PrivateNetworkError> {
        let network: Self = config_file::read(path)?;
        let path = || path.to_path_buf();
        if network.authorities.is_empty() || network.fallbacks.is_empty() {
            return Err(PrivateNetworkError::Empty { path: path() });
        }
        let wrong = |text: &String, wanted| PrivateNetworkError::Identity { path: path(), text: text.clone(), wanted };
        for text in &network.authorities {
            rsa(text).ok_or_else(|| wrong(text, "an RSA identity of 40 hex digits"))?;
        }
        for fallback in &network.fallbacks {
            rsa(&fallback.rsa).ok_or_else(|| wrong(&fallback.rsa, "an RSA identity of 40 hex digits"))?;
            ed25519(&fallback.ed25519).ok_or_else(|| wrong(&fallback.ed25519, "an Ed25519 identity in base64"))?;
            if !fallback.orport.ip().is_loopback() {
                return Err(PrivateNetworkError::NotLoopback { path: path(), orport: fallback.orport });
            }
        }
        Ok(network)
    }

    /// Puts this network in the place of the public one. Every list is set as a whole: Arti's list accessors start from the public
    /// network's entries, and adding to those would leave them in.
    pub(super) fn replace_public(&self, config: &mut TorClientConfigBuilder) -> Result<(), PrivateNetworkError> {
        let fallbacks = self.fallbacks.iter().filter_map(|fallback| {
            let mut built = FallbackDir::builder();
            built.rsa_identity(rsa(&fallback.rsa)?).ed_identity(ed25519(&fallback.ed25519)?);
            built.set_orports(vec![fallback.orport]);
            Some(built)
        });
        let network = config.tor_network();
        network.set_fallback_caches(fallbacks.collect());
        network.authorities().set_v3idents(self.authorities.iter().filter_map(|text| rsa(text)).collect());
        // A client uses none of these three; they would still name the public authorities.
        network.authorities().set_uploads(vec![]);
        network.authorities().set_downloads(vec![]);
        network.authorities().set_votes(vec![]);
        Ok(())
    }
}

fn rsa(text: &str) -> Option<RsaIdentity> {
    RsaIdentity::from_hex(text)
}

fn ed25519(text: &str) -> Option<Ed25519Identity> {
    Ed25519Identity::from_base64(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn load(orport: &str) -> Result<PrivateNetwork, PrivateNetworkError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.toml");
        let text = format!(
            "authorities = [\"{}\"]\n[[fallbacks]]\nrsa = \"{}\"\ned25519 = \"{}\"\norport = \"{orport}\"\n",
            "A".repeat(40),
            "B".repeat(40),
            "A".repeat(43)
        );
        std::fs::write(&path, text).unwrap();
        PrivateNetwork::load(&path)
    }

    #[test]
    fn a_private_network_is_on_loopback_or_refused() {
        assert!(load("127.3.0.1:5000").is_ok());
        assert!(matches!(load("192.0.2.1:5000"), Err(PrivateNetworkError::NotLoopback { .. })));
        assert!(matches!(load("10.0.0.1:5000"), Err(PrivateNetworkError::NotLoopback { .. })));
    }
}
