//! One process for one state folder.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use super::LedgerError;

/// Held as long as the ledger is open; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
}

impl LockFile {
    pub(super) fn take(folder: &Path) -> Result<Self, LedgerError> {
        let path = folder.join("ledger.lock");
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LedgerError::InUse { folder: folder.into(), pid: holder(file) }),
            Err(e) => return Err(LedgerError::Io(e.into())),
        }
        // For whoever comes second. Only the lock counts: a full disk is no reason not to run.
        let _ = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(Self { file })
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is just starting has a copy of the file until it becomes another program.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// The number that the holder wrote.
fn holder(file: File) -> Option<u32> {
    let mut text = String::new();
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
