//! Who this signer is: an Ed25519 key that signs heartbeats, and to whose public half managers' commands are bound.
//!
//! It moves no money. It is made once by `postern init`, never by the daemon: a signer that lost its identity must not
//! quietly become another one, for which old commands and pairings would be void.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ed25519_dalek::{
    Signer as _, SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, spki::der::pem::LineEnding},
};
use postern_protocol::{
    heartbeat::{self, Heartbeat, HeartbeatError},
    key::PublicKey,
};
use zeroize::Zeroizing;

/// The key's file in the state folder: PKCS #8 in PEM (RFC 5958, RFC 8410), mode 0600.
pub const IDENTITY_FILE: &str = "identity.pem";
/// Nobody's PKCS #8 of an Ed25519 key is longer, in bytes.
const FILE_MAX: u64 = 4096;

/// Why there is no identity. Says which file and what mends it.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is none yet.
    #[error("there is no identity key at {}; `postern init` makes one, a restored backup holds the old one", .0.display())]
    Missing(PathBuf),
    /// There is one already; it is not replaced.
    #[error("an identity key exists at {}; commands and pairings are bound to it, so it is not replaced", .0.display())]
    Exists(PathBuf),
    /// Somebody else could read or replace it.
    #[error("{} has mode {mode:04o} and owner {uid}; it must be readable by this user only: chmod 0600, chown to the signer's user", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
    },
    /// The file holds something else.
    #[error("{} is not an Ed25519 key in PKCS #8 PEM; restore it from a backup", .0.display())]
    Form(PathBuf),
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The signer's identity key. Erased from memory when dropped.
pub struct Identity {
    key: SigningKey,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.public()).finish()
    }
}

impl Identity {
    /// Makes a new key in the state folder; for `postern init`. The file is on disk when this returns.
    ///
    /// # Errors
    /// [`IdentityError::Exists`], [`IdentityError::Io`].
    pub fn create(state: &Path) -> Result<Self, IdentityError> {
        let path = state.join(IDENTITY_FILE);
        let io = |source| IdentityError::Io { path: path.clone(), source };
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut_slice()).map_err(|e| io(io::Error::other(e)))?;
        let key = SigningKey::from_bytes(&secret);
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| IdentityError::Form(path.clone()))?;

        // Under another name until it is whole: half a key would look like a damaged one.
        let draft = state.join("identity.new");
        match fs::remove_file(&draft) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(io)?;
        file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        // A second name, and not a new one in place of the old: that would replace what is there.
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft).map_err(io)?;
        linked.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists(path.clone()),
            _ => io(e),
        })?;
        File::open(state).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok(Self { key })
    }

    /// Reads the key from the state folder.
    ///
    /// # Errors
    /// [`IdentityError`], without [`IdentityError::Exists`].
    pub fn open(state: &Path) -> Result<Self, IdentityError> {
        let path = state.join(IDENTITY_FILE);
        let io = |source| IdentityError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => IdentityError::Missing(path.clone()),
            _ => io(e),
        })?;
        let meta = file.metadata().map_err(io)?;
        let own = rustix::process::geteuid().as_raw();
        let (mode, uid) = (meta.mode() & 0o7777, meta.uid());
        if mode & 0o077 != 0 || (uid != own && uid != 0) {
            return Err(IdentityError::Exposed { path, mode, uid });
        }
        let mut pem = Zeroizing::new(String::with_capacity(1024));
        file.take(FILE_MAX).read_to_string(&mut pem).map_err(io)?;
        let key = SigningKey::from_pkcs8_pem(&pem).map_err(|_| IdentityError::Form(path))?;
        Ok(Self { key })
    }

    /// The public half, by which managers and the coordinator know this signer.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.verifying_key().into()
    }

    /// Signs a report.
    ///
    /// # Errors
    /// [`HeartbeatError::Cose`].
    pub fn sign_heartbeat(&self, report: &Heartbeat) -> Result<Vec<u8>, HeartbeatError> {
        heartbeat::sign(report, &self.key)
    }

    /// Signs a hash that begins with the domain of what it is for ([`postern_protocol::attest::vouched`]).
    #[must_use]
    pub fn sign_digest(&self, digest: &[u8; 32]) -> [u8; 64] {
        self.key.sign(digest).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_is_made_once_and_reads_back_the_same() {
        let state = tempfile::tempdir().unwrap();
        assert!(matches!(Identity::open(state.path()), Err(IdentityError::Missing(_))));
        let made = Identity::create(state.path()).unwrap();
        assert!(matches!(Identity::create(state.path()), Err(IdentityError::Exists(_))));
        assert_eq!(Identity::open(state.path()).unwrap().public(), made.public());
        // What a crash may leave, and what the refused second one left.
        std::fs::remove_file(state.path().join(IDENTITY_FILE)).unwrap();
        std::fs::write(state.path().join("identity.new"), "-----BEGIN").unwrap();
        Identity::create(state.path()).unwrap();
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 1);
        let mode = std::fs::metadata(state.path().join(IDENTITY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_identity_that_others_can_read_or_that_is_damaged_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(IDENTITY_FILE);
        Identity::create(state.path()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Identity::open(state.path()), Err(IdentityError::Exposed { mode: 0o640, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(matches!(Identity::open(state.path()), Err(IdentityError::Form(_))));
    }

    #[test]
    fn an_identity_never_prints_its_secret() {
        let identity = Identity { key: SigningKey::from_bytes(&[0xab; 32]) };
        assert!(!format!("{identity:?}").contains("abab"));
    }
}
