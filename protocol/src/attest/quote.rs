//! What a TPM signs when it is asked for a quote: TPMS_ATTEST (TPM 2.0 Part 2 §10.12.12). Bytes in, values out; nothing is believed here.

use super::PcrSet;

/// What a TPMS_ATTEST begins with: made inside of a TPM (TPM_GENERATED_VALUE). A restricted key signs nothing else that begins so.
const GENERATED: u32 = 0xff54_4347;
/// TPM_ST_ATTEST_QUOTE.
const QUOTE: u16 = 0x8018;
/// TPM_ALG_SHA256.
const SHA256: u16 = 0x000b;
/// Most bytes of a PCR selection's bits: 32 PCRs.
const SELECT_MAX: u8 = 4;

/// What a signed TPMS_ATTEST says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted {
    /// What the asker gave.
    pub qualifying: Vec<u8>,
    /// Which PCRs of the SHA-256 bank; None when others are in it.
    pub pcrs: Option<PcrSet>,
    /// The digest over them.
    pub digest: Vec<u8>,
}

/// What a TPMS_ATTEST says; None when it is no quote, or bytes follow it. For bytes whose signature was checked.
#[must_use]
pub fn quoted(attest: &[u8]) -> Option<Quoted> {
    let mut rest = Rest(attest);
    if rest.u32()? != GENERATED || rest.u16()? != QUOTE {
        return None;
    }
    rest.sized()?; // the key's qualified name
    let qualifying = rest.sized()?.to_vec();
    rest.take(8 + 4 + 4 + 1)?; // clock, resets, restarts, whether they are safe
    rest.take(8)?; // the firmware's version
    let pcrs = match rest.u32()? {
        0 => PcrSet::new([]),
        1 => {
            let (bank, select) = rest.selection()?;
            if bank == SHA256 { PcrSet::new(bits(select)) } else { None }
        }
        _ => return None,
    };
    let digest = rest.sized()?.to_vec();
    rest.0.is_empty().then_some(Quoted { qualifying, pcrs, digest })
}

/// The numbers of the bits that are set, the lowest bit of the first byte being 0.
fn bits(select: &[u8]) -> impl Iterator<Item = u8> + '_ {
    (0_u8..)
        .step_by(8)
        .zip(select)
        .flat_map(|(first, byte)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| first.saturating_add(bit)))
}

/// Bytes that are not read yet.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Two bytes of length, and so many bytes.
    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// TPMS_PCR_SELECTION.
    fn selection(&mut self) -> Option<(u16, &'a [u8])> {
        let bank = self.u16()?;
        let [length] = self.array()?;
        if length > SELECT_MAX { None } else { Some((bank, self.take(length.into())?)) }
    }
}
