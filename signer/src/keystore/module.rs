//! The vendor's library: loaded once a process and never unloaded, initialised once, and initialised anew when a token has
//! gone. Everyone who shares it sees that by the generation.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
};

use super::{KeystoreError, backoff::Backoff, call::Calls, fault::Fault};

static LOADED: Mutex<BTreeMap<PathBuf, &'static Module>> = Mutex::new(BTreeMap::new());

/// Attempts at C_Initialize before a connection attempt counts as failed.
const INITIALISE_ATTEMPTS: u32 = 8;
/// How long to wait for another process of ours that is initialising the module.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A loaded library.
pub(super) struct Module {
    context: Pkcs11,
    calls: Calls,
    life: RwLock<Life>,
}

#[derive(Default)]
struct Life {
    initialised: bool,
    users: usize,
    generation: u64,
}

/// A share in a [`Module`]; the last one finalises it.
pub(super) struct ModuleUser {
    module: &'static Module,
    lock: PathBuf,
}

/// Proof that the module is initialised, and stays so while this lives.
pub(super) struct Entered<'a> {
    module: &'static Module,
    _life: RwLockReadGuard<'a, Life>,
}

impl Entered<'_> {
    pub(super) fn context(&self) -> &'static Pkcs11 {
        &self.module.context
    }
    pub(super) fn calls(&self) -> &'static Calls {
        &self.module.calls
    }
}

impl ModuleUser {
    /// Loads the library, or shares it. `state` is where processes of this signer meet: it holds the lock file.
    pub(super) fn load(path: &Path, state: &Path) -> Result<Self, KeystoreError> {
        let failed = |reason: String| KeystoreError::Module { path: path.into(), reason };
        // A bare file name is looked up by the loader and has no canonical path here.
        let key = path.canonicalize().unwrap_or_else(|_| path.into());
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match loaded.get(&key) {
            Some(module) => *module,
            None => {
                let context = Pkcs11::new(&key).map_err(|error| failed(error.to_string()))?;
                let calls = Calls::load(&key).map_err(failed)?;
                // Never unloaded: libraries of this kind do not survive it, and their functions are kept as pointers.
                let module: &'static Module = Box::leak(Box::new(Module { context, calls, life: RwLock::default() }));
                loaded.insert(key, module);
                module
            }
        };
        drop(loaded);
        let mut life = module.write();
        life.users = life.users.saturating_add(1);
        Ok(Self { module, lock: state.join("pkcs11.lock") })
    }

    /// Makes calls possible while the result lives.
    ///
    /// # Errors
    /// [`Fault::Stale`] when the module was initialised anew since `generation`.
    pub(super) fn enter(&self, generation: u64) -> Result<Entered<'_>, Fault> {
        let life = self.module.life.read().unwrap_or_else(PoisonError::into_inner);
        if !life.initialised || life.generation != generation {
            return Err(Fault::Stale);
        }
        Ok(Entered { module: self.module, _life: life })
    }

    /// Initialises the module and returns its generation. When it is initialised already, and of another generation than the one
    /// that the caller gave up on, that one is returned. Waits for calls that are under way.
    pub(super) fn initialise(&self, given_up: Option<u64>) -> Result<u64, Fault> {
        let mut life = self.module.write();
        if life.initialised && given_up != Some(life.generation) {
            return Ok(life.generation);
        }
        if life.initialised {
            life.initialised = false;
            // A module that cannot be finalised any more is initialised all the same.
            if let Err(error) = self.module.context.clone().finalize() {
                log::debug!("C_Finalize: {error}");
            }
        }
        life.generation = life.generation.saturating_add(1);
        self.call_initialise()?;
        life.initialised = true;
        Ok(life.generation)
    }

    fn call_initialise(&self) -> Result<(), Fault> {
        // Held while initialising only. Two processes that initialise at once may both fail.
        let _lock = self.lock_file();
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(200));
        let mut attempt = 0_u32;
        loop {
            attempt = attempt.saturating_add(1);
            match self.module.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
                Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => return Ok(()),
                Err(error) if attempt >= INITIALISE_ATTEMPTS => return Err(error.into()),
                Err(error) => log::debug!("C_Initialize, attempt {attempt}: {error}"),
            }
            thread::sleep(backoff.next_delay());
        }
    }

    /// The lock, or none when it cannot be had in time: initialising is tried several times anyway.
    fn lock_file(&self) -> Option<File> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&self.lock).ok()?;
        let since = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(100));
        while since.elapsed() < LOCK_PATIENCE {
            if file.try_lock().is_ok() {
                return Some(file);
            }
            thread::sleep(backoff.next_delay());
        }
        None
    }
}

impl Drop for ModuleUser {
    fn drop(&mut self) {
        let mut life = self.module.write();
        life.users = life.users.saturating_sub(1);
        if life.users == 0 && life.initialised {
            life.initialised = false;
            life.generation = life.generation.saturating_add(1);
            if let Err(error) = self.module.context.clone().finalize() {
                log::debug!("C_Finalize: {error}");
            }
        }
    }
}

impl Module {
    fn write(&self) -> RwLockWriteGuard<'_, Life> {
        self.life.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks, whatever another thread did while it held the lock: what is kept under these locks is replaced whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
