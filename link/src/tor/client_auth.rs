//! Onion service client authorisation (rend-spec-v3 appendix G): without the X25519 key nobody can even read where the
//! service is reached. It keeps strangers from knocking; who may ask is decided by the TLS keys inside.

use std::{fmt, fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, str::FromStr};

use data_encoding::BASE32_NOPAD;
use rand::{RngCore as _, rngs::OsRng};
use tor_llcrypto::pk::curve25519::{PublicKey, StaticSecret};

use crate::keyfile::{self, KeyFileError};

const PREFIX: &str = "descriptor:x25519:";

/// The link's secret half.
#[derive(Clone)]
pub struct ClientAuthKey(StaticSecret);

/// The public half, as in C Tor's `authorized_clients/*.auth`: `descriptor:x25519:` and base32.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientAuthPublic([u8; 32]);

/// Why a text is no client authorisation key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client authorisation key is written `descriptor:x25519:` and 52 base32 characters")]
pub struct ClientAuthError;

fn decode(base32: &str) -> Result<[u8; 32], ClientAuthError> {
    let bytes = BASE32_NOPAD.decode(base32.to_ascii_uppercase().as_bytes()).map_err(|_| ClientAuthError)?;
    bytes.try_into().map_err(|_| ClientAuthError)
}

impl ClientAuthKey {
    /// The key in this file, made when there is none.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        match keyfile::read(path) {
            Err(e) if e.is_missing() => {}
            read => return Self::parse(path, &read?),
        }
        let mut bytes = [0; 32];
        OsRng.fill_bytes(&mut bytes);
        let key = Self(StaticSecret::from(bytes));
        keyfile::write_new(path, format!("{PREFIX}{}\n", key.base32()).as_bytes())?;
        Ok(key)
    }

    /// The key in this file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        Self::parse(path, &keyfile::read(path)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, KeyFileError> {
        let key = text.trim().strip_prefix(PREFIX).ok_or(ClientAuthError).and_then(decode);
        key.map(|bytes| Self(bytes.into())).map_err(|e| KeyFileError::content(path, e.to_string()))
    }

    fn base32(&self) -> String {
        BASE32_NOPAD.encode(&self.0.to_bytes())
    }

    /// What the coordinator gets.
    #[must_use]
    pub fn public(&self) -> ClientAuthPublic {
        ClientAuthPublic(*PublicKey::from(&self.0).as_bytes())
    }

    /// Writes the form that Arti reads (C Tor's `ClientOnionAuthDir`) for one onion address, in the place of what was there.
    pub(super) fn write_for(&self, folder: &Path, onion: &str) -> Result<(), KeyFileError> {
        let host = onion.split(':').next().unwrap_or(onion).trim_end_matches(".onion");
        let (path, new) = (folder.join("coordinator.auth_private"), folder.join("coordinator.new"));
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            writeln!(file, "{host}:{PREFIX}{}", self.base32())?;
            fs::rename(&new, &path)
        };
        write().map_err(|e| KeyFileError::content(&path, format!("cannot be written: {e}")))
    }
}

impl fmt::Debug for ClientAuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientAuthKey").field(&self.public()).finish()
    }
}

impl fmt::Display for ClientAuthPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for ClientAuthPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClientAuthPublic {
    type Err = ClientAuthError;

    fn from_str(text: &str) -> Result<Self, ClientAuthError> {
        text.strip_prefix(PREFIX).ok_or(ClientAuthError).and_then(decode).map(Self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_its_public_half_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client-auth");
        let made = ClientAuthKey::load_or_create(&path).unwrap();
        let public = ClientAuthKey::load(&path).unwrap().public();
        assert_eq!(made.public(), public);
        assert_eq!(public.to_string().parse::<ClientAuthPublic>().unwrap(), public);
        assert!("descriptor:x25519:ABC".parse::<ClientAuthPublic>().is_err());
    }
}
