//! The PIN: read once, kept in locked memory, never printed.

use std::{
    env,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{KeystoreError, PinSource};
use crate::secret::LockedBytes;

/// Longest PIN.
const PIN_MAX: usize = 256;

/// Reads a keystore's PIN.
pub(super) fn read(keystore: &str, source: &PinSource) -> Result<LockedBytes, KeystoreError> {
    let failed = |reason: String| KeystoreError::PinSource { keystore: keystore.into(), reason };
    let (path, private) = match source {
        PinSource::File(path) => (path.clone(), true),
        // systemd sets the folder's permissions, and shows the file to this service only.
        PinSource::Credential(name) => (credential(name).map_err(&failed)?, false),
    };
    let unreadable = |error: io::Error| failed(format!("{}: {error}", path.display()));
    let mut file = File::open(&path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if private && metadata.permissions().mode() & 0o077 != 0 {
        return Err(failed(format!("{} is readable by others; chmod 600 it", path.display())));
    }
    // One byte more than a PIN and its line break, to see that there is no more.
    let mut buffer = LockedBytes::zeroed(PIN_MAX.saturating_add(2)).map_err(|error| KeystoreError::Memory { reason: error.to_string() })?;
    let mut filled = 0_usize;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    let pin = buffer.get(..filled).unwrap_or_default();
    let pin = pin.strip_suffix(b"\n").unwrap_or(pin);
    if pin.is_empty() || pin.contains(&b'\n') || pin.len() > PIN_MAX || std::str::from_utf8(pin).is_err() {
        return Err(failed(format!("{} must hold one line of 1 to {PIN_MAX} bytes of UTF-8", path.display())));
    }
    LockedBytes::copy_of(pin).map_err(|error| KeystoreError::Memory { reason: error.to_string() })
}

fn credential(name: &str) -> Result<PathBuf, String> {
    if name.is_empty() || name.contains('/') || name == ".." || name == "." {
        return Err(format!("`{name}` is no credential's name"));
    }
    let folder = env::var_os("CREDENTIALS_DIRECTORY")
        .ok_or("no $CREDENTIALS_DIRECTORY: credentials exist under systemd only (LoadCredential=); use { file = … } elsewhere")?;
    Ok(Path::new(&folder).join(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PinSource) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, PinSource::File(path))
    }

    #[test]
    fn a_pin_is_one_line_without_its_line_break() {
        for content in [b"1234".as_slice(), b"1234\n"] {
            let (_folder, source) = file(content, 0o600);
            assert_eq!(&*read("hsm", &source).unwrap(), b"1234");
        }
        let longest = [b'1'; PIN_MAX];
        let (_folder, source) = file(&longest, 0o400);
        assert_eq!(&*read("hsm", &source).unwrap(), &longest);
    }

    #[test]
    fn what_is_no_pin_is_refused_without_showing_it() {
        for content in [b"".as_slice(), b"\n", b"7\n7", &[b'7'; PIN_MAX + 1], &[0xff, 0xfe]] {
            let (_folder, source) = file(content, 0o600);
            let error = read("hsm", &source).unwrap_err();
            assert!(matches!(&error, KeystoreError::PinSource { .. }), "{error}");
            assert!(!error.to_string().contains("777"));
        }
    }

    #[test]
    fn a_pin_that_others_can_read_is_refused() {
        let (_folder, source) = file(b"1234", 0o640);
        assert!(read("hsm", &source).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_credential_is_a_name_and_not_a_path() {
        for name in ["", ".", "..", "../pin", "/etc/passwd"] {
            assert!(read("hsm", &PinSource::Credential(name.into())).is_err(), "{name}");
        }
    }
}
