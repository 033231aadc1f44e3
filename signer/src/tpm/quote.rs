//! Signed statements about PCRs: what a TPM says was booted, to somebody elsewhere.

use tss_esapi::{
    interface_types::{algorithm::HashingAlgorithm, session_handles::AuthSession},
    structures::{AttestInfo, Data, PcrSlot, Public, Signature, SignatureScheme},
    traits::{Marshall as _, UnMarshall as _},
};

use super::{
    Connection, PcrSet, PcrValues, Sealed, TpmError,
    connection::{Use, restricted_key},
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

/// What a signed TPMS_ATTEST says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted {
    /// What the asker gave.
    pub qualifying: Vec<u8>,
    /// Which PCRs of the SHA-256 bank; None when others are in it.
    pub pcrs: Option<PcrSet>,
    /// The digest over them.
    pub digest: Vec<u8>,
    /// How often the TPM was reset.
    pub resets: u32,
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
            let selection = set.selection()?;
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

/// What a TPMS_ATTEST says; None when it is no quote. For bytes whose signature was checked.
#[must_use]
pub fn quoted(attest: &[u8]) -> Option<Quoted> {
    let parsed = tss_esapi::structures::Attest::unmarshall(attest).ok()?;
    let AttestInfo::Quote { info } = parsed.attested() else { return None };
    let pcrs = match info.pcr_selection().get_selections() {
        [] => PcrSet::new([]),
        [selection] if selection.hashing_algorithm() == HashingAlgorithm::Sha256 => PcrSet::new(
            (0..=23).filter(|index| PcrSlot::try_from(1_u32 << u32::from(*index)).is_ok_and(|slot| selection.is_selected(slot))),
        ),
        _ => None,
    };
    Some(Quoted {
        qualifying: parsed.extra_data().value().to_vec(),
        pcrs,
        digest: info.pcr_digest().value().to_vec(),
        resets: parsed.clock_info().reset_count(),
    })
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
