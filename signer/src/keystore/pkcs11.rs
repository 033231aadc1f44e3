//! A keystore on a PKCS#11 token.

use std::time::Duration;

use bitcoin::{Network, PublicKey, bip32::DerivationPath};
use postern_protocol::reply::{InputSignature, KeystoreStatus};

use super::{AccountKey, Keystore, KeystoreError, Pkcs11Config, WalletBinding};
use crate::analysis::SigningTask;

/// A PKCS#11 token, opened by label and serial. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Pkcs11Keystore {
    config: Pkcs11Config,
}

impl Pkcs11Keystore {
    /// Loads the module, reads the PIN and starts to connect. A token that is missing, or that refuses the PIN, is no error
    /// here: the daemon stays up, says so in its status, and does not restart into another login attempt.
    /// [`Self::wait_ready`] is for those who need the outcome.
    ///
    /// # Errors
    /// [`KeystoreError::Module`], [`KeystoreError::PinSource`], [`KeystoreError::Memory`].
    pub fn open(config: Pkcs11Config) -> Result<Self, KeystoreError> {
        Ok(Self { config })
    }

    fn missing<T>(&self) -> Result<T, KeystoreError> {
        Err(KeystoreError::Unavailable { keystore: self.config.name.clone(), reason: "not connected".into() })
    }

    /// Waits until the token is connected.
    ///
    /// # Errors
    /// [`KeystoreError::Unavailable`] when it is not by then, [`KeystoreError::Pin`] at once.
    pub fn wait_ready(&self, _timeout: Duration) -> Result<(), KeystoreError> {
        self.missing()
    }

    /// Makes the key of an `hsm` wallet in the token, labelled `postern:WALLET`: sensitive, never extractable.
    ///
    /// # Errors
    /// [`KeystoreError::Exists`] when the token has an object of that label.
    pub fn create_hsm_key(&self, _wallet: &str) -> Result<PublicKey, KeystoreError> {
        self.missing()
    }

    /// Makes the seed of a `seed` wallet from the token's and the kernel's randomness, encrypted by a new token key, and
    /// writes it to the state folder.
    ///
    /// # Errors
    /// [`KeystoreError::Exists`] when there is one.
    pub fn create_seed(&self, _wallet: &str, _network: Network) -> Result<(), KeystoreError> {
        self.missing()
    }

    /// Makes the wrapping key of a `pool` wallet in the token and an empty pool in the state folder.
    ///
    /// # Errors
    /// [`KeystoreError::Exists`] when there is one.
    pub fn create_pool(&self, _wallet: &str, _network: Network) -> Result<(), KeystoreError> {
        self.missing()
    }

    /// Derives an account's public half from a `seed` wallet's seed, for its descriptor. The wallet need not be bound.
    ///
    /// # Errors
    /// [`KeystoreError::KeyMissing`] when there is no seed, [`KeystoreError::KeyMismatch`] when it was made for another network.
    pub fn account_key(&self, _wallet: &str, _network: Network, _path: &DerivationPath) -> Result<AccountKey, KeystoreError> {
        self.missing()
    }
}

impl Keystore for Pkcs11Keystore {
    fn bind(&self, _wallet: WalletBinding) -> Result<(), KeystoreError> {
        self.missing()
    }
    fn sign_tasks(&self, _wallet: &str, _tasks: &[SigningTask]) -> Result<Vec<InputSignature>, KeystoreError> {
        self.missing()
    }
    fn status(&self) -> KeystoreStatus {
        KeystoreStatus { name: self.config.name.clone(), token: String::new(), state: "not connected".into(), ready: false }
    }
    fn pool_keys(&self, _wallet: &str, _branch: u32, _start: u32, _count: u32) -> Result<Vec<PublicKey>, KeystoreError> {
        self.missing()
    }
    fn extend_pool(&self, _wallet: &str, _branch: u32, _size: u32) -> Result<u32, KeystoreError> {
        self.missing()
    }
}
