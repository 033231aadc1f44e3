//! Signed statements about PCRs: what a TPM says was booted, to somebody elsewhere.

use postern_protocol::attest::{PcrSet, PcrValues, quoted};
use tss_esapi::{
    interface_types::session_handles::AuthSession,
    structures::{Data, Public, Signature, SignatureScheme},
    traits::Marshall as _,
};

use super::{
    Connection, Sealed, TpmError,
    connection::{Use, restricted_key},
    pcr,
};

/// A restricted P-256 key: it signs what its TPM says, and nothing that somebody made up. Useless without that TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotingKey {
    /// The key as its TPM stores it.
    pub stored: Sealed,
    /// Its public point: x and y.
    pub point: [u8; 64],
}

/// What a TPM says about its PCRs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// TPMS_ATTEST: what is signed.
    pub attest: Vec<u8>,
    /// ECDSA over its SHA-256: r and s.
    pub signature: [u8; 64],
    /// The values that it is about.
    pub pcrs: PcrValues,
}

/// A quote and the PCRs are read one after the other; PCRs that change between the two are read again.
const ATTEMPTS: usize = 5;

impl Connection {
    /// Makes a key that signs quotes.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn make_quoting_key(&mut self) -> Result<QuotingKey, TpmError> {
        let parent = self.storage_key(None)?;
        let session = self.session(&parent)?;
        let template = restricted_key(Use::Quotes).map_err(TpmError::of("template"))?;
        let made = self
            .context
            .execute_with_session(Some(session), |c| c.create(parent.handle, template, None, None, None, None))
            .map_err(TpmError::of("TPM2_Create"))?;
        let Public::Ecc { unique, .. } = &made.out_public else { return Err(TpmError::broken("TPM2_Create", "it made another key")) };
        let point = halves(unique.x().value(), unique.y().value())?;
        let public = made.out_public.marshall().map_err(TpmError::of("TPM2_Create"))?;
        Ok(QuotingKey { stored: Sealed { parent: parent.name, public, private: made.out_private.value().to_vec() }, point })
    }

    /// A statement about PCRs, with what the asker gave (at most 64 bytes) in it.
    ///
    /// # Errors
    /// [`TpmError::Foreign`] when the key is another TPM's; others.
    pub fn quote(&mut self, key: &QuotingKey, qualifying: &[u8], set: &PcrSet) -> Result<Quote, TpmError> {
        let (_, handle) = self.load(&key.stored, "the attestation key is damaged")?;
        let failed = TpmError::of("TPM2_Quote");
        for _ in 0..ATTEMPTS {
            let data = Data::try_from(qualifying).map_err(&failed)?;
            let selection = pcr::selection(set)?;
            let (attest, signature) = self
                .context
                .execute_with_session(Some(AuthSession::Password), |c| c.quote(handle, data, SignatureScheme::Null, selection))
                .map_err(&failed)?;
            let Signature::EcDsa(signature) = signature else { return Err(TpmError::broken("TPM2_Quote", "another kind of signature")) };
            let attest = attest.marshall().map_err(&failed)?;
            let pcrs = self.pcrs(set)?;
            if quoted(&attest).is_some_and(|quoted| quoted.digest == pcrs.digest()) {
                let signature = halves(signature.signature_r().value(), signature.signature_s().value())?;
                return Ok(Quote { attest, signature, pcrs });
            }
        }
        Err(TpmError::Unavailable("its PCRs change all the time".into()))
    }
}

/// Two numbers of 32 bytes; a TPM leaves leading zeros out.
fn halves(first: &[u8], second: &[u8]) -> Result<[u8; 64], TpmError> {
    let mut both = [0; 64];
    for (place, number) in both.chunks_exact_mut(32).zip([first, second]) {
        let start = place.len().checked_sub(number.len()).ok_or_else(|| TpmError::broken("P-256", "a number is too long"))?;
        place.iter_mut().skip(start).zip(number).for_each(|(to, from)| *to = *from);
    }
    Ok(both)
}
