//! Why a ledger cannot be used.

use std::path::PathBuf;

use rusqlite::{Error as SqlError, ErrorCode};

use crate::anchor::AnchorError;

/// Why a ledger cannot be used, and what mends it.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is none.
    #[error("there is no ledger at {0}; restore it (docs/ledger.md), or for a new signer run `postern init`")]
    Missing(PathBuf),
    /// There is one already.
    #[error("there is a ledger at {0} already; a new one would forget what was spent")]
    Exists(PathBuf),
    /// Another process has it open.
    #[error("another process uses {folder}{}; stop it first (is a second postern-signer running?)", pid.map(|pid| format!(", pid {pid}")).unwrap_or_default())]
    InUse {
        /// The state folder.
        folder: PathBuf,
        /// The other process, when it left its number.
        pid: Option<u32>,
    },
    /// The file is not a ledger of this program.
    #[error("{path} is not a ledger: {what}; restore the ledger (docs/ledger.md, \"The file is damaged\")")]
    NotALedger {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A newer program wrote it.
    #[error("{path} is of format {found}, and this program knows {known}: a newer program wrote it; use that one (docs/ledger.md)")]
    Schema {
        /// The file.
        path: PathBuf,
        /// In the file.
        found: i64,
        /// Known here.
        known: i64,
    },
    /// An older program wrote it, and it is only to be read.
    #[error(
        "{path} is of format {found}: the signer brings it to {known} at its next start; until then the program that wrote it reads it"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// In the file.
        found: i64,
        /// What this program writes.
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
    #[error("the ledger is damaged at entry {seq}: {what}; restore it from a copy (docs/ledger.md, \"The file is damaged\")")]
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
    /// ALARM: the anchor belongs to another ledger, or to this one after a re-base that it does not know.
    #[error(
        "ALARM: the anchor belongs to ledger {anchor}, and this is ledger {ledger}. Was the state folder or the token replaced, or a copy \
         from before a re-base put back? Restore the right one; if it was on purpose, the managers re-base (docs/ledger.md)"
    )]
    AnchorForeign {
        /// In the anchor.
        anchor: String,
        /// In the file.
        ledger: String,
    },
    /// ALARM: the anchor is older than the ledger.
    #[error(
        "ALARM: the anchor knows less than the ledger ({what}): it was rolled back or replaced. Find out who had the token; then the managers re-base (docs/ledger.md)"
    )]
    AnchorBehind {
        /// The numbers.
        what: String,
    },
    /// ALARM: a copy from before the first start.
    #[error(
        "ALARM: the anchor knows this ledger, and the file says that it was never started: an untouched copy was put back. \
         Find out who did it, and restore the latest; if it is lost, the managers re-base (docs/ledger.md)"
    )]
    Untouched,
    /// ALARM: the anchor that this ledger had is gone.
    #[error(
        "ALARM: this ledger was anchored ({kind}) and now its anchor is empty or not configured. Configure it again; \
         if it is lost for good, the managers re-base (docs/ledger.md)"
    )]
    AnchorLost {
        /// What it was.
        kind: String,
    },
    /// The anchor cannot be read or written.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// SQLite failed.
    #[error("the ledger cannot be read or written (disk full, read-only? docs/ledger.md): {0}")]
    Sqlite(SqlError),
    /// The file system failed.
    #[error("the state folder cannot be used (disk full, read-only? docs/ledger.md): {0}")]
    Io(std::io::Error),
}

// Not as sources: the texts hold what SQLite and the system say, and a chain of causes would say it again.
impl From<SqlError> for LedgerError {
    fn from(error: SqlError) -> Self {
        Self::Sqlite(error)
    }
}

impl From<std::io::Error> for LedgerError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl LedgerError {
    /// Tells a file whose content cannot be from a disk that does not work.
    pub(super) fn name_damage(self) -> Self {
        let Self::Sqlite(error) = &self else { return self };
        let works = match error {
            SqlError::SqliteFailure(e, _) | SqlError::SqlInputError { error: e, .. } => {
                matches!(e.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown | ErrorCode::TypeMismatch)
            }
            SqlError::QueryReturnedNoRows
            | SqlError::FromSqlConversionFailure(..)
            | SqlError::IntegralValueOutOfRange(..)
            | SqlError::InvalidColumnType(..)
            | SqlError::InvalidColumnIndex(_)
            | SqlError::Utf8Error(..) => true,
            _ => false,
        };
        if works { Self::Damaged { seq: 0, what: error.to_string() } } else { self }
    }
}
