//! What the threads of a keystore share: whether the token is there, which wallets it serves, and what became of their keys.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use cryptoki::object::{AttributeType, ObjectHandle};
use postern_protocol::reply::{InputSignature, KeystoreStatus};

use super::{
    BoundKeys, KeystoreError, Pkcs11Config, Then, WalletBinding,
    derive::SeedKeys,
    fault::{Failure, Fault},
    hsm,
    module::{ModuleUser, lock},
    pool::{self, Entries, PoolKeys},
    seed,
    wallets::Wallets,
    witness::Witness,
    work::{Connection, Queue, Token},
};
use crate::{ledger::Charged, secret::LockedBytes};

/// How long a request waits for a token that is being connected. Once an attempt has failed, requests do not wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shared by the supervisor, the workers and whoever signs.
pub(super) struct Core {
    pub(super) config: Pkcs11Config,
    pub(super) module: ModuleUser,
    pub(super) pin: LockedBytes,
    pub(super) queue: Queue,
    pub(super) witness: Witness,
    pub(super) logins: AtomicU32,
    link: Mutex<Link>,
    changed: Condvar,
    wallets: Wallets<Bound>,
}

/// Whether the token is there.
#[derive(Debug, Clone)]
pub(super) enum Link {
    /// It is being connected; `failed` says why the last attempt did not work.
    Connecting { failed: Option<String> },
    /// It is there.
    Ready(Connection),
    /// It does not take the PIN. For good.
    PinRefused(String),
    /// The keystore was closed.
    Closed,
}

/// A wallet and what is known about its keys now.
pub(super) struct Bound {
    pub(super) binding: WalletBinding,
    /// Kept over connections: what was verified once needs no second look.
    pub(super) entries: Arc<Entries>,
    keys: Mutex<Keys>,
    /// Held while the pool grows.
    pub(super) growth: Mutex<()>,
}

enum Keys {
    Unchecked,
    Ready(Connection, Material),
    Failed(KeystoreError),
}

/// What signs. Only good for the connection that it came with.
#[derive(Clone)]
pub(super) enum Material {
    Hsm(ObjectHandle),
    /// With the token key that sealed it.
    Seed(Arc<SeedKeys>, ObjectHandle),
    Pool(Arc<PoolKeys>),
}

impl Core {
    pub(super) fn new(config: Pkcs11Config, module: ModuleUser, pin: LockedBytes) -> Self {
        Self {
            config,
            module,
            pin,
            queue: Queue::default(),
            witness: Witness::default(),
            logins: AtomicU32::new(0),
            link: Mutex::new(Link::Connecting { failed: None }),
            changed: Condvar::new(),
            wallets: Wallets::default(),
        }
    }

    pub(super) fn unavailable(&self, reason: impl Into<String>) -> KeystoreError {
        KeystoreError::Unavailable { keystore: self.config.name.clone(), reason: reason.into() }
    }

    // The token.

    pub(super) fn link(&self) -> Link {
        lock(&self.link).clone()
    }

    /// Sets what is true of the token from now on; after closing nothing else is.
    pub(super) fn set_link(&self, link: Link) {
        let mut now = lock(&self.link);
        if !matches!(*now, Link::Closed) {
            *now = link;
        }
        drop(now);
        self.changed.notify_all();
    }

    /// Says that a connection looks dead. The supervisor makes a new one.
    pub(super) fn suspect(&self, connection: Connection, reason: &str) {
        let mut now = lock(&self.link);
        if matches!(*now, Link::Ready(ready) if ready == connection) {
            log::warn!("keystore `{}`: {reason}; connecting again", self.config.name);
            *now = Link::Connecting { failed: None };
            self.changed.notify_all();
        }
    }

    /// Sleeps while `asleep` holds of the link, at most for `at_most`.
    pub(super) fn wait_while(&self, at_most: Duration, asleep: impl Fn(&Link) -> bool) -> Link {
        let now = lock(&self.link);
        let (now, _) = self.changed.wait_timeout_while(now, at_most, |link| asleep(link)).unwrap_or_else(PoisonError::into_inner);
        now.clone()
    }

    /// The connection, waiting a moment for one that is on its way.
    pub(super) fn connection(&self) -> Result<Connection, KeystoreError> {
        match self.wait_while(PATIENCE, |link| matches!(link, Link::Connecting { failed: None })) {
            Link::Ready(connection) => Ok(connection),
            other => Err(self.not_ready(&other)),
        }
    }

    /// Why there is no connection.
    pub(super) fn not_ready(&self, link: &Link) -> KeystoreError {
        match link {
            Link::Connecting { failed: Some(reason) } => self.unavailable(reason.clone()),
            Link::Connecting { failed: None } | Link::Ready(_) => self.unavailable("it is being connected"),
            Link::PinRefused(reason) => KeystoreError::Pin { keystore: self.config.name.clone(), reason: reason.clone() },
            Link::Closed => self.unavailable("it was closed"),
        }
    }

    /// Runs work on the workers, once more when the module was merely initialised anew meanwhile.
    pub(super) fn run<T, F>(&self, parts: usize, repeat: bool, run: F) -> Result<Vec<T>, KeystoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Token<'_>, usize) -> Result<T, Fault> + Send + Sync + 'static,
    {
        let run = Arc::new(run);
        let deadline = Instant::now().checked_add(PATIENCE);
        loop {
            let connection = self.connection()?;
            let shared = Arc::clone(&run);
            match self.queue.run(connection, parts, repeat, move |token, part| shared(token, part)) {
                Ok(results) => return Ok(results),
                Err(Fault::Stale) if deadline.is_some_and(|deadline| Instant::now() < deadline) => {
                    self.suspect(connection, "the module was initialised anew");
                }
                Err(fault) => return Err(self.explain(connection, fault)),
            }
        }
    }

    /// Does something with a wallet's keys on the connection that they came with; once more when the module was merely
    /// initialised anew meanwhile.
    pub(super) fn with_keys<T>(&self, bound: &Bound, run: impl Fn(Connection, Material) -> Result<T, Fault>) -> Result<T, KeystoreError> {
        let deadline = Instant::now().checked_add(PATIENCE);
        loop {
            let connection = self.connection()?;
            let material = self.material(bound, connection)?;
            match run(connection, material) {
                Err(Fault::Stale) if deadline.is_some_and(|deadline| Instant::now() < deadline) => {
                    self.suspect(connection, "the module was initialised anew");
                }
                outcome => return outcome.map_err(|fault| self.explain(connection, fault)),
            }
        }
    }

    /// A wallet with its keys and the connection that they came with, if the token has time for them this moment.
    pub(super) fn ready(&self, wallet: &str) -> Option<(Arc<Bound>, Connection, Material)> {
        let Link::Ready(connection) = self.link() else { return None };
        if !self.queue.has_room() {
            return None;
        }
        let bound = self.bound(wallet).ok()?;
        let material = self.material(&bound, connection).ok()?;
        Some((bound, connection, material))
    }

    /// Tells whoever does not wait what came of it. When the module was merely initialised anew meanwhile, that is nothing.
    pub(super) fn answer(&self, connection: Connection, outcome: Result<Vec<InputSignature>, Fault>, charged: Charged, then: Then) {
        let outcome = match outcome {
            Err(Fault::Stale) => {
                self.suspect(connection, "the module was initialised anew");
                None
            }
            outcome => Some(outcome.map_err(|fault| self.explain(connection, fault))),
        };
        then(charged, outcome);
    }

    /// Runs one piece of work that must not be repeated.
    pub(super) fn run_once<T, F>(&self, run: F) -> Result<T, KeystoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Token<'_>) -> Result<T, Fault> + Send + Sync + 'static,
    {
        let mut results = self.run(1, false, move |token, _| run(token))?;
        results.pop().ok_or_else(|| self.unavailable("no result"))
    }

    /// What a fault means for the asker, and for the connection.
    pub(super) fn explain(&self, connection: Connection, fault: Fault) -> KeystoreError {
        match fault {
            Fault::Decided(error) => error,
            Fault::Call { function, reason, kind: Failure::Refused } => KeystoreError::Token { function, reason },
            fault @ (Fault::Stale | Fault::Call { .. }) => {
                let words = fault.words();
                self.suspect(connection, &words);
                self.unavailable(words)
            }
        }
    }

    // The wallets.

    pub(super) fn add(&self, binding: WalletBinding) -> Arc<Bound> {
        let wallet = binding.wallet.clone();
        let bound = Bound { entries: Arc::default(), keys: Mutex::new(Keys::Unchecked), growth: Mutex::new(()), binding };
        self.wallets.add(&wallet, bound)
    }

    pub(super) fn bound(&self, wallet: &str) -> Result<Arc<Bound>, KeystoreError> {
        self.wallets.get(&self.config.name, wallet)
    }

    pub(super) fn all_bound(&self) -> Vec<Arc<Bound>> {
        self.wallets.all()
    }

    /// Looks for a wallet's keys and has them sign. Faults of the token pass through, what is wrong with the wallet is kept.
    pub(super) fn check(&self, token: &mut Token<'_>, bound: &Bound) -> Result<(), Fault> {
        let WalletBinding { wallet, network, keys } = &bound.binding;
        let state = &self.config.state;
        let found = match keys {
            BoundKeys::Hsm { public_key } => hsm::find(token, wallet, public_key).map(Material::Hsm),
            BoundKeys::Seed { accounts } => seed::open(token, state, wallet, *network).and_then(|(keys, sealed_by)| {
                seed::check(&keys, wallet, *network, accounts)?;
                Ok(Material::Seed(Arc::new(keys), sealed_by))
            }),
            BoundKeys::Pool => {
                pool::open(token, state, wallet, *network, Arc::clone(&bound.entries)).map(|keys| Material::Pool(Arc::new(keys)))
            }
        };
        let outcome = match found {
            Ok(material) => Keys::Ready(token.connection, material),
            Err(Fault::Decided(error)) => Keys::Failed(error),
            Err(Fault::Call { function, reason, kind: Failure::Refused }) => Keys::Failed(KeystoreError::Token { function, reason }),
            Err(fault) => return Err(fault),
        };
        if let Keys::Failed(error) = &outcome {
            log::error!("keystore `{}`: {error}", self.config.name);
        }
        *lock(&bound.keys) = outcome;
        Ok(())
    }

    /// Forgets what came with a connection; a seed's memory is wiped when the last signature that uses it is done.
    pub(super) fn forget_keys(&self) {
        for bound in self.all_bound() {
            *lock(&bound.keys) = Keys::Unchecked;
        }
    }

    /// A wallet's keys on this connection.
    pub(super) fn material(&self, bound: &Bound, connection: Connection) -> Result<Material, KeystoreError> {
        match &*lock(&bound.keys) {
            Keys::Ready(of, material) if *of == connection => Ok(material.clone()),
            Keys::Failed(error) => Err(error.clone()),
            Keys::Ready(..) | Keys::Unchecked => Err(self.unavailable("the wallet's keys are being checked")),
        }
    }

    /// Whether the wallet's check went wrong, or has not happened.
    pub(super) fn wants_check(&self, bound: &Bound) -> bool {
        !matches!(&*lock(&bound.keys), Keys::Ready(..))
    }

    /// The objects that a connection relies on.
    pub(super) fn still_there(&self, token: &Token<'_>) -> Result<(), Fault> {
        for bound in self.all_bound() {
            let handle = match &*lock(&bound.keys) {
                Keys::Ready(_, Material::Hsm(handle)) => Some(*handle),
                Keys::Ready(_, Material::Pool(pool)) => Some(pool.wrapping()),
                Keys::Ready(_, Material::Seed(_, sealed_by)) => Some(*sealed_by),
                Keys::Unchecked | Keys::Failed(_) => None,
            };
            if let Some(handle) = handle
                && token.session.get_attributes(handle, &[AttributeType::Class])?.is_empty()
            {
                return Err(Fault::lost("a key is no longer readable"));
            }
        }
        Ok(())
    }

    // For people.

    pub(super) fn status(&self) -> KeystoreStatus {
        let link = self.link();
        let mut ready = matches!(link, Link::Ready(_));
        let mut state = match &link {
            Link::Ready(_) => "ready".to_owned(),
            other => self.not_ready(other).to_string(),
        };
        if ready {
            let troubles: Vec<String> = self
                .all_bound()
                .iter()
                .filter_map(|bound| match &*lock(&bound.keys) {
                    Keys::Failed(error) => Some(error.to_string()),
                    Keys::Unchecked => Some(format!("wallet `{}` is being checked", bound.binding.wallet)),
                    Keys::Ready(..) => None,
                })
                .collect();
            if !troubles.is_empty() {
                ready = false;
                state = troubles.join("; ");
            }
        }
        let config = &self.config;
        KeystoreStatus {
            name: config.name.clone(),
            token: format!("`{}`, serial {}, {}", config.token_label, config.token_serial, config.module.display()),
            state,
            ready,
        }
    }

    pub(super) fn login_attempts(&self) -> u32 {
        self.logins.load(Ordering::Relaxed)
    }
}
