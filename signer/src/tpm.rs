//! A TPM 2.0: seals small secrets to what was booted and to an auth value, keeps a few bytes that do not go back in time, gives
//! random bytes, and signs what was measured.
//!
//! Each task opens a connection of its own and closes it, so that nothing is left in the chip (it has room for three objects)
//! and nothing stale survives a reset. Whatever secret goes over the wire does so under a session whose key only this TPM can
//! know: whoever listens on the bus learns nothing.
//!
//! | file | what |
//! |---|---|
//! | `tpm/tcti.rs` | where the TPM is |
//! | `tpm/connection.rs` | a connection, its storage key, its sessions |
//! | `tpm/error.rs` | what its return codes mean for who asks |
//! | `tpm/pcr.rs` | what was booted: platform configuration registers |
//! | `tpm/seal.rs` | secrets under PCRs and an auth value |
//! | `tpm/nv.rs` | bytes in its non-volatile memory |
//! | `tpm/quote.rs` | signed statements about PCRs |
//! | `tpm/about.rs` | who made it, whether it is virtual, its lockout |

mod about;
mod auth;
mod connection;
mod error;
mod nv;
mod pcr;
mod quote;
mod seal;
mod tcti;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

pub use postern_protocol::attest::{PcrSet, PcrValues, pcr_meaning};

pub use self::{
    about::{About, Lockout},
    auth::AuthValue,
    connection::Connection,
    error::TpmError,
    nv::NvArea,
    quote::{Quote, QuotingKey},
    seal::Sealed,
    tcti::{Tcti, TctiError},
};

/// The TPM's library writes to standard error unless told not to. Call this first in `main`, while there is one thread.
#[allow(unsafe_code)]
pub fn quieten_library() {
    // SAFETY: the caller promises that no other thread runs, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var("TSS2_LOG", "all+NONE") };
}

/// A TPM. Clones are the same one: they take turns, and know of each other's refused auth values.
#[derive(Debug, Clone)]
pub struct Tpm {
    tcti: Tcti,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    turn: Mutex<()>,
    auth_refused: AtomicBool,
}

impl Tpm {
    /// Names a TPM; nothing is opened yet.
    #[must_use]
    pub fn new(tcti: Tcti) -> Self {
        Self { tcti, shared: Arc::default() }
    }

    /// Does something on a connection of its own.
    ///
    /// # Errors
    /// [`TpmError::Unavailable`] when there is none, and what `run` says.
    pub fn with<T>(&self, run: impl FnOnce(&mut Connection) -> Result<T, TpmError>) -> Result<T, TpmError> {
        let _turn = self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        run(&mut Connection::open(&self.tcti)?)
    }

    /// The same for what uses the auth value. A wrong one counts towards the TPM's lockout: after a refusal nothing is tried any
    /// more, and in lockout, or one try before it, nothing is tried yet.
    ///
    /// # Errors
    /// [`TpmError::Auth`], [`TpmError::Lockout`], and as [`Self::with`].
    pub fn with_auth<T>(&self, run: impl FnOnce(&mut Connection) -> Result<T, TpmError>) -> Result<T, TpmError> {
        self.with(|connection| {
            if self.shared.auth_refused.load(Ordering::Relaxed) {
                return Err(TpmError::Auth);
            }
            let lockout = connection.lockout()?;
            if lockout.forbids_trying() {
                return Err(TpmError::Lockout(lockout));
            }
            match run(connection) {
                Err(TpmError::Auth) => {
                    self.shared.auth_refused.store(true, Ordering::Relaxed);
                    Err(TpmError::Auth)
                }
                // With the numbers that say when to come back.
                Err(TpmError::LockedOut) => Err(TpmError::Lockout(connection.lockout()?)),
                outcome => outcome,
            }
        })
    }
}
