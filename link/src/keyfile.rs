//! Small secret files: created once, mode 0600, synced, never overwritten; refused when others could read them.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Largest key file that is read, in bytes.
const KEY_FILE_MAX: u64 = 64 * 1024;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system says no.
    #[error("{path}: cannot {what}: {cause}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// Others may read it: whoever did may have copied it.
    #[error("{path}: readable by others (mode {mode:o}); if nobody else can have copied it, `chmod 600` it, else make a new key")]
    Exposed {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not the key it should be.
    #[error("{path}: {problem}")]
    Content {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl KeyFileError {
    fn io(what: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::Io { what, path: path.into(), cause }
    }

    /// The file's content is not what it should be.
    pub fn content(path: &Path, problem: impl Into<String>) -> Self {
        Self::Content { path: path.into(), problem: problem.into() }
    }

    /// Whether the file is simply not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound)
    }
}

/// Makes a folder (and its parents) that only its owner may enter. An existing folder is left as it is.
///
/// # Errors
/// [`KeyFileError::Io`].
pub fn private_folder(path: &Path) -> Result<(), KeyFileError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| KeyFileError::io("make the folder", path, e))
}

/// Writes a new file that only its owner may read, durably. An existing file is never touched.
///
/// # Errors
/// [`KeyFileError::Io`], with `AlreadyExists` when the file is there.
pub fn write_new(path: &Path, content: &[u8]) -> Result<(), KeyFileError> {
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| KeyFileError::io("create", path, e))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|e| KeyFileError::io("write", path, e))?;
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::File::open(folder).and_then(|f| f.sync_all()).map_err(|e| KeyFileError::io("sync the folder of", path, e))?;
    }
    Ok(())
}

/// Reads a secret file; refuses one that others may read.
///
/// # Errors
/// [`KeyFileError`].
pub fn read(path: &Path) -> Result<String, KeyFileError> {
    let metadata = fs::metadata(path).map_err(|e| KeyFileError::io("read", path, e))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.into(), mode });
    }
    if metadata.len() > KEY_FILE_MAX {
        return Err(KeyFileError::content(path, format!("{} bytes; a key file has at most {KEY_FILE_MAX}", metadata.len())));
    }
    fs::read_to_string(path).map_err(|e| KeyFileError::io("read", path, e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_new(&path, b"one").unwrap();
        assert!(matches!(write_new(&path, b"two"), Err(KeyFileError::Io { .. })));
        assert_eq!(read(&path).unwrap(), "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(KeyFileError::Exposed { mode: 0o640, .. })));
    }
}
