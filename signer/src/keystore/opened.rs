//! A keystore of either kind, as setting up and assembling need it. Signing knows the trait alone.

use std::{sync::Arc, time::Duration};

use bitcoin::{Network, PublicKey, bip32::DerivationPath};

use super::{
    AccountKey, Keystore, KeystoreConfig, KeystoreError, Pkcs11Keystore, TpmKeystore, TypedEntropy, pkcs11::LoadedPkcs11, tpm::LoadedTpm,
};
use crate::anchor::{Anchor, LabelAnchor, NV_INDEX_DEFAULT};

/// A keystore whose library is loaded and whose secret is read, and that has no thread yet: what it needed from outside the sandbox
/// it has.
pub enum LoadedKeystore {
    /// On a PKCS#11 token.
    Pkcs11(LoadedPkcs11),
    /// In a TPM.
    Tpm(LoadedTpm),
}

impl LoadedKeystore {
    /// Loads the library and reads the secret.
    ///
    /// # Errors
    /// As [`OpenKeystore::open`].
    pub fn load(config: KeystoreConfig) -> Result<Self, KeystoreError> {
        match config {
            KeystoreConfig::Pkcs11(config) => LoadedPkcs11::load(config).map(Self::Pkcs11),
            KeystoreConfig::Tpm(config) => LoadedTpm::load(config).map(Self::Tpm),
        }
    }

    /// Starts its threads, which connect.
    ///
    /// # Errors
    /// When there are no threads.
    pub fn connect(self) -> Result<OpenKeystore, KeystoreError> {
        match self {
            Self::Pkcs11(loaded) => loaded.connect().map(OpenKeystore::Pkcs11),
            Self::Tpm(loaded) => loaded.connect().map(OpenKeystore::Tpm),
        }
    }
}

/// An open keystore. Clones share it.
#[derive(Debug, Clone)]
pub enum OpenKeystore {
    /// On a PKCS#11 token.
    Pkcs11(Pkcs11Keystore),
    /// In a TPM.
    Tpm(TpmKeystore),
}

impl OpenKeystore {
    /// Opens it; what is not there yet is waited for with [`Self::wait_ready`].
    ///
    /// # Errors
    /// As [`Pkcs11Keystore::open`] and [`TpmKeystore::open`].
    pub fn open(config: KeystoreConfig) -> Result<Self, KeystoreError> {
        LoadedKeystore::load(config)?.connect()
    }

    /// Waits until it is there.
    ///
    /// # Errors
    /// [`KeystoreError::Unavailable`] when it is not by then; [`KeystoreError::Pin`].
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), KeystoreError> {
        match self {
            Self::Pkcs11(keystore) => keystore.wait_ready(timeout),
            Self::Tpm(keystore) => keystore.wait_ready(timeout),
        }
    }

    /// The self-test of the randomness that new keys are made from.
    ///
    /// # Errors
    /// [`KeystoreError::Random`] when a source is none.
    pub fn prove_random(&self) -> Result<(), KeystoreError> {
        match self {
            Self::Pkcs11(keystore) => keystore.prove_random(),
            Self::Tpm(keystore) => keystore.prove_random(),
        }
    }

    /// For signing.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn Keystore> {
        match self {
            Self::Pkcs11(keystore) => Arc::new(keystore.clone()),
            Self::Tpm(keystore) => Arc::new(keystore.clone()),
        }
    }

    /// The ledger's anchor in it.
    ///
    /// # Errors
    /// [`KeystoreError::Memory`].
    pub fn anchor(&self, signer: &str, nv_index: Option<u32>) -> Result<Box<dyn Anchor>, KeystoreError> {
        Ok(match self {
            Self::Pkcs11(keystore) => Box::new(LabelAnchor::new(keystore.label(&format!("anchor:{signer}")))),
            Self::Tpm(keystore) => Box::new(keystore.anchor(nv_index.unwrap_or(NV_INDEX_DEFAULT))?),
        })
    }

    /// Makes the key of an `hsm` wallet.
    ///
    /// # Errors
    /// As [`Pkcs11Keystore::create_hsm_key`]; [`KeystoreError::Unsupported`] by a TPM.
    pub fn create_hsm_key(&self, wallet: &str) -> Result<PublicKey, KeystoreError> {
        match self {
            Self::Pkcs11(keystore) => keystore.create_hsm_key(wallet),
            Self::Tpm(_) => Err(seeds_only(wallet)),
        }
    }

    /// Makes the seed of a `seed` wallet.
    ///
    /// # Errors
    /// As [`Pkcs11Keystore::create_seed`].
    pub fn create_seed(&self, wallet: &str, network: Network, typed: Option<TypedEntropy>) -> Result<(), KeystoreError> {
        match self {
            Self::Pkcs11(keystore) => keystore.create_seed(wallet, network, typed),
            Self::Tpm(keystore) => keystore.create_seed(wallet, network, typed.as_ref()),
        }
    }

    /// Makes the wrapping key of a `pool` wallet and an empty pool.
    ///
    /// # Errors
    /// As [`Pkcs11Keystore::create_pool`]; [`KeystoreError::Unsupported`] by a TPM.
    pub fn create_pool(&self, wallet: &str, network: Network) -> Result<(), KeystoreError> {
        match self {
            Self::Pkcs11(keystore) => keystore.create_pool(wallet, network),
            Self::Tpm(_) => Err(seeds_only(wallet)),
        }
    }

    /// Derives an account's public half from a `seed` wallet's seed.
    ///
    /// # Errors
    /// As [`Pkcs11Keystore::account_key`].
    pub fn account_key(&self, wallet: &str, network: Network, path: &DerivationPath) -> Result<AccountKey, KeystoreError> {
        match self {
            Self::Pkcs11(keystore) => keystore.account_key(wallet, network, path),
            Self::Tpm(keystore) => keystore.account_key(wallet, network, path),
        }
    }
}

fn seeds_only(wallet: &str) -> KeystoreError {
    KeystoreError::Unsupported { wallet: wallet.into(), reason: "a TPM has no secp256k1 and keeps seeds only".into() }
}
