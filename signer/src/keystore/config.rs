//! What a keystore is opened with.

use std::path::PathBuf;

use crate::tpm::{PcrSet, Tcti};

/// Sessions (and worker threads) when the configuration names no number.
pub const SESSIONS_DEFAULT: usize = 4;

/// One `[keystore.NAME]` of kind `pkcs11`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11Config {
    /// NAME.
    pub name: String,
    /// The vendor's library, loaded once a process.
    pub module: PathBuf,
    /// The token's label, without padding.
    pub token_label: String,
    /// The token's serial number, without padding. Both must match; slot numbers are never used.
    pub token_serial: String,
    /// Where the user PIN is.
    pub pin: PinSource,
    /// Worker threads, each with a session of its own; 1 to 64. See [`SESSIONS_DEFAULT`].
    pub sessions: usize,
    /// The signer's state folder: encrypted seeds, wrapped pool keys, and the lock for the module's initialisation.
    pub state: PathBuf,
}

/// One `[keystore.NAME]` of kind `tpm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmConfig {
    /// NAME.
    pub name: String,
    /// Where the TPM is.
    pub tcti: Tcti,
    /// Which PCRs new seeds are sealed to.
    pub pcrs: PcrSet,
    /// Where the secret is that its auth values are made from.
    pub auth: PinSource,
    /// The signer's state folder, with the sealed seeds.
    pub state: PathBuf,
}

/// One `[keystore.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeystoreConfig {
    /// `kind = "pkcs11"`
    Pkcs11(Pkcs11Config),
    /// `kind = "tpm"`
    Tpm(TpmConfig),
}

/// Where a PIN is read from, once, when the keystore is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    /// A file that only its owner can read. A final line break is not part of the PIN.
    File(PathBuf),
    /// A systemd credential: the file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}
