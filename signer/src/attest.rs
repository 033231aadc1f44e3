//! Remote attestation, the signer's half: the TPM signs what was booted, together with a nonce of whoever asks and with this signer's
//! identity, and the identity signs which key that was. What a statement is and how it is checked is in [`postern_protocol::attest`].
//!
//! The key that signs is made once by `postern init` and pinned by whoever verifies, as the identity is: that it is in a TPM at all
//! is what was seen at the set-up. From then on a statement that verifies came from the same chip, now, about this boot.

mod event_log;
mod key;
mod room;

use postern_protocol::attest::{Statement, key_name, qualifying, vouched};

pub use self::{
    event_log::event_log,
    key::{AttestKeyError, key_path, make_key, read_key},
    room::{AttestRoom, Attesting},
};
use crate::{
    identity::Identity,
    tpm::{PcrSet, QuotingKey, Tpm, TpmError},
};

/// A statement of this moment, for a nonce whose form was checked.
///
/// # Errors
/// [`TpmError`].
pub fn state(
    tpm: &Tpm,
    key: &QuotingKey,
    pcrs: &PcrSet,
    identity: &Identity,
    nonce: &str,
    event_log: Option<Vec<u8>>,
) -> Result<Statement, TpmError> {
    let name = key_name(&key.point).ok_or(TpmError::Foreign)?;
    let bound = qualifying(nonce, &identity.public());
    let quote = tpm.with(|tpm| tpm.quote(key, &bound, pcrs))?;
    Ok(Statement {
        postern_attestation: 1,
        signer: identity.public(),
        nonce: nonce.into(),
        identity_signature: identity.sign_digest(&vouched(&name, &quote.attest)).to_vec(),
        key: name,
        pcrs: quote.pcrs,
        attest: quote.attest,
        signature: quote.signature.to_vec(),
        event_log,
    })
}
