//! Platform configuration registers of the SHA-256 bank: what the machine measured while it booted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use sha2::{Digest as _, Sha256};
use tss_esapi::{
    interface_types::algorithm::HashingAlgorithm,
    structures::{Digest, PcrSelectionList, PcrSlot},
};

use super::{Connection, TpmError};

/// PCRs of a PC Client TPM: 0 to 23.
const PCR_MAX: u8 = 23;

/// What is measured into a PCR (TCG PC Client Platform Firmware Profile §3.3.4; systemd's for 11 to 15).
#[must_use]
pub fn pcr_meaning(index: u8) -> &'static str {
    match index {
        0 => "firmware",
        1 => "firmware settings",
        2 | 3 => "option ROMs",
        4 => "boot loader",
        5 => "partition table",
        7 => "Secure Boot",
        8 | 9 => "boot loader's files",
        11 => "kernel image",
        12 => "kernel command line",
        13 => "system extensions",
        14 => "Secure Boot owner's keys",
        15 => "machine and file systems",
        _ => "others",
    }
}

/// Which PCRs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrSet(BTreeSet<u8>);

impl PcrSet {
    /// These; None when one of them does not exist.
    #[must_use]
    pub fn new(indices: impl IntoIterator<Item = u8>) -> Option<Self> {
        let set: BTreeSet<u8> = indices.into_iter().collect();
        set.iter().all(|index| *index <= PCR_MAX).then_some(Self(set))
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().copied()
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn selection(&self) -> Result<PcrSelectionList, TpmError> {
        let failed = TpmError::of("PCR selection");
        let slots = self.iter().map(|index| PcrSlot::try_from(1_u32 << u32::from(index.min(31)))).collect::<Result<Vec<_>, _>>();
        PcrSelectionList::builder().with_selection(HashingAlgorithm::Sha256, &slots.map_err(&failed)?).build().map_err(failed)
    }
}

impl fmt::Display for PcrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.iter().map(|index| index.to_string()).collect();
        f.write_str(&words.join(", "))
    }
}

/// PCRs and what is in them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PcrValues(pub BTreeMap<u8, [u8; 32]>);

impl PcrValues {
    /// Which PCRs.
    #[must_use]
    pub fn set(&self) -> PcrSet {
        PcrSet(self.0.keys().copied().collect())
    }

    /// The digest that policies and quotes are made over: of all values in ascending order (TPM 2.0 Part 3 §23.7).
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.0.values().fold(Sha256::new(), |hash, value| hash.chain_update(value)).finalize().into()
    }

    /// PCRs whose value here is not the one there.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<u8> {
        self.0.iter().filter(|(index, value)| other.0.get(index) != Some(value)).map(|(index, _)| *index).collect()
    }
}

impl fmt::Display for PcrValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(|(index, value)| format!("{index}={}", hex::encode(value))).collect();
        f.write_str(&words.join(" "))
    }
}

impl Connection {
    /// What is in these PCRs now.
    ///
    /// # Errors
    /// [`TpmError`]; also when the TPM has no SHA-256 bank.
    pub fn pcrs(&mut self, set: &PcrSet) -> Result<PcrValues, TpmError> {
        let mut values = PcrValues::default();
        // One at a time: a TPM answers with as many as it likes.
        for index in set.iter() {
            let selection = PcrSet(BTreeSet::from([index])).selection()?;
            let (_, _, digests) = self.context.execute_without_session(|c| c.pcr_read(selection)).map_err(TpmError::of("TPM2_PCR_Read"))?;
            let value: Option<[u8; 32]> = digests.value().first().and_then(|digest: &Digest| digest.value().try_into().ok());
            let value = value.ok_or_else(|| TpmError::broken("TPM2_PCR_Read", format!("no SHA-256 value of PCR {index}")))?;
            values.0.insert(index, value);
        }
        Ok(values)
    }
}
