//! Which addresses were handed out, over restarts: somebody may pay to them, so they must be recognised. The ledger knows
//! only what was spent.
//!
//! Losing this file loses no money: asking for the addresses again writes it anew. It decides nothing but how far a wallet's
//! table of scripts reaches.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::wallet::Position;

/// In the state folder.
pub(super) const FILE: &str = "addresses.json";
/// Larger than for a thousand wallets, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

type Highest = BTreeMap<String, BTreeMap<u32, u32>>;

/// Why it cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; the file may be removed: ask for the addresses again then", path.display())]
pub struct HandedOutError {
    path: PathBuf,
    source: io::Error,
}

/// The highest index of each branch of each wallet that was handed out.
pub(super) struct HandedOut {
    folder: PathBuf,
    highest: Mutex<Highest>,
}

impl HandedOut {
    /// Reads the state folder; nothing there means that nothing was handed out.
    pub(super) fn open(folder: &Path) -> Result<Self, HandedOutError> {
        let path = folder.join(FILE);
        let read = || -> io::Result<Highest> {
            match fs::metadata(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Highest::new()),
                Err(e) => return Err(e),
                Ok(meta) if meta.len() > FILE_MAX => return Err(io::Error::new(io::ErrorKind::InvalidData, "far too large")),
                Ok(_) => {}
            }
            serde_json::from_slice(&fs::read(&path)?).map_err(io::Error::from)
        };
        let highest = read().map_err(|source| HandedOutError { path: path.clone(), source })?;
        Ok(Self { folder: folder.into(), highest: Mutex::new(highest) })
    }

    /// The highest position of each branch of a wallet.
    pub(super) fn of(&self, wallet: &str) -> Vec<Position> {
        let highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        highest.get(wallet).into_iter().flatten().map(|(branch, index)| Position { branch: *branch, index: *index }).collect()
    }

    /// Notes a position, on disk when this returns.
    pub(super) fn note(&self, wallet: &str, position: Position) -> Result<(), HandedOutError> {
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = highest.get(wallet).and_then(|branches| branches.get(&position.branch));
        if known.is_some_and(|index| *index >= position.index) {
            return Ok(());
        }
        let mut next = highest.clone();
        next.entry(wallet.into()).or_default().insert(position.branch, position.index);
        self.write(&next).map_err(|source| HandedOutError { path: self.folder.join(FILE), source })?;
        *highest = next;
        Ok(())
    }

    fn write(&self, highest: &Highest) -> io::Result<()> {
        let (path, new) = (self.folder.join(FILE), self.folder.join(format!("{FILE}.new")));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(highest)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_out_is_known_after_a_restart_and_never_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let at = |branch, index| Position { branch, index };
        let handed_out = HandedOut::open(folder.path()).unwrap();
        assert_eq!(handed_out.of("hot"), []);
        handed_out.note("hot", at(0, 999)).unwrap();
        handed_out.note("hot", at(0, 5)).unwrap();
        handed_out.note("hot", at(1, 3)).unwrap();
        handed_out.note("cold", at(0, 1)).unwrap();
        let again = HandedOut::open(folder.path()).unwrap();
        assert_eq!(again.of("hot"), [at(0, 999), at(1, 3)]);
        assert_eq!(again.of("cold"), [at(0, 1)]);
    }

    #[test]
    fn a_damaged_file_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{").unwrap();
        let Err(error) = HandedOut::open(folder.path()) else { panic!("accepted") };
        assert!(error.to_string().contains(FILE), "{error}");
    }
}
