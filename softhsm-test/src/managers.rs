//! The people whose keys sign commands.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use ed25519_dalek::{
    SigningKey,
    pkcs8::{EncodePrivateKey as _, spki::der::pem::LineEnding},
};
use postern_protocol::{
    command::{Action, Command, SignedCommand},
    key::PublicKey,
};
use rand::RngCore as _;

/// Managers with their private keys.
#[derive(Debug, Clone)]
pub struct Managers {
    people: Vec<(String, SigningKey)>,
    quorum: usize,
}

impl Managers {
    /// New keys for these people, of whom `quorum` decide.
    #[must_use]
    pub fn new(quorum: usize, names: &[&str]) -> Self {
        let people = names.iter().map(|name| ((*name).to_owned(), SigningKey::generate(&mut rand::thread_rng()))).collect();
        Self { people, quorum }
    }

    /// The `[commands]` table of the signer's configuration.
    #[must_use]
    pub fn toml(&self) -> String {
        let people: Vec<String> = self
            .people
            .iter()
            .map(|(name, key)| format!("    {{ name = \"{name}\", key = \"{}\" }},\n", PublicKey::from(key.verifying_key())))
            .collect();
        format!("[commands]\nquorum = {}\nmanagers = [\n{}]\n", self.quorum, people.concat())
    }

    /// A manager's private key.
    ///
    /// # Errors
    /// When there is none of that number.
    pub fn key(&self, number: usize) -> Result<&SigningKey> {
        self.people.get(number).map(|(_, key)| key).with_context(|| format!("no manager {number}"))
    }

    /// A manager's key as the file that `postern command sign --key` reads.
    ///
    /// # Errors
    /// When there is none of that number, or the file cannot be made.
    pub fn key_file(&self, number: usize, folder: &Path) -> Result<PathBuf> {
        let (name, key) = self.people.get(number).with_context(|| format!("no manager {number}"))?;
        let path = folder.join(format!("{name}.key"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(key.to_pkcs8_pem(LineEnding::LF)?.as_bytes())?;
        Ok(path)
    }

    /// A command with the signatures of these managers.
    ///
    /// # Errors
    /// When there is no such manager, or one is named twice.
    pub fn sign(&self, command: Command, who: &[usize]) -> Result<Vec<u8>> {
        let mut signed = SignedCommand::new(command);
        for number in who {
            signed.sign(self.key(*number)?)?;
        }
        Ok(signed.to_bytes()?)
    }

    /// A command with the signatures of a quorum.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn order(&self, signer: PublicKey, action: Action) -> Result<Vec<u8>> {
        self.sign(command(signer, action), &(0..self.quorum).collect::<Vec<_>>())
    }
}

/// A command for regtest with a new serial that is valid for an hour.
#[must_use]
pub fn command(signer: PublicKey, action: Action) -> Command {
    let expires = SystemTime::now() + Duration::from_secs(3_600);
    Command {
        signer: signer.to_bytes(),
        network: "regtest".into(),
        serial: rand::thread_rng().next_u64(),
        expires: expires.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
        action,
        base: None,
    }
}
