//! The attestation key's file. It is no secret: only its TPM can use it.

use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use postern_protocol::canonical;

use crate::{
    keystore::{KeystoreError, read_state_file, write_state_file},
    tpm::{QuotingKey, Sealed, Tpm, TpmError},
};

const PURPOSE: &str = "postern/attestation-key/1";
const FILE_MAX: u64 = 4096;

/// Why there is no attestation key.
#[derive(Debug, thiserror::Error)]
pub enum AttestKeyError {
    /// It was never made.
    #[error("there is no attestation key at {}; `postern init` makes one", .0.display())]
    Missing(PathBuf),
    /// The file holds something else.
    #[error("{} is no attestation key; restore it from a backup, or remove it, run `postern init` and have the new key pinned", .0.display())]
    Form(PathBuf),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] KeystoreError),
    /// The TPM did not make it.
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct KeyFile {
    #[n(0)]
    purpose: String,
    #[n(1)]
    stored: Sealed,
    #[cbor(n(2), with = "minicbor::bytes")]
    point: [u8; 64],
}

/// Where the key of a keystore's TPM is.
#[must_use]
pub fn key_path(state: &Path, keystore: &str) -> PathBuf {
    state.join(format!("attest-{keystore}.key"))
}

/// Makes the key and its file, which must not exist.
///
/// # Errors
/// [`AttestKeyError`].
pub fn make_key(tpm: &Tpm, state: &Path, keystore: &str) -> Result<QuotingKey, AttestKeyError> {
    let key = tpm.with(|tpm| tpm.make_quoting_key())?;
    let file = KeyFile { purpose: PURPOSE.into(), stored: key.stored.clone(), point: key.point };
    write_state_file(&key_path(state, keystore), &canonical::to_vec(&file))?;
    Ok(key)
}

/// Reads the key.
///
/// # Errors
/// [`AttestKeyError::Missing`], [`AttestKeyError::Form`], [`AttestKeyError::File`].
pub fn read_key(state: &Path, keystore: &str) -> Result<QuotingKey, AttestKeyError> {
    let path = key_path(state, keystore);
    let bytes = read_state_file(&path, FILE_MAX)?.ok_or_else(|| AttestKeyError::Missing(path.clone()))?;
    match canonical::from_slice::<KeyFile>(&bytes) {
        Ok(KeyFile { purpose, stored, point }) if purpose == PURPOSE => Ok(QuotingKey { stored, point }),
        _ => Err(AttestKeyError::Form(path)),
    }
}
