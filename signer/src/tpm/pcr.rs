//! Reading platform configuration registers of the SHA-256 bank: what the machine measured while it booted.

use postern_protocol::attest::{PcrSet, PcrValues};
use tss_esapi::{
    interface_types::algorithm::HashingAlgorithm,
    structures::{Digest, PcrSelectionList, PcrSlot},
};

use super::{Connection, TpmError};

/// The PCRs as the TPM takes them.
pub(super) fn selection(set: &PcrSet) -> Result<PcrSelectionList, TpmError> {
    let failed = TpmError::of("PCR selection");
    let slots = set.iter().map(|index| PcrSlot::try_from(1_u32 << u32::from(index.min(31)))).collect::<Result<Vec<_>, _>>();
    PcrSelectionList::builder().with_selection(HashingAlgorithm::Sha256, &slots.map_err(&failed)?).build().map_err(failed)
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
            let one = PcrSet::new([index]).ok_or_else(|| TpmError::broken("PCR selection", "no such PCR"))?;
            let selection = selection(&one)?;
            let (_, _, digests) = self.context.execute_without_session(|c| c.pcr_read(selection)).map_err(TpmError::of("TPM2_PCR_Read"))?;
            let value: Option<[u8; 32]> = digests.value().first().and_then(|digest: &Digest| digest.value().try_into().ok());
            let value = value.ok_or_else(|| TpmError::broken("TPM2_PCR_Read", format!("no SHA-256 value of PCR {index}")))?;
            values.0.insert(index, value);
        }
        Ok(values)
    }
}
