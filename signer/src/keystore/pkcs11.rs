//! A keystore on a PKCS#11 token: what others call.

use std::{
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bitcoin::{Network, PublicKey, bip32::DerivationPath};
use cryptoki::object::ObjectHandle;
use postern_protocol::reply::{InputSignature, KeystoreStatus};

use super::{
    AccountKey, BoundKeys, Keystore, KeystoreError, Pkcs11Config, Then, TokenLabel, TypedEntropy, WalletBinding,
    core::{Bound, Core, Link, Material},
    fault::Fault,
    hsm,
    module::{ModuleUser, lock},
    pin, pool, seed,
    signature::ecdsa_answer,
    supervisor,
    work::{Token, Worker},
};
use crate::{
    analysis::{Scheme, SigningTask},
    ledger::Charged,
    secret::LockedBytes,
    wallet::KeyLocator,
};

/// Keys that one worker makes for a pool before another may take over.
const POOL_CHUNK: u32 = 25;

/// A PKCS#11 token, opened by label and serial. Cloning shares it; the last clone closes it.
#[derive(Clone)]
pub struct Pkcs11Keystore {
    running: Arc<Running>,
}

/// A keystore whose library is loaded and whose PIN is read, and that has no thread yet: what it needed from outside the sandbox it
/// has.
pub struct LoadedPkcs11 {
    config: Pkcs11Config,
    module: ModuleUser,
    pin: LockedBytes,
}

impl LoadedPkcs11 {
    /// Loads the library and reads the PIN.
    ///
    /// # Errors
    /// As [`Pkcs11Keystore::open`].
    pub fn load(config: Pkcs11Config) -> Result<Self, KeystoreError> {
        let pin = pin::read(&config.name, &config.pin)?;
        let module = ModuleUser::load(&config.module, &config.state)?;
        Ok(Self { config, module, pin })
    }

    /// Starts its threads, which connect to the token.
    ///
    /// # Errors
    /// When there are no threads.
    pub fn connect(self) -> Result<Pkcs11Keystore, KeystoreError> {
        self.connect_with(Vec::new())
    }

    fn connect_with(self, wallets: Vec<WalletBinding>) -> Result<Pkcs11Keystore, KeystoreError> {
        let Self { config, module, pin } = self;
        let sessions = config.sessions.clamp(1, 64);
        let core = Arc::new(Core::new(config, module, pin));
        for wallet in wallets {
            core.add(wallet);
        }
        let running = Arc::new(Running { core, threads: Mutex::default() });
        running.spawn("watch".into(), supervisor::run)?;
        running.spawn("stalls".into(), |core| core.queue.watch())?;
        for number in 1..=sessions {
            running.spawn(number.to_string(), |core| Worker::new(&core.module, &core.witness).run(&core.queue))?;
        }
        Ok(Pkcs11Keystore { running })
    }
}

/// The threads, stopped and joined when nobody holds the keystore any more.
struct Running {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pkcs11Keystore {
    /// Loads the module, reads the PIN and starts to connect. A token that is missing, or that refuses the PIN, is no error
    /// here: the daemon stays up, says so in its status, and does not restart into another login attempt.
    /// [`Self::wait_ready`] is for those who need the outcome.
    ///
    /// # Errors
    /// [`KeystoreError::Module`], [`KeystoreError::PinSource`], [`KeystoreError::Memory`].
    pub fn open(config: Pkcs11Config) -> Result<Self, KeystoreError> {
        Self::open_with(config, Vec::new())
    }

    /// The same with wallets, whose keys are checked as part of connecting.
    ///
    /// # Errors
    /// As [`Self::open`], and for a wallet name that cannot be a file name.
    pub fn open_with(config: Pkcs11Config, wallets: Vec<WalletBinding>) -> Result<Self, KeystoreError> {
        for wallet in &wallets {
            check_name(&wallet.wallet)?;
        }
        LoadedPkcs11::load(config)?.connect_with(wallets)
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.running.core
    }

    /// Waits until the token is connected.
    ///
    /// # Errors
    /// [`KeystoreError::Unavailable`] when it is not by then, [`KeystoreError::Pin`] at once.
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), KeystoreError> {
        match self.core().wait_while(timeout, |link| matches!(link, Link::Connecting { .. })) {
            Link::Ready(_) => Ok(()),
            other => Err(self.core().not_ready(&other)),
        }
    }

    /// How often this keystore has called C_Login. One for each connection; a wrong PIN is never tried twice.
    #[must_use]
    pub fn login_attempts(&self) -> u32 {
        self.core().login_attempts()
    }

    /// Makes the key of an `hsm` wallet in the token, labelled `postern:WALLET`: sensitive, never extractable.
    ///
    /// # Errors
    /// [`KeystoreError::Exists`] when the token has an object of that label.
    pub fn create_hsm_key(&self, wallet: &str) -> Result<PublicKey, KeystoreError> {
        let wallet = check_name(wallet)?.to_owned();
        self.core().run_once(move |token| hsm::create(token, &wallet))
    }

    /// Makes the seed of a `seed` wallet from the token's and the kernel's randomness and what was typed, encrypted by a new token
    /// key, and writes it to the state folder.
    ///
    /// # Errors
    /// [`KeystoreError::Exists`] when there is one.
    pub fn create_seed(&self, wallet: &str, network: Network, typed: Option<TypedEntropy>) -> Result<(), KeystoreError> {
        let (wallet, name, state) = (check_name(wallet)?.to_owned(), self.core().config.name.clone(), self.core().config.state.clone());
        self.core().run_once(move |token| seed::create(token, &name, &state, &wallet, network, typed.as_ref()))
    }

    /// The self-test of the randomness that new keys are made from.
    ///
    /// # Errors
    /// [`KeystoreError::Random`] when a source is none.
    pub fn prove_random(&self) -> Result<(), KeystoreError> {
        let name = self.core().config.name.clone();
        self.core().run_once(move |token| seed::prove_random(token, &name))
    }

    /// Makes the wrapping key of a `pool` wallet in the token and an empty pool in the state folder.
    ///
    /// # Errors
    /// [`KeystoreError::Exists`] when there is one; [`KeystoreError::Token`] when the token would hand wrapped keys out.
    pub fn create_pool(&self, wallet: &str, network: Network) -> Result<(), KeystoreError> {
        let (wallet, state) = (check_name(wallet)?.to_owned(), self.core().config.state.clone());
        self.core().run_once(move |token| pool::create(token, &state, &wallet, network))
    }

    /// Derives an account's public half from a `seed` wallet's seed, for its descriptor. The wallet need not be bound.
    ///
    /// # Errors
    /// [`KeystoreError::KeyMissing`] when there is no seed, [`KeystoreError::KeyMismatch`] when it was made for another network.
    pub fn account_key(&self, wallet: &str, network: Network, path: &DerivationPath) -> Result<AccountKey, KeystoreError> {
        let (wallet, state, path) = (check_name(wallet)?.to_owned(), self.core().config.state.clone(), path.clone());
        self.core().run_once(move |token| {
            let (keys, _) = seed::open(token, &state, &wallet, network)?;
            Ok(keys.account(network.into(), &path)?)
        })
    }

    /// A named text in the token, for the ledger's anchor.
    #[must_use]
    pub fn label(&self, name: &str) -> TokenLabel {
        TokenLabel::new(self.clone(), name)
    }

    fn sign_hsm(&self, bound: &Bound, tasks: &[SigningTask], pinned: &PublicKey) -> Result<Vec<InputSignature>, KeystoreError> {
        let wallet = &bound.binding.wallet;
        fits_hsm(wallet, tasks, pinned)?;
        let tasks: Arc<[SigningTask]> = tasks.into();
        self.core().with_keys(bound, |connection, material| {
            let Material::Hsm(private) = material else { return Err(Fault::call("bind", "another kind of key")) };
            let (tasks, wallet) = (Arc::clone(&tasks), wallet.clone());
            self.core().queue.run(connection, tasks.len(), true, move |token, part| sign_part(token, private, &wallet, tasks.get(part)))
        })
    }

    /// Has the workers sign, if the token is there and the keys are known to be on it; else gives everything back.
    fn try_sign_soon(&self, charged: Charged, then: Then) -> Result<(), (Charged, Then)> {
        let core = self.core();
        let plan = Arc::clone(charged.plan());
        let Some((bound, connection, material)) = core.ready(plan.wallet()) else { return Err((charged, then)) };
        let answering = Arc::clone(core);
        let count = plan.tasks().len();
        match (&bound.binding.keys, material) {
            (BoundKeys::Hsm { public_key }, Material::Hsm(private)) if fits_hsm(plan.wallet(), plan.tasks(), public_key).is_ok() => {
                let part = move |token: &mut Token<'_>, part: usize| sign_part(token, private, plan.wallet(), plan.tasks().get(part));
                core.queue.submit(connection, count, true, part, move |outcome| answering.answer(connection, outcome, charged, then));
            }
            (BoundKeys::Pool, Material::Pool(pool)) => {
                let Ok(Some(prepared)) = pool.prepare(plan.tasks()) else { return Err((charged, then)) };
                let part = move |token: &mut Token<'_>, part: usize| pool.sign(token, prepared.get(part).ok_or_else(no_such_part)?);
                core.queue.submit(connection, count, true, part, move |outcome| answering.answer(connection, outcome, charged, then));
            }
            _ => return Err((charged, then)),
        }
        Ok(())
    }

    fn sign_pool(&self, bound: &Bound, tasks: &[SigningTask]) -> Result<Vec<InputSignature>, KeystoreError> {
        let queue = &self.core().queue;
        self.core().with_keys(bound, |connection, material| {
            let Material::Pool(pool) = material else { return Err(Fault::call("bind", "another kind of key")) };
            let prepared = match pool.prepare(tasks)? {
                Some(prepared) => prepared,
                // Perhaps `postern` made keys meanwhile.
                None => {
                    let stale = Arc::clone(&pool);
                    queue.run(connection, 1, true, move |token, _| stale.load(token))?;
                    pool.prepare(tasks)?.ok_or_else(|| KeystoreError::KeyMissing {
                        wallet: bound.binding.wallet.clone(),
                        reason: "the pool file lacks a key that the wallet knows".into(),
                    })?
                }
            };
            queue.run(connection, prepared.len(), true, move |token, part| pool.sign(token, prepared.get(part).ok_or_else(no_such_part)?))
        })
    }

    fn pool_bound(&self, wallet: &str, branch: u32) -> Result<Arc<Bound>, KeystoreError> {
        let bound = self.core().bound(wallet)?;
        if bound.binding.keys != BoundKeys::Pool {
            return Err(KeystoreError::WalletUnknown { wallet: wallet.into(), reason: "is not of kind `pool`".into() });
        }
        if branch > 1 {
            let reason = format!("a pool has the branches 0 and 1, not {branch}");
            return Err(KeystoreError::Unsupported { wallet: wallet.into(), reason });
        }
        Ok(bound)
    }

    fn pool_material(&self, bound: &Bound) -> Result<Arc<pool::PoolKeys>, KeystoreError> {
        self.core().with_keys(bound, |_, material| match material {
            Material::Pool(pool) => Ok(pool),
            _ => Err(Fault::call("bind", "another kind of key")),
        })
    }
}

impl Keystore for Pkcs11Keystore {
    fn bind(&self, wallet: WalletBinding) -> Result<(), KeystoreError> {
        check_name(&wallet.wallet)?;
        let bound = self.core().add(wallet);
        let (core, checked) = (Arc::clone(self.core()), Arc::clone(&bound));
        self.core().run(1, true, move |token, _| core.check(token, &checked))?;
        self.core().with_keys(&bound, |_, _| Ok(()))
    }

    fn sign_tasks(&self, wallet: &str, tasks: &[SigningTask]) -> Result<Vec<InputSignature>, KeystoreError> {
        let bound = self.core().bound(wallet)?;
        match &bound.binding.keys {
            BoundKeys::Hsm { public_key } => self.sign_hsm(&bound, tasks, public_key),
            BoundKeys::Pool => self.sign_pool(&bound, tasks),
            // Not the workers' business: no call to the token is made. But the token must be there.
            BoundKeys::Seed { .. } => self.core().with_keys(&bound, |_, material| match material {
                Material::Seed(keys, _) => Ok(keys.sign(tasks)?),
                _ => Err(Fault::call("bind", "another kind of key")),
            }),
        }
    }

    fn sign_soon(&self, charged: Charged, then: Then) {
        if let Err((charged, then)) = self.try_sign_soon(charged, then) {
            then(charged, None);
        }
    }

    fn status(&self) -> KeystoreStatus {
        self.core().status()
    }

    fn pool_keys(&self, wallet: &str, branch: u32, start: u32, count: u32) -> Result<Vec<PublicKey>, KeystoreError> {
        let bound = self.pool_bound(wallet, branch)?;
        // What was verified once is known, also while the token is away.
        if pool::size(&bound.entries, branch) == 0 {
            self.pool_material(&bound)?;
        }
        Ok(pool::public_keys(&bound.entries, branch, start, count))
    }

    fn extend_pool(&self, wallet: &str, branch: u32, size: u32) -> Result<u32, KeystoreError> {
        let bound = self.pool_bound(wallet, branch)?;
        let _growing = lock(&bound.growth);
        loop {
            let first = {
                let pool = self.pool_material(&bound)?;
                pool.size(branch)
            };
            let count = pool::next_batch(first, size);
            if count == 0 {
                return Ok(first);
            }
            let parts = usize::try_from(count.div_ceil(POOL_CHUNK)).unwrap_or(1);
            self.core().with_keys(&bound, |connection, material| {
                let Material::Pool(pool) = material else { return Err(Fault::call("bind", "another kind of key")) };
                let maker = Arc::clone(&pool);
                let made = self.core().queue.run(connection, parts, true, move |token, part| {
                    let before = POOL_CHUNK.saturating_mul(u32::try_from(part).unwrap_or(u32::MAX));
                    (0..count.saturating_sub(before).min(POOL_CHUNK)).map(|_| maker.make_key(token)).collect::<Result<Vec<_>, _>>()
                })?;
                let keys = made.concat();
                // Not repeated on a fault: whether the keys are on disk is seen in the next round.
                self.core().queue.run(connection, 1, false, move |token, _| pool.append(token, branch, first, &keys))
            })?;
        }
    }
}

impl Running {
    fn spawn(&self, name: String, run: impl FnOnce(&Core) + Send + 'static) -> Result<(), KeystoreError> {
        let core = Arc::clone(&self.core);
        let thread = thread::Builder::new()
            .name(format!("keystore-{name}"))
            .spawn(move || run(&core))
            .map_err(|error| self.core.unavailable(format!("no thread: {error}")))?;
        lock(&self.threads).push(thread);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.core.set_link(Link::Closed);
        self.core.queue.close();
        let deadline = Instant::now().checked_add(super::work::STALL);
        // The last who held the keystore may be one of its own threads, with an answer that it gave.
        let this = thread::current().id();
        for thread in std::mem::take(&mut *lock(&self.threads)).into_iter().filter(|thread| thread.thread().id() != this) {
            // A call that hangs in the vendor's library must not keep the daemon from stopping.
            while !thread.is_finished() && deadline.is_some_and(|deadline| Instant::now() < deadline) {
                thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() && thread.join().is_err() {
                log::error!("a keystore thread panicked");
            }
        }
    }
}

impl std::fmt::Debug for Pkcs11Keystore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pkcs11Keystore({})", self.core().config.name)
    }
}

/// Whether a token key can do these tasks.
fn fits_hsm(wallet: &str, tasks: &[SigningTask], pinned: &PublicKey) -> Result<(), KeystoreError> {
    for task in tasks {
        if task.key.locator != KeyLocator::Hsm || task.scheme != Scheme::Ecdsa {
            let reason = format!("a token key makes ECDSA signatures with itself only, input {} wants another", task.input);
            return Err(KeystoreError::Unsupported { wallet: wallet.into(), reason });
        }
        if task.key.public_key.inner != pinned.inner {
            let reason = format!("input {} wants key {}, and {pinned} is pinned", task.input, task.key.public_key);
            return Err(KeystoreError::KeyMismatch { wallet: wallet.into(), reason });
        }
    }
    Ok(())
}

fn sign_part(token: &mut Token<'_>, private: ObjectHandle, wallet: &str, task: Option<&SigningTask>) -> Result<InputSignature, Fault> {
    let task = task.ok_or_else(no_such_part)?;
    let signature = hsm::sign(token, private, wallet, &task.digest, &task.key.public_key)?;
    Ok(ecdsa_answer(task, &signature))
}

fn no_such_part() -> Fault {
    Fault::call("queue", "no such part")
}

/// Wallet names become file names and labels.
pub(super) fn check_name(wallet: &str) -> Result<&str, KeystoreError> {
    let fits = (1..=64).contains(&wallet.len()) && wallet.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if fits {
        return Ok(wallet);
    }
    Err(KeystoreError::WalletUnknown { wallet: wallet.into(), reason: "is no wallet's name: 1 to 64 letters, digits, `-` and `_`".into() })
}
