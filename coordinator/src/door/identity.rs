//! What a link must know of the door before it can connect: the TLS pin and the onion address. Both exist before any signer is paired.

use std::path::{Path, PathBuf};

use postern_link::{
    keyfile,
    tls::{self, TlsIdentity, TlsPin},
};

use super::{DoorError, DoorTable, OnionKind, config::ONION_PORT, onion};

/// The door as a link knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorIdentity {
    /// Its TLS key.
    pub tls_pin: TlsPin,
    /// Its onion address with port; none when only the direct way is offered.
    pub onion: Option<String>,
}

pub(super) fn tls_key_path(state: &Path) -> PathBuf {
    state.join("tls-key.pem")
}

/// The door's identity; makes the keys when they are not there. Connects to nothing.
///
/// # Errors
/// [`DoorError`].
pub fn identity(table: &DoorTable) -> Result<DoorIdentity, DoorError> {
    table.validate()?;
    tls::install_crypto_provider();
    keyfile::private_folder(&table.state)?;
    let tls_pin = TlsIdentity::load_or_create(&tls_key_path(&table.state))?.pin();
    let host = match table.onion.kind {
        OnionKind::None => None,
        OnionKind::Arti => Some(onion::address(table)?),
        OnionKind::External => table.onion.address.clone(),
    };
    Ok(DoorIdentity { tls_pin, onion: host.map(|host| format!("{host}:{ONION_PORT}")) })
}
