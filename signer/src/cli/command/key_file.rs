//! A manager's private key: PKCS #8 in PEM, encrypted with a passphrase by age (armored), or plain for those who protect the
//! file by other means.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use age::secrecy::{ExposeSecret as _, SecretString};
use anyhow::{Context as _, Result, bail};
use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, spki::der::pem::LineEnding},
};
use zeroize::Zeroizing;

/// No key file is longer, in bytes.
const FILE_MAX: u64 = 16 * 1024;
/// Shortest passphrase.
const PASSPHRASE_MIN: usize = 8;
const AGE: &str = "-----BEGIN AGE ENCRYPTED FILE-----";

/// Where a passphrase comes from.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PassphraseSource {
    /// Read the passphrase from the first line of a file instead of asking for it.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseSource {
    fn read(&self, prompt: &str) -> Result<SecretString> {
        let Some(path) = &self.passphrase_file else {
            let typed =
                rpassword::prompt_password(prompt).context("the passphrase cannot be asked for; --passphrase-file reads it from a file")?;
            return Ok(typed.into());
        };
        let text = read_private(path)?;
        Ok(text.lines().next().unwrap_or_default().to_owned().into())
    }

    /// A passphrase for a new key; a person types it twice.
    pub(super) fn new_passphrase(&self) -> Result<SecretString> {
        let passphrase = self.read("Passphrase for the new key: ")?;
        if passphrase.expose_secret().chars().count() < PASSPHRASE_MIN {
            bail!("a passphrase needs at least {PASSPHRASE_MIN} characters");
        }
        if self.passphrase_file.is_none() && self.read("Once more: ")?.expose_secret() != passphrase.expose_secret() {
            bail!("the two passphrases differ; no key was made");
        }
        Ok(passphrase)
    }
}

/// Writes a new key; without a passphrase it stands there plain. A file that exists is kept.
pub(super) fn create(path: &Path, key: &SigningKey, passphrase: Option<SecretString>) -> Result<()> {
    let pem = key.to_pkcs8_pem(LineEnding::LF).context("the key cannot be encoded")?;
    let text = match passphrase {
        None => pem,
        Some(passphrase) => {
            let recipient = age::scrypt::Recipient::new(passphrase);
            Zeroizing::new(age::encrypt_and_armor(&recipient, pem.as_bytes()).context("the key cannot be encrypted")?)
        }
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => anyhow::anyhow!("{} exists; keys are never replaced", path.display()),
        _ => anyhow::Error::from(e).context(format!("{} cannot be made", path.display())),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(e) = written {
        // Half a key is worse than none.
        let _ = fs::remove_file(path);
        return Err(e).with_context(|| format!("{} cannot be written", path.display()));
    }
    Ok(())
}

/// Reads a key; asks for the passphrase when it has one.
pub(super) fn open(path: &Path, source: &PassphraseSource) -> Result<SigningKey> {
    let text = read_private(path)?;
    let pem = if text.starts_with(AGE) {
        let passphrase = source.read(&format!("Passphrase for {}: ", path.display()))?;
        let identity = age::scrypt::Identity::new(passphrase);
        let plain = age::decrypt(&identity, text.as_bytes())
            .with_context(|| format!("{} cannot be opened with this passphrase", path.display()))?;
        let plain = Zeroizing::new(plain);
        Zeroizing::new(std::str::from_utf8(&plain).context("not a key")?.to_owned())
    } else {
        text
    };
    SigningKey::from_pkcs8_pem(&pem)
        .ok()
        .with_context(|| format!("{} is not an Ed25519 key in PKCS #8 PEM, as `postern command keygen` makes them", path.display()))
}

/// A small file that only its owner can read.
fn read_private(path: &Path) -> Result<Zeroizing<String>> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("{name} cannot be read"))?;
    let mode = file.metadata().with_context(|| name.to_string())?.mode();
    if mode & 0o077 != 0 {
        bail!("{name} can be read by others; chmod 600 {name}");
    }
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(FILE_MAX).read_to_string(&mut text).with_context(|| format!("{name} cannot be read"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn source(folder: &Path, passphrase: &str) -> PassphraseSource {
        let path = folder.join("passphrase");
        fs::write(&path, format!("{passphrase}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        PassphraseSource { passphrase_file: Some(path) }
    }

    #[test]
    fn a_key_opens_with_its_passphrase_and_with_no_other_and_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cfo.key");
        let key = SigningKey::from_bytes(&[7; 32]);
        let right = source(folder.path(), "correct horse");
        create(&path, &key, Some(right.new_passphrase().unwrap())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&path).unwrap().contains("PRIVATE KEY"));
        assert_eq!(open(&path, &right).unwrap(), key);
        assert!(create(&path, &key, None).unwrap_err().to_string().contains("never replaced"));
        let wrong = source(folder.path(), "incorrect horse");
        assert!(open(&path, &wrong).unwrap_err().to_string().contains("cannot be opened with this passphrase"));
        assert!(source(folder.path(), "short").new_passphrase().is_err());
    }

    #[test]
    fn a_plain_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cto.key");
        let key = SigningKey::from_bytes(&[8; 32]);
        let none = PassphraseSource { passphrase_file: None };
        create(&path, &key, None).unwrap();
        assert_eq!(open(&path, &none).unwrap(), key);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(open(&path, &none).unwrap_err().to_string().contains("chmod 600"));
    }
}
