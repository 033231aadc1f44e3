//! One process for one state folder.

use std::{fs::File, path::Path};

use rustix::fs::{FlockOperation, flock};

use super::LedgerError;

/// Held as long as the ledger is open; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct LockFile {
    _file: File,
}

impl LockFile {
    pub(super) fn take(folder: &Path) -> Result<Self, LedgerError> {
        let path = folder.join("ledger.lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::InUse(folder.into())),
            Err(e) => Err(LedgerError::Io(e.into())),
        }
    }
}
