//! A few bytes in the TPM's non-volatile memory that only the auth value reads and writes.

use tss_esapi::{
    attributes::{NvIndexAttributes, NvIndexAttributesBuilder},
    constants::{CapabilityType, NvIndexType},
    handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle},
    interface_types::{
        algorithm::HashingAlgorithm,
        resource_handles::{NvAuth, Provision},
    },
    structures::{CapabilityData, MaxNvBuffer, NvPublic},
};

use super::{AuthValue, Connection, TpmError};

/// An NV index and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NvArea {
    /// Its number: 0x01800000 to 0x01bfffff are the owner's.
    pub index: u32,
    /// Its length in bytes.
    pub len: u16,
}

impl Connection {
    /// What is in it; None when it was defined and never written.
    ///
    /// # Errors
    /// [`TpmError::Absent`] when it is not defined, [`TpmError::Auth`] and others.
    pub fn nv_read(&mut self, area: NvArea, auth: &AuthValue) -> Result<Option<Vec<u8>>, TpmError> {
        let (handle, written) = self.nv_handle(area)?;
        if !written {
            return Ok(None);
        }
        let key = self.storage_key(None)?;
        let session = self.session(&key)?;
        self.context.tr_set_auth(handle.into(), auth.for_command()?).map_err(TpmError::of("auth value"))?;
        let bytes = self
            .context
            .execute_with_session(Some(session), |c| c.nv_read(NvAuth::NvIndex(handle), handle, area.len, 0))
            .map_err(TpmError::of("TPM2_NV_Read"))?;
        Ok(Some(bytes.to_vec()))
    }

    /// Writes bytes into it. One write of the chip's memory, which wears: about 500,000 are promised.
    ///
    /// # Errors
    /// As [`Self::nv_read`].
    pub fn nv_write(&mut self, area: NvArea, auth: &AuthValue, offset: u16, bytes: &[u8]) -> Result<(), TpmError> {
        let (handle, _) = self.nv_handle(area)?;
        let key = self.storage_key(None)?;
        let session = self.session(&key)?;
        self.context.tr_set_auth(handle.into(), auth.for_command()?).map_err(TpmError::of("auth value"))?;
        let bytes = MaxNvBuffer::try_from(bytes).map_err(TpmError::of("TPM2_NV_Write"))?;
        self.context
            .execute_with_session(Some(session), |c| c.nv_write(NvAuth::NvIndex(handle), handle, bytes, offset))
            .map_err(TpmError::of("TPM2_NV_Write"))
    }

    /// Makes the area, under this auth value. Takes the owner's right, which has no password unless the machine's owner set one.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn nv_define(&mut self, area: NvArea, auth: &AuthValue) -> Result<(), TpmError> {
        let failed = TpmError::of("TPM2_NV_DefineSpace");
        let key = self.storage_key(None)?;
        let session = self.session(&key)?;
        let public = NvPublic::builder()
            .with_nv_index(tpm_handle(area)?)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes().map_err(&failed)?)
            .with_data_area_size(usize::from(area.len))
            .build()
            .map_err(&failed)?;
        let auth = auth.for_command()?;
        self.context
            .execute_with_session(Some(session), |c| c.nv_define_space(Provision::Owner, Some(auth), public))
            .map(|_| ())
            .map_err(failed)
            .map_err(|error| match error {
                TpmError::Auth => TpmError::broken(
                    "TPM2_NV_DefineSpace",
                    "the owner hierarchy has a password; make the anchor before you set one (docs/tpm.md)",
                ),
                error => error,
            })
    }

    /// The area, if it is defined as we define it, and whether it was ever written.
    fn nv_handle(&mut self, area: NvArea) -> Result<(NvIndexHandle, bool), TpmError> {
        let failed = TpmError::of("TPM2_NV_ReadPublic");
        let wanted = TpmHandle::NvIndex(tpm_handle(area)?);
        let (data, _) = self
            .context
            .execute_without_session(|c| c.get_capability(CapabilityType::Handles, area.index, 1))
            .map_err(TpmError::of("TPM2_GetCapability"))?;
        if !matches!(data, CapabilityData::Handles(ref handles) if handles.contains(&wanted)) {
            return Err(TpmError::Absent);
        }
        let object = self.context.execute_without_session(|c| c.tr_from_tpm_public(wanted)).map_err(&failed)?;
        let handle = NvIndexHandle::from(object);
        let (public, _) = self.context.execute_without_session(|c| c.nv_read_public(handle)).map_err(&failed)?;
        let written = public.attributes().written();
        // One that others may write would remember what they like.
        if public.attributes().0 & !WRITTEN != attributes().map_err(&failed)?.0 || public.data_size() != usize::from(area.len) {
            let reason = format!("NV index {:#x} is not defined as the signer defines it; who did?", area.index);
            return Err(TpmError::broken("TPM2_NV_ReadPublic", reason));
        }
        Ok((handle, written))
    }
}

/// TPMA_NV_WRITTEN.
const WRITTEN: u32 = 1 << 29;

fn tpm_handle(area: NvArea) -> Result<NvIndexTpmHandle, TpmError> {
    NvIndexTpmHandle::new(area.index).map_err(TpmError::of("NV index"))
}

/// Read and written by its auth value only, and not `no_da`: guessing counts.
fn attributes() -> Result<NvIndexAttributes, tss_esapi::Error> {
    NvIndexAttributesBuilder::new().with_auth_read(true).with_auth_write(true).with_nv_index_type(NvIndexType::Ordinary).build()
}
