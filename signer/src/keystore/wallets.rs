//! The wallets that a keystore serves, by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use super::KeystoreError;

/// What a keystore knows of each wallet is its own affair.
pub(super) struct Wallets<B>(RwLock<BTreeMap<String, Arc<B>>>);

impl<B> Default for Wallets<B> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<B> Wallets<B> {
    pub(super) fn add(&self, wallet: &str, bound: B) -> Arc<B> {
        let bound = Arc::new(bound);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(wallet.to_owned(), Arc::clone(&bound));
        bound
    }

    pub(super) fn get(&self, keystore: &str, wallet: &str) -> Result<Arc<B>, KeystoreError> {
        let wallets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        wallets
            .get(wallet)
            .cloned()
            .ok_or_else(|| KeystoreError::WalletUnknown { wallet: wallet.into(), reason: format!("is not bound to keystore `{keystore}`") })
    }

    pub(super) fn all(&self) -> Vec<Arc<B>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
