//! Small files in the state folder: whole or not there, on disk before anyone hears of them, readable by their owner only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags};

use super::KeystoreError;

/// Writes a file that does not exist yet.
///
/// # Errors
/// [`KeystoreError::Exists`]; [`KeystoreError::Storage`].
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), KeystoreError> {
    write(path, bytes, RenameFlags::NOREPLACE)
}

/// Writes a file in the place of one that may exist: the old one or the new one is there, whatever happens.
///
/// # Errors
/// [`KeystoreError::Storage`].
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeystoreError> {
    write(path, bytes, RenameFlags::empty())
}

fn write(path: &Path, bytes: &[u8], flags: RenameFlags) -> Result<(), KeystoreError> {
    let failed = |error: io::Error| storage(path, &error);
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix).map_err(|error| KeystoreError::Storage { path: path.into(), reason: error.to_string() })?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.new", hex::encode(suffix)));
    let unfinished = PathBuf::from(unfinished);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        match rustix::fs::renameat_with(CWD, &unfinished, CWD, path, flags) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => Err(KeystoreError::Exists { what: path.display().to_string() }),
            Err(error) => Err(failed(error.into())),
        }
    })();
    if written.is_err() {
        // It may not exist; what went wrong before matters more.
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    sync_folder_of(path)
}

/// Makes a new name in a folder durable.
pub(super) fn sync_folder_of(path: &Path) -> Result<(), KeystoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| storage(folder, &error))
}

/// Reads a file of at most `max` bytes; none when there is none.
pub(crate) fn read(path: &Path, max: u64) -> Result<Option<Vec<u8>>, KeystoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(storage(path, &error)),
    };
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| storage(path, &error))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        return Err(KeystoreError::Storage { path: path.into(), reason: format!("larger than {max} bytes") });
    }
    Ok(Some(bytes))
}

pub(super) fn storage(path: &Path, error: &dyn std::error::Error) -> KeystoreError {
    KeystoreError::Storage { path: path.into(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_written_once_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        write_new(&path, b"first").unwrap();
        assert!(matches!(write_new(&path, b"second"), Err(KeystoreError::Exists { .. })));
        assert_eq!(read(&path, 5).unwrap().unwrap(), b"first");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half-written is left");
    }

    #[test]
    fn a_replaced_file_is_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        for content in [b"first".as_slice(), b"second"] {
            replace(&path, content).unwrap();
            assert_eq!(read(&path, 9).unwrap().unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_file_over_its_size_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        write_new(&path, b"123456").unwrap();
        assert!(matches!(read(&path, 5), Err(KeystoreError::Storage { .. })));
        assert_eq!(read(&folder.path().join("none"), 5).unwrap(), None);
    }
}
