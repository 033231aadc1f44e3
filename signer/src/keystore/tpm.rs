//! A keystore in a TPM: seeds sealed to what was booted and to an auth value, unsealed into locked memory while the TPM is there.
//! A TPM has no secp256k1: the signing code is the one that serves seeds on tokens.

mod core;
mod seed_file;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use bitcoin::{Network, PublicKey, bip32::DerivationPath};
use postern_protocol::reply::{InputSignature, KeystoreStatus};

use self::{
    core::{Core, Link},
    seed_file::SeedFile,
};
use super::{AccountKey, Keystore, KeystoreError, TpmConfig, TypedEntropy, WalletBinding, entropy, module::lock, pin, pkcs11::check_name};
use crate::{
    analysis::SigningTask,
    anchor::NvAnchor,
    tpm::{AuthValue, PcrValues, Tpm},
};

/// What the TPM's generator is called where sources are named.
const GENERATOR: &str = "TPM2_GetRandom";

/// A TPM. Cloning shares it; the last clone closes it.
#[derive(Clone)]
pub struct TpmKeystore {
    running: Arc<Running>,
}

struct Running {
    core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A keystore whose library is loaded and whose secret is read, and that has no thread yet.
pub struct LoadedTpm {
    core: Core,
}

impl LoadedTpm {
    /// Loads the library that reaches the TPM and reads the secret behind the auth values.
    ///
    /// # Errors
    /// As [`TpmKeystore::open`].
    pub fn load(config: TpmConfig) -> Result<Self, KeystoreError> {
        let secret = pin::read(&config.name, &config.auth)?;
        config.tcti.load().map_err(|(library, reason)| KeystoreError::Module { path: library.into(), reason })?;
        let auth = AuthValue::derive(&secret, "postern/seed").map_err(|error| KeystoreError::Memory { reason: error.to_string() })?;
        Ok(Self { core: Core::new(Tpm::new(config.tcti.clone()), config, secret, auth) })
    }

    /// Starts its thread, which looks for the TPM.
    ///
    /// # Errors
    /// When there are no threads.
    pub fn connect(self) -> Result<TpmKeystore, KeystoreError> {
        let core = Arc::new(self.core);
        let watched = Arc::clone(&core);
        let thread = thread::Builder::new()
            .name("keystore-tpm".into())
            .spawn(move || watch::run(&watched))
            .map_err(|error| core.unavailable(format!("no thread: {error}")))?;
        Ok(TpmKeystore { running: Arc::new(Running { core, thread: Mutex::new(Some(thread)) }) })
    }
}

impl TpmKeystore {
    /// Reads the secret behind the auth values and starts to look for the TPM. One that is missing is no error here, as with a
    /// token: [`Self::wait_ready`] is for those who need the outcome.
    ///
    /// # Errors
    /// [`KeystoreError::Module`], [`KeystoreError::PinSource`], [`KeystoreError::Memory`].
    pub fn open(config: TpmConfig) -> Result<Self, KeystoreError> {
        LoadedTpm::load(config)?.connect()
    }

    /// The TPM itself; who asks it takes turns with this keystore.
    #[must_use]
    pub fn tpm(&self) -> Tpm {
        self.core().tpm.clone()
    }

    fn core(&self) -> &Arc<Core> {
        &self.running.core
    }

    /// Waits until the TPM answers.
    ///
    /// # Errors
    /// [`KeystoreError::Unavailable`] when it does not by then.
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), KeystoreError> {
        match self.core().wait_while(timeout, |link| matches!(link, Link::Connecting { .. })) {
            Link::Ready => Ok(()),
            other => Err(self.core().not_ready(&other)),
        }
    }

    /// The self-test of the randomness that new seeds are made from.
    ///
    /// # Errors
    /// [`KeystoreError::Random`] when a source is none.
    pub fn prove_random(&self) -> Result<(), KeystoreError> {
        let core = self.core();
        core.tpm
            .with(|tpm| Ok(entropy::prove(GENERATOR, |out| tpm.random(out))))
            .map_err(|error| core.explain_any(&error))?
            .map_err(|error| error.explain(&core.config.name, |error| core.explain_any(&error)))
    }

    /// Makes the seed of a wallet from the TPM's and the kernel's randomness and what was typed, seals it to the configured PCRs
    /// as they are now, and writes it to the state folder. What is on disk has been opened again before this returns.
    ///
    /// # Errors
    /// [`KeystoreError::Exists`] when there is one.
    pub fn create_seed(&self, wallet: &str, network: Network, typed: Option<&TypedEntropy>) -> Result<(), KeystoreError> {
        let (core, wallet) = (self.core(), check_name(wallet)?);
        SeedFile::refuse_existing(&core.config.state, wallet)?;
        let seed = core
            .tpm
            .with(|tpm| Ok(entropy::new_seed(GENERATOR, |out| tpm.random(out), typed)))
            .map_err(|error| core.explain(wallet, &error))?
            .map_err(|error| error.explain(&core.config.name, |error| core.explain(wallet, &error)))?;
        let file = SeedFile::seal(core, wallet, network, &seed, &core.pcrs_now(wallet)?)?;
        if *file.open(core)? != *seed {
            return Err(KeystoreError::Token {
                function: "TPM2_Unseal".into(),
                reason: "the new seed does not come back as it went in".into(),
            });
        }
        file.write_new(&core.config.state)
    }

    /// Seals a wallet's seed to the configured PCRs as they are now, those in `coming` replaced by what a boot to come will
    /// measure. With `only` what it was sealed to before no longer opens it.
    ///
    /// # Errors
    /// [`KeystoreError`]; the file is then as it was.
    pub fn reseal(&self, wallet: &str, network: Network, coming: &BTreeMap<u8, [u8; 32]>, only: bool) -> Result<PcrValues, KeystoreError> {
        let (core, wallet) = (self.core(), check_name(wallet)?);
        let file = SeedFile::read(&core.config.state, wallet, network)?;
        let seed = file.open(core)?;
        let mut wanted = core.pcrs_now(wallet)?;
        wanted.0.extend(coming);
        let file = file.with_sealing(SeedFile::seal(core, wallet, network, &seed, &wanted)?, only);
        file.replace(&core.config.state)?;
        Ok(wanted)
    }

    /// Derives an account's public half from a wallet's seed, for its descriptor. The wallet need not be bound.
    ///
    /// # Errors
    /// As [`super::Pkcs11Keystore::account_key`].
    pub fn account_key(&self, wallet: &str, network: Network, path: &DerivationPath) -> Result<AccountKey, KeystoreError> {
        self.core().unseal(check_name(wallet)?, network)?.account(network.into(), path)
    }

    /// The ledger's anchor in this TPM's memory.
    ///
    /// # Errors
    /// [`KeystoreError::Memory`].
    pub fn anchor(&self, nv_index: u32) -> Result<NvAnchor, KeystoreError> {
        let core = self.core();
        let auth =
            AuthValue::derive(&core.secret, "postern/anchor").map_err(|error| KeystoreError::Memory { reason: error.to_string() })?;
        Ok(NvAnchor::new(core.tpm.clone(), auth, nv_index))
    }

    fn no_pool(wallet: &str) -> KeystoreError {
        KeystoreError::WalletUnknown { wallet: wallet.into(), reason: "is not of kind `pool`".into() }
    }
}

impl Keystore for TpmKeystore {
    fn bind(&self, wallet: WalletBinding) -> Result<(), KeystoreError> {
        check_name(&wallet.wallet)?;
        let bound = self.core().add(wallet);
        self.core().connected()?;
        self.core().check(&bound);
        bound.keys(self.core()).map(|_| ())
    }

    fn sign_tasks(&self, wallet: &str, tasks: &[SigningTask]) -> Result<Vec<InputSignature>, KeystoreError> {
        let bound = self.core().bound(wallet)?;
        self.core().connected()?;
        bound.keys(self.core())?.sign(tasks)
    }

    fn status(&self) -> KeystoreStatus {
        self.core().status()
    }

    fn pool_keys(&self, wallet: &str, _: u32, _: u32, _: u32) -> Result<Vec<PublicKey>, KeystoreError> {
        Err(Self::no_pool(wallet))
    }

    fn extend_pool(&self, wallet: &str, _: u32, _: u32) -> Result<u32, KeystoreError> {
        Err(Self::no_pool(wallet))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.core.set_link(Link::Closed);
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            log::error!("the TPM's thread panicked");
        }
    }
}

impl std::fmt::Debug for TpmKeystore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TpmKeystore({})", self.core().config.name)
    }
}
