//! The socket's file: mode 0660, never taken from a daemon that still listens, removed at the end.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Why the socket cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A daemon answers on it.
    #[error("{} is in use: another signer listens on it; stop it first", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket stands there; it is not removed.
    #[error("{} exists and is not a socket; it is not removed: move it away or change [signer] socket", .0.display())]
    NotASocket(PathBuf),
    /// The folder is missing, the name too long (107 bytes), or not ours to write.
    #[error("cannot offer the socket {}: {source}; does its folder exist, and may this user write to it?", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The socket's file. Dropping it removes the file, unless somebody else has put another one there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// Listens. A socket that a dead daemon left behind is removed first.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let io = |source| SocketError::Io { path: path.into(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io(e)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::NotASocket(path.into())),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(SocketError::InUse(path.into())),
            // Nobody listens: the only error that proves it.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io)?,
            Err(e) => return Err(io(e)),
        },
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    // Who may connect is decided by the peer's user id; the mode only keeps strangers from trying.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(io)?;
    let meta = fs::symlink_metadata(path).map_err(io)?;
    Ok((listener, SocketFile { path: path.into(), identity: (meta.dev(), meta.ino()) }))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity);
        if ours && let Err(e) = fs::remove_file(&self.path) {
            log::warn!("cannot remove the socket {}: {e}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, file) = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(listen(&path), Err(SocketError::InUse(_))));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn another_daemons_socket_is_left_alone_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (listener, file) = listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        // Held open, so that the old inode's number is not given to the new file.
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        drop(listener);
        assert!(path.exists());
    }
}
