//! What the keystore knows: whether the TPM is there, which wallets it serves, and their unsealed seeds.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use bitcoin::Network;
use postern_protocol::reply::KeystoreStatus;

use super::{
    super::{BoundKeys, KeystoreError, TpmConfig, WalletBinding, derive::SeedKeys, module::lock, seed, wallets::Wallets},
    seed_file::SeedFile,
};
use crate::{
    secret::LockedBytes,
    tpm::{AuthValue, PcrValues, Tpm, TpmError},
};

/// How long a request waits for a TPM that is being looked for.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Core {
    pub(super) tpm: Tpm,
    pub(super) config: TpmConfig,
    /// What auth values are made from.
    pub(super) secret: LockedBytes,
    /// The one that seeds are sealed under.
    pub(super) auth: AuthValue,
    link: Mutex<Link>,
    changed: Condvar,
    wallets: Wallets<Bound>,
}

/// Whether the TPM is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// It is being looked for; `failed` says why the last attempt did not work.
    Connecting { failed: Option<String> },
    /// It answers.
    Ready,
    /// The keystore was closed.
    Closed,
}

/// A wallet and its keys.
pub(super) struct Bound {
    pub(super) binding: WalletBinding,
    keys: Mutex<Keys>,
}

enum Keys {
    Unchecked,
    Ready(Arc<SeedKeys>),
    Failed(KeystoreError),
}

impl Bound {
    pub(super) fn keys(&self, core: &Core) -> Result<Arc<SeedKeys>, KeystoreError> {
        match &*lock(&self.keys) {
            Keys::Ready(keys) => Ok(Arc::clone(keys)),
            Keys::Failed(error) => Err(error.clone()),
            Keys::Unchecked => Err(core.unavailable("the wallet's seed is being unsealed")),
        }
    }
}

impl Core {
    pub(super) fn new(tpm: Tpm, config: TpmConfig, secret: LockedBytes, auth: AuthValue) -> Self {
        let link = Mutex::new(Link::Connecting { failed: None });
        Self { tpm, config, secret, auth, link, changed: Condvar::new(), wallets: Wallets::default() }
    }

    pub(super) fn unavailable(&self, reason: impl Into<String>) -> KeystoreError {
        KeystoreError::Unavailable { keystore: self.config.name.clone(), reason: reason.into() }
    }

    // The TPM.

    /// Sets what is true from now on; after closing nothing else is.
    pub(super) fn set_link(&self, link: Link) {
        let mut now = lock(&self.link);
        if !matches!(*now, Link::Closed) {
            *now = link;
        }
        drop(now);
        self.changed.notify_all();
    }

    /// Sleeps while `asleep` holds, at most for `at_most`.
    pub(super) fn wait_while(&self, at_most: Duration, asleep: impl Fn(&Link) -> bool) -> Link {
        let now = lock(&self.link);
        let (now, _) = self.changed.wait_timeout_while(now, at_most, |link| asleep(link)).unwrap_or_else(PoisonError::into_inner);
        now.clone()
    }

    /// That the TPM is there, waiting a moment for one that is on its way.
    pub(super) fn connected(&self) -> Result<(), KeystoreError> {
        match self.wait_while(PATIENCE, |link| matches!(link, Link::Connecting { failed: None })) {
            Link::Ready => Ok(()),
            other => Err(self.not_ready(&other)),
        }
    }

    pub(super) fn not_ready(&self, link: &Link) -> KeystoreError {
        match link {
            Link::Connecting { failed: Some(reason) } => self.unavailable(reason.clone()),
            Link::Connecting { failed: None } | Link::Ready => self.unavailable("the TPM is being looked for"),
            Link::Closed => self.unavailable("it was closed"),
        }
    }

    /// What the TPM's error means for a wallet.
    pub(super) fn explain(&self, wallet: &str, error: &TpmError) -> KeystoreError {
        match error {
            TpmError::Policy | TpmError::Foreign | TpmError::Absent => {
                KeystoreError::KeyMismatch { wallet: wallet.into(), reason: error.to_string() }
            }
            error => self.explain_any(error),
        }
    }

    /// The same where no wallet is concerned.
    pub(super) fn explain_any(&self, error: &TpmError) -> KeystoreError {
        let keystore = self.config.name.clone();
        match error {
            TpmError::Auth => KeystoreError::Pin { keystore, reason: "the TPM refused the auth value".into() },
            TpmError::Refused { command, reason } => KeystoreError::Token { function: (*command).into(), reason: reason.clone() },
            TpmError::Memory(reason) => KeystoreError::Memory { reason: reason.clone() },
            error => KeystoreError::Unavailable { keystore, reason: error.to_string() },
        }
    }

    /// The configured PCRs.
    pub(super) fn pcrs_now(&self, wallet: &str) -> Result<PcrValues, KeystoreError> {
        self.tpm.with(|tpm| tpm.pcrs(&self.config.pcrs)).map_err(|error| self.explain(wallet, &error))
    }

    // The wallets.

    pub(super) fn add(&self, binding: WalletBinding) -> Arc<Bound> {
        self.wallets.add(&binding.wallet.clone(), Bound { keys: Mutex::new(Keys::Unchecked), binding })
    }

    pub(super) fn bound(&self, wallet: &str) -> Result<Arc<Bound>, KeystoreError> {
        self.wallets.get(&self.config.name, wallet)
    }

    pub(super) fn all_bound(&self) -> Vec<Arc<Bound>> {
        self.wallets.all()
    }

    /// A wallet's keys, from its file.
    pub(super) fn unseal(&self, wallet: &str, network: Network) -> Result<SeedKeys, KeystoreError> {
        let seed = SeedFile::read(&self.config.state, wallet, network)?.open(self)?;
        SeedKeys::from_seed(wallet, &seed)
    }

    /// Unseals a wallet's seed if that was not done yet, and has it sign something. What goes wrong is kept for whoever asks.
    pub(super) fn check(&self, bound: &Bound) {
        let WalletBinding { wallet, network, keys } = &bound.binding;
        let mut place = lock(&bound.keys);
        match &*place {
            // A refused auth value is for good: each try counts towards the lockout.
            Keys::Ready(_) | Keys::Failed(KeystoreError::Pin { .. }) => return,
            Keys::Failed(_) | Keys::Unchecked => {}
        }
        let checked = match keys {
            BoundKeys::Seed { accounts } => self.unseal(wallet, *network).and_then(|keys| {
                seed::check(&keys, wallet, *network, accounts)?;
                Ok(keys)
            }),
            BoundKeys::Hsm { .. } | BoundKeys::Pool => {
                Err(KeystoreError::Unsupported { wallet: wallet.clone(), reason: "a TPM has no secp256k1 and keeps seeds only".into() })
            }
        };
        match checked {
            Ok(keys) => *place = Keys::Ready(Arc::new(keys)),
            Err(error) => {
                if !matches!(&*place, Keys::Failed(known) if *known == error) {
                    log::error!("keystore `{}`: {error}", self.config.name);
                }
                *place = Keys::Failed(error);
            }
        }
    }

    /// Forgets seeds; their memory is wiped when the last signature that uses it is done.
    pub(super) fn forget_keys(&self) {
        for bound in self.all_bound() {
            let mut keys = lock(&bound.keys);
            if !matches!(&*keys, Keys::Failed(KeystoreError::Pin { .. })) {
                *keys = Keys::Unchecked;
            }
        }
    }

    // For people.

    pub(super) fn status(&self) -> KeystoreStatus {
        let link = lock(&self.link).clone();
        let mut troubles: Vec<String> = match &link {
            Link::Ready => vec![],
            other => vec![self.not_ready(other).to_string()],
        };
        if troubles.is_empty() {
            troubles.extend(self.all_bound().iter().filter_map(|bound| bound.keys(self).err()).map(|error| error.to_string()));
        }
        KeystoreStatus {
            name: self.config.name.clone(),
            token: format!("TPM at {}, PCRs {}", self.config.tcti, self.config.pcrs),
            ready: troubles.is_empty(),
            state: if troubles.is_empty() { "ready".into() } else { troubles.join("; ") },
        }
    }
}
