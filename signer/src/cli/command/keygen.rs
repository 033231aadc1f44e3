//! `postern command keygen`: a manager's key.

use std::path::PathBuf;

use anyhow::Result;
use ed25519_dalek::SigningKey;
use postern_protocol::key::PublicKey;
use zeroize::Zeroizing;

use super::key_file::{self, PassphraseSource};
use crate::cli::{
    Ending,
    paint::{DIM, WARN, paint},
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Keygen {
    /// Where to write the private key.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The manager's name, for the line that is printed.
    #[arg(long, default_value = "NAME")]
    name: String,
    #[command(flatten)]
    passphrase: PassphraseSource,
    /// Write the key without encryption, readable by this user only.
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
}

impl Keygen {
    pub(super) fn run(&self) -> Result<Ending> {
        let passphrase = if self.no_passphrase { None } else { Some(self.passphrase.new_passphrase()?) };
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut_slice())?;
        let key = SigningKey::from_bytes(&secret);
        key_file::create(&self.output, &key, passphrase)?;
        anstream::eprintln!("The private key is in {}. It never leaves its manager.", self.output.display());
        if self.no_passphrase {
            anstream::eprintln!("{} it is not encrypted.", paint(WARN, "Warning:"));
        }
        anstream::eprintln!("{}", paint(DIM, "For [commands] managers in the signer's configuration:"));
        say!("{{ name = \"{}\", key = \"{}\" }}", self.name, PublicKey::from(key.verifying_key()));
        Ok(Ending::Done)
    }
}
