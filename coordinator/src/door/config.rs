//! The `[door]` table.

use std::{net::SocketAddr, path::PathBuf};

use postern_link::tor::TorTable;
use serde::Deserialize;

use super::DoorError;

/// `[door]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorTable {
    /// The door's own keys and Tor's state; mode 0700.
    pub state: PathBuf,
    /// Listen here for links on the same LAN, for example `"192.168.7.1:8443"`. Absent: no direct way.
    pub direct: Option<String>,
    /// The onion service.
    #[serde(default)]
    pub onion: OnionTable,
    /// Tor, for `onion.kind = "arti"`.
    #[serde(default)]
    pub tor: TorTable,
}

/// `[door.onion]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnionTable {
    /// Who runs the onion service.
    #[serde(default)]
    pub kind: OnionKind,
    /// For `external`: where C Tor's `HiddenServicePort` forwards to: `"unix:/path"` or a loopback `"address:port"`.
    pub listen: Option<String>,
    /// For `external`: the onion address, from C Tor's `hostname` file.
    pub address: Option<String>,
    /// For `external`: C Tor's `authorized_clients` folder. The door keeps one file for each paired signer there; C Tor reads them on HUP.
    pub authorized_clients: Option<PathBuf>,
}

/// Who runs the onion service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnionKind {
    /// Nobody; the direct way only.
    #[default]
    None,
    /// This process.
    Arti,
    /// A C Tor beside this process.
    External,
}

/// Where the coordinator's onion service is reached.
pub(super) const ONION_PORT: u16 = 443;

/// Where C Tor forwards to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExternalListen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl DoorTable {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`DoorError::Config`].
    pub fn validate(&self) -> Result<(), DoorError> {
        let wrong = |problem: &str| Err(DoorError::Config(problem.into()));
        match self.onion.kind {
            OnionKind::External => drop(self.external_listen()?),
            _ if self.onion.listen.is_some() || self.onion.address.is_some() || self.onion.authorized_clients.is_some() => {
                return wrong("onion.listen, onion.address and onion.authorized_clients belong to onion.kind = \"external\"");
            }
            OnionKind::None if self.direct.is_none() => {
                return wrong("offers no way in: set onion.kind, or `direct` for a LAN");
            }
            OnionKind::None | OnionKind::Arti => {}
        }
        match &self.onion.address {
            Some(address) if !is_onion(address) => wrong("onion.address is not an onion address: 56 letters and digits, then `.onion`"),
            None if self.onion.kind == OnionKind::External => {
                wrong("onion.kind = \"external\" needs onion.address, from C Tor's `hostname` file")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn external_listen(&self) -> Result<ExternalListen, DoorError> {
        let wrong = || {
            DoorError::Config("onion.listen is `unix:` and a path, or a loopback address with port: whoever reaches it is past Tor".into())
        };
        let listen = self.onion.listen.as_deref().ok_or_else(wrong)?;
        if let Some(path) = listen.strip_prefix("unix:") {
            return Ok(ExternalListen::Unix(path.into()));
        }
        let address: SocketAddr = listen.parse().map_err(|_| wrong())?;
        if address.ip().is_loopback() { Ok(ExternalListen::Tcp(address)) } else { Err(wrong()) }
    }
}

fn is_onion(address: &str) -> bool {
    address
        .strip_suffix(".onion")
        .is_some_and(|name| name.len() == 56 && name.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b)))
}
