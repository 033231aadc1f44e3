//! The link's own two keys, and the public file that pairs it with a coordinator.

use std::path::{Path, PathBuf};

use postern_protocol::{key::PublicKey, pairing::LinkPublic};

use crate::{
    keyfile::{self, KeyFileError},
    tls::TlsIdentity,
    tor::ClientAuthKey,
};

/// Both keys. Neither moves money.
#[derive(Debug)]
pub struct LinkIdentity {
    /// What the coordinator pins.
    pub tls: TlsIdentity,
    /// What finds the coordinator's onion service.
    pub client_auth: ClientAuthKey,
}

fn paths(state: &Path) -> (PathBuf, PathBuf) {
    (state.join("tls-key.pem"), state.join("client-auth.key"))
}

impl LinkIdentity {
    /// Makes what is missing and keeps what is there.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load_or_create(state: &Path) -> Result<Self, KeyFileError> {
        keyfile::private_folder(state)?;
        let (tls, client_auth) = paths(state);
        Ok(Self { tls: TlsIdentity::load_or_create(&tls)?, client_auth: ClientAuthKey::load_or_create(&client_auth)? })
    }

    /// Both keys as `postern-link init` made them.
    ///
    /// # Errors
    /// [`KeyFileError`], also when they were never made.
    pub fn load(state: &Path) -> Result<Self, KeyFileError> {
        let (tls, client_auth) = paths(state);
        Ok(Self { tls: TlsIdentity::load(&tls)?, client_auth: ClientAuthKey::load(&client_auth)? })
    }

    /// What the coordinator must know.
    #[must_use]
    pub fn public(&self, signer_key: PublicKey) -> LinkPublic {
        LinkPublic { tls_pin: self.tls.pin().to_string(), client_auth: self.client_auth.public().to_string(), signer_key }
    }
}
