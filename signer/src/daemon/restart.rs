//! Whether a daemon that ended with an error may be started again as it is.
//!
//! A unit with `Restart=` would otherwise try a wrong PIN or auth value again and again, until the token or the TPM locks.

use super::{RunError, SocketError, StartError, UserError};
use crate::{anchor::AnchorError, identity::IdentityError, keystore::KeystoreError, ledger::LedgerError};

impl RunError {
    /// Whether somebody has to mend something first: another start would end the same way, or do harm.
    #[must_use]
    pub fn needs_somebody(&self) -> bool {
        match self {
            Self::Start(error) => start(error),
            // The next start counts as one after a crash.
            Self::Stop(_) => false,
        }
    }
}

fn start(error: &StartError) -> bool {
    match error {
        StartError::Identity(error) => !matches!(error, IdentityError::Io { .. }),
        StartError::Ledger(error) => ledger(error),
        StartError::Wallet { source, .. } | StartError::Keystore { source, .. } => {
            !matches!(source, KeystoreError::Unavailable { .. } | KeystoreError::Storage { .. })
        }
        StartError::User(error) => matches!(error, UserError::Unknown(_)),
        StartError::Socket(error) => matches!(error, SocketError::NotASocket(_)),
        StartError::KeystoreUnknown { .. } | StartError::Descriptor { .. } | StartError::Sandbox(_) => true,
        StartError::HandedOut(_) | StartError::Signals(_) => false,
    }
}

fn ledger(error: &LedgerError) -> bool {
    match error {
        // Another one that is just ending, a disk that comes back, hardware that is not there yet.
        LedgerError::InUse { .. } | LedgerError::Sqlite(_) | LedgerError::Io(_) | LedgerError::Anchor(AnchorError::Unavailable(_)) => false,
        LedgerError::Missing(_)
        | LedgerError::Exists(_)
        | LedgerError::NotALedger { .. }
        | LedgerError::Schema { .. }
        | LedgerError::Older { .. }
        | LedgerError::NotDurable { .. }
        | LedgerError::Damaged { .. }
        | LedgerError::Limits { .. }
        | LedgerError::AnchorForeign { .. }
        | LedgerError::AnchorBehind { .. }
        | LedgerError::Untouched
        | LedgerError::AnchorLost { .. }
        | LedgerError::Anchor(AnchorError::Closed(_) | AnchorError::Damaged(_)) => true,
    }
}
