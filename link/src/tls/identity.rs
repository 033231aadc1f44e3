//! A TLS key pair on disk. Only the key is kept; the certificate around it is made afresh at each start, because nobody reads it.

use std::{fmt, path::Path};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{SERVER_NAME, TlsPin};
use crate::keyfile::{self, KeyFileError};

/// A P-256 key with a self-signed certificate.
pub struct TlsIdentity {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    pin: TlsPin,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("pin", &self.pin).finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// The key in this file (PEM, PKCS#8), made when there is none.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        match keyfile::read(path) {
            Err(e) if e.is_missing() => {}
            read => return Self::from_pem(path, &read?),
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| KeyFileError::content(path, e.to_string()))?;
        keyfile::write_new(path, key.serialize_pem().as_bytes())?;
        Self::around(path, key)
    }

    /// The key in this file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        Self::from_pem(path, &keyfile::read(path)?)
    }

    fn from_pem(path: &Path, pem: &str) -> Result<Self, KeyFileError> {
        let key = KeyPair::from_pem(pem).map_err(|e| KeyFileError::content(path, format!("not a private key in PEM: {e}")))?;
        Self::around(path, key)
    }

    fn around(path: &Path, key: KeyPair) -> Result<Self, KeyFileError> {
        let wrong = |e: &dyn fmt::Display| KeyFileError::content(path, e.to_string());
        let mut params = CertificateParams::new([SERVER_NAME.to_owned()]).map_err(|e| wrong(&e))?;
        params.distinguished_name = DistinguishedName::new();
        let certificate = params.self_signed(&key).map_err(|e| wrong(&e))?.der().clone();
        let pin = TlsPin::of_certificate(&certificate).map_err(|e| wrong(&e))?;
        Ok(Self { key, certificate, pin })
    }

    /// What the other side pins.
    #[must_use]
    pub fn pin(&self) -> TlsPin {
        self.pin
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}
