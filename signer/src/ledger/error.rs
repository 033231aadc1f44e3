//! Why a ledger cannot be used.

use std::path::PathBuf;

use crate::anchor::AnchorError;

/// Why a ledger cannot be used, and what mends it.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is none.
    #[error("there is no ledger at {0}; restore it, or for a new signer run `postern init`")]
    Missing(PathBuf),
    /// There is one already.
    #[error("there is a ledger at {0} already; a new one would forget what was spent")]
    Exists(PathBuf),
    /// Another process has it open.
    #[error("another process uses {0}; stop it first (is a second postern-signer running?)")]
    InUse(PathBuf),
    /// The file is not a ledger of this program.
    #[error("{path} is not a ledger: {what}")]
    NotALedger {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A newer program wrote it.
    #[error("{path} has schema {found}, and this program knows {known}; use the newer program")]
    Schema {
        /// The file.
        path: PathBuf,
        /// In the file.
        found: i64,
        /// Known here.
        known: i64,
    },
    /// SQLite did not take a setting that durability depends on.
    #[error("SQLite's {setting} is {found}, not {wanted}: charges would not be durable")]
    NotDurable {
        /// The setting.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// The content contradicts itself.
    #[error("the ledger is damaged at entry {seq}: {what}; restore it from a copy and run `postern ledger verify`")]
    Damaged {
        /// The journal entry.
        seq: u64,
        /// What is wrong.
        what: String,
    },
    /// The configured limits make no sense.
    #[error("the limits of {scope}: {what}")]
    Limits {
        /// Which.
        scope: String,
        /// What is wrong.
        what: String,
    },
    /// ALARM: the anchor belongs to another ledger.
    #[error(
        "ALARM: the anchor belongs to ledger {anchor}, and this is ledger {ledger}. Was the state folder replaced? Restore the right one; \
         if the token was replaced on purpose, begin a new state folder with `postern init`"
    )]
    AnchorForeign {
        /// In the anchor.
        anchor: String,
        /// In the file.
        ledger: String,
    },
    /// ALARM: the anchor is older than the ledger.
    #[error("ALARM: the anchor knows less than the ledger ({what}): it was rolled back or replaced. Find out who had the token")]
    AnchorBehind {
        /// The numbers.
        what: String,
    },
    /// ALARM: a copy from before the first start.
    #[error(
        "ALARM: the anchor knows this ledger, and the file says that it was never started: an untouched copy was put back. \
         Find out who did it, and restore the latest"
    )]
    Untouched,
    /// ALARM: the anchor that this ledger had is gone.
    #[error(
        "ALARM: this ledger was anchored ({kind}) and now its anchor is empty or not configured. Configure it again; \
         if it is lost for good, begin a new state folder with `postern init`"
    )]
    AnchorLost {
        /// What it was.
        kind: String,
    },
    /// The anchor cannot be read or written.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// SQLite failed.
    #[error("the ledger cannot be read or written (disk full, read-only?): {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file system failed.
    #[error("the state folder cannot be used: {0}")]
    Io(#[from] std::io::Error),
}
