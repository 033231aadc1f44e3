//! An anchor in a TPM's non-volatile memory. Two slots are written in turns, each with a serial number and a checksum: a write
//! that the power cut in two leaves the other slot, which holds what was true before.

use sha2::{Digest as _, Sha256};

use super::{Anchor, AnchorError, AnchorState};
use crate::tpm::{AuthValue, NvArea, Tpm, TpmError};

/// Where the anchor is when the configuration says nothing: among the owner's NV indices.
pub const NV_INDEX_DEFAULT: u32 = 0x0180_7057;

const SLOT: usize = 80;
const SLOT_BYTES: u16 = 80;
/// What is checksummed of a slot; the rest is the checksum.
const BODY: usize = 64;
const MAGIC: &[u8; 4] = b"PAN1";

/// Keeps an [`AnchorState`] at an NV index that only the auth value reads and writes.
#[derive(Debug)]
pub struct NvAnchor {
    tpm: Tpm,
    auth: AuthValue,
    area: NvArea,
}

impl NvAnchor {
    /// At this index.
    #[must_use]
    pub fn new(tpm: Tpm, auth: AuthValue, index: u32) -> Self {
        Self { tpm, auth, area: NvArea { index, len: SLOT_BYTES.saturating_mul(2) } }
    }

    /// How often the anchor was written since it was made: the wear of the chip's memory.
    ///
    /// # Errors
    /// [`AnchorError`].
    pub fn writes(&mut self) -> Result<u64, AnchorError> {
        Ok(self.newest()?.map_or(0, |newest| newest.serial))
    }

    fn newest(&self) -> Result<Option<Slot>, AnchorError> {
        match self.tpm.with_auth(|tpm| tpm.nv_read(self.area, &self.auth)) {
            Ok(None) | Err(TpmError::Absent) => Ok(None),
            Ok(Some(bytes)) => newest(&bytes).map(Some).ok_or_else(|| AnchorError::Damaged(hex::encode(bytes))),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &TpmError) -> AnchorError {
        let words = format!("NV index {:#x}: {error}", self.area.index);
        match error {
            TpmError::Auth => AnchorError::Closed(words),
            _ => AnchorError::Unavailable(words),
        }
    }
}

impl Anchor for NvAnchor {
    fn kind(&self) -> &'static str {
        "tpm-nv"
    }

    fn read(&mut self) -> Result<Option<AnchorState>, AnchorError> {
        Ok(self.newest()?.map(|newest| newest.state))
    }

    fn write(&mut self, state: &AnchorState) -> Result<(), AnchorError> {
        let newest = self.newest()?;
        let serial = newest.as_ref().map_or(0, |newest| newest.serial).saturating_add(1);
        let slot = encode(serial, state);
        let (area, auth) = (self.area, &self.auth);
        self.tpm
            .with_auth(|tpm| match &newest {
                Some(newest) => tpm.nv_write(area, auth, if newest.second { 0 } else { SLOT_BYTES }, &slot),
                None => {
                    // Written whole, so that the other slot is nothing and not what the chip makes of unwritten bytes.
                    let mut both = [0; SLOT * 2];
                    both.iter_mut().zip(slot).for_each(|(to, from)| *to = from);
                    match tpm.nv_write(area, auth, 0, &both) {
                        Err(TpmError::Absent) => {
                            tpm.nv_define(area, auth)?;
                            tpm.nv_write(area, auth, 0, &both)
                        }
                        outcome => outcome,
                    }
                }
            })
            .map_err(|error| self.failed(&error))?;
        match self.newest()? {
            Some(read) if read.serial == serial && read.state == *state => Ok(()),
            other => Err(AnchorError::Unavailable(format!("wrote {state:?} and read back {other:?}"))),
        }
    }
}

/// A slot that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    serial: u64,
    state: AnchorState,
    second: bool,
}

/// `PAN1`, serial, ledger, bound, commands, 1 and the clean mark or 17 zeros, 3 zeros, half of the SHA-256 of all that. Numbers
/// are big-endian.
fn encode(serial: u64, state: &AnchorState) -> [u8; SLOT] {
    let mut body = Vec::with_capacity(SLOT);
    body.extend(MAGIC);
    body.extend(serial.to_be_bytes());
    body.extend(state.ledger);
    body.extend(state.bound_sat.to_be_bytes());
    body.extend(state.commands.to_be_bytes());
    body.push(u8::from(state.clean.is_some()));
    body.extend(state.clean.unwrap_or_default());
    body.resize(BODY, 0);
    let check = Sha256::digest(&body);
    let mut slot = [0; SLOT];
    slot.iter_mut().zip(body.into_iter().chain(check)).for_each(|(to, from)| *to = from);
    slot
}

fn decode(slot: &[u8], second: bool) -> Option<Slot> {
    let rest = slot.strip_prefix(MAGIC)?;
    let (serial, rest) = rest.split_first_chunk()?;
    let (ledger, rest) = rest.split_first_chunk()?;
    let (bound, rest) = rest.split_first_chunk()?;
    let (commands, rest) = rest.split_first_chunk()?;
    let (&marked, rest) = rest.split_first()?;
    let (mark, _) = rest.split_first_chunk()?;
    let (serial, bound_sat, commands) = (u64::from_be_bytes(*serial), u64::from_be_bytes(*bound), u64::from_be_bytes(*commands));
    let state = AnchorState { ledger: *ledger, bound_sat, commands, clean: (marked == 1).then_some(*mark) };
    (encode(serial, &state) == slot).then_some(Slot { serial, state, second })
}

/// The whole slot with the higher serial number.
fn newest(bytes: &[u8]) -> Option<Slot> {
    let (first, second) = bytes.split_at_checked(SLOT)?;
    [decode(first, false), decode(second, true)].into_iter().flatten().max_by_key(|slot| slot.serial)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OLD: AnchorState = AnchorState { ledger: [7; 16], bound_sat: 123_456, commands: 3, clean: Some([9; 16]) };
    const NEW: AnchorState = AnchorState { clean: None, bound_sat: u64::MAX, ..OLD };

    fn both(first: &[u8], second: &[u8]) -> Vec<u8> {
        [first, second].concat()
    }

    #[test]
    fn the_newer_slot_is_what_is_remembered_whichever_it_is() {
        let (old, new) = (encode(1, &OLD), encode(2, &NEW));
        assert_eq!(newest(&both(&old, &new)), Some(Slot { serial: 2, state: NEW, second: true }));
        assert_eq!(newest(&both(&new, &old)), Some(Slot { serial: 2, state: NEW, second: false }));
        assert_eq!(newest(&both(&old, &[0; SLOT])).unwrap().state, OLD);
    }

    #[test]
    fn a_write_cut_anywhere_leaves_the_old_state_or_the_new() {
        let (older, old, new) = (encode(1, &OLD), encode(2, &OLD), encode(3, &NEW));
        for cut in 0..=SLOT {
            let torn = [&new[..cut], &older[cut..]].concat();
            let state = newest(&both(&torn, &old)).unwrap().state;
            // The last bytes may happen to be equal: then the write is whole before its end.
            assert_eq!(state, if torn == new { NEW } else { OLD }, "cut at {cut}");
        }
    }

    #[test]
    fn a_changed_slot_is_none() {
        let slot = encode(1, &OLD);
        for place in 0..SLOT {
            let mut changed = slot;
            changed[place] ^= 1;
            assert_eq!(newest(&both(&changed, &[0; SLOT])), None, "changed at {place}");
        }
        for other in [vec![], vec![0; 10], vec![0xff; SLOT * 2]] {
            assert_eq!(newest(&other), None);
        }
    }
}
