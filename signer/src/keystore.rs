//! Where private keys are. Signs the digests of a charged plan, nothing else; every signature is low-S and verified
//! against the pinned public key before it leaves.
//!
//! It never creates a key that was not asked for by name, and never deletes one: a token that looks empty is a token that
//! looks empty. A wrong PIN is tried once.
//!
//! | kind | file | where the private key is |
//! |---|---|---|
//! | `hsm` | `keystore/hsm.rs` | born in the token, never extractable |
//! | `pool` | `keystore/pool.rs` | born in the token, wrapped out under a token key, unwrapped into a session to sign |
//! | `seed` | `keystore/seed.rs` | a BIP-32 seed, encrypted by a token key; in locked memory while the token is there |
//! | `seed` | `keystore/tpm.rs` | the same, sealed by a TPM to what was booted |

mod backoff;
mod binding;
mod call;
mod config;
mod core;
mod derive;
mod durable;
mod entropy;
mod error;
mod fault;
mod hsm;
mod label;
mod module;
mod opened;
mod pin;
mod pkcs11;
mod pool;
mod pool_file;
mod seed;
mod signature;
mod supervisor;
mod tpm;
mod wallets;
mod witness;
mod work;

use bitcoin::PublicKey;
use postern_protocol::reply::{InputSignature, KeystoreStatus};

pub(crate) use self::durable::{read as read_state_file, write_new as write_state_file};
pub(crate) use self::signature::answers;
pub use self::{
    binding::{AccountKey, BoundKeys, WalletBinding},
    config::{KeystoreConfig, PinSource, Pkcs11Config, SESSIONS_DEFAULT, TpmConfig},
    entropy::{ROLLS_MIN, TYPED_MIN, TypedEntropy, TypedEntropyError},
    error::KeystoreError,
    label::{LABEL_MAX, TokenLabel},
    opened::{LoadedKeystore, OpenKeystore},
    pkcs11::Pkcs11Keystore,
    tpm::TpmKeystore,
};
use crate::{analysis::SigningTask, ledger::Charged};

/// What [`Keystore::sign_soon`] calls. It must be quick: others wait for the thread that calls it.
pub type Then = Box<dyn FnOnce(Charged, Option<Result<Vec<InputSignature>, KeystoreError>>) + Send>;

/// What the signer asks of a keystore.
pub trait Keystore: Send + Sync {
    /// Registers a wallet and checks its keys with a test signature. The wallet stays registered whatever the outcome: it is
    /// checked again whenever the token comes back, and until then signing says why it cannot.
    ///
    /// # Errors
    /// The outcome of the first check. [`KeystoreError::Unavailable`] when there is no token to check on yet.
    fn bind(&self, wallet: WalletBinding) -> Result<(), KeystoreError>;

    /// The signatures of a charged plan, one for each of its tasks, in their order.
    ///
    /// # Errors
    /// As [`Self::sign_tasks`].
    fn sign(&self, charged: &Charged) -> Result<Vec<InputSignature>, KeystoreError> {
        self.sign_tasks(charged.plan().wallet(), charged.plan().tasks())
    }

    /// The same for those who have no time: it neither waits nor computes on the caller's thread. `then` is called once, with the
    /// charge and what came of it, by whoever makes the last signature. None: nothing was tried, ask [`Self::sign`].
    fn sign_soon(&self, charged: Charged, then: Then) {
        then(charged, None);
    }

    /// One signature for each task, in their order. For what holds no plan: benchmarks and tests of keystores. Requests are signed
    /// through [`Self::sign`], which wants the proof that they are charged.
    ///
    /// # Errors
    /// [`KeystoreError`]; its [`KeystoreError::refusal`] is what the asker is told. Never waits longer than the token takes
    /// plus a few seconds.
    fn sign_tasks(&self, wallet: &str, tasks: &[SigningTask]) -> Result<Vec<InputSignature>, KeystoreError>;

    /// Health, for operators.
    fn status(&self) -> KeystoreStatus;

    /// The public keys of a `pool` wallet's branch, in the order of their indices, from index `start`, at most `count`.
    ///
    /// # Errors
    /// [`KeystoreError::WalletUnknown`], or why the pool cannot be read.
    fn pool_keys(&self, wallet: &str, branch: u32, start: u32, count: u32) -> Result<Vec<PublicKey>, KeystoreError>;

    /// Grows a `pool` wallet's branch until it holds `size` keys, and returns how many it holds then (more than `size` when it
    /// held more). New keys are on disk before this returns. Asking twice for the same size makes nothing twice.
    ///
    /// # Errors
    /// [`KeystoreError`]; keys made so far are kept.
    fn extend_pool(&self, wallet: &str, branch: u32, size: u32) -> Result<u32, KeystoreError>;
}
