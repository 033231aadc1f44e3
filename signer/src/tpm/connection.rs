//! A connection to the TPM, with its storage key and its sessions.

use tss_esapi::{
    Context,
    attributes::{ObjectAttributesBuilder, SessionAttributesBuilder},
    constants::{CapabilityType, PropertyTag, SessionType},
    handles::{KeyHandle, PersistentTpmHandle, TpmHandle},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
        resource_handles::Hierarchy,
        session_handles::{AuthSession, PolicySession},
    },
    structures::{
        CapabilityData, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, Public, PublicBuilder, PublicEccParametersBuilder,
        SymmetricDefinition, SymmetricDefinitionObject,
    },
};

use super::{Tcti, TpmError};

/// Where the TCG's provisioning guidance (§7.8) puts the storage root key.
const STORAGE_ROOT: u32 = 0x8100_0001;
/// Largest answer of one TPM2_GetRandom that every TPM gives: a SHA-256's length.
const RANDOM_STEP: usize = 32;

/// A connection. Dropping it flushes what it loaded.
#[derive(Debug)]
pub struct Connection {
    pub(super) context: Context,
}

/// A key of this TPM that never leaves it, under which others are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StorageKey {
    pub(super) handle: KeyHandle,
    /// Its name: a hash of its public half. Another TPM's is another.
    pub(super) name: Vec<u8>,
}

impl Connection {
    pub(super) fn open(tcti: &Tcti) -> Result<Self, TpmError> {
        let name = tcti.name().map_err(TpmError::of("tcti"))?;
        let unavailable = |error| match TpmError::of("open")(error) {
            error @ TpmError::Unavailable(_) => error,
            error => TpmError::Unavailable(error.to_string()),
        };
        let context = Context::new(name).map_err(|error| match unavailable(error) {
            TpmError::Unavailable(reason) => TpmError::Unavailable(format!("{tcti}: {reason}")),
            error => error,
        })?;
        Ok(Self { context })
    }

    /// Bytes of its random number generator.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn random(&mut self, out: &mut [u8]) -> Result<(), TpmError> {
        for part in out.chunks_mut(RANDOM_STEP) {
            let bytes = self.context.execute_without_session(|c| c.get_random(part.len())).map_err(TpmError::of("TPM2_GetRandom"))?;
            if bytes.len() != part.len() {
                return Err(TpmError::broken("TPM2_GetRandom", format!("{} bytes where {} were asked for", bytes.len(), part.len())));
            }
            part.copy_from_slice(&bytes);
        }
        Ok(())
    }

    /// A property, asked for anew each time.
    pub(super) fn fresh_property(&mut self, tag: PropertyTag) -> Result<Option<u32>, TpmError> {
        let (data, _) = self
            .context
            .execute_without_session(|c| c.get_capability(CapabilityType::TpmProperties, tag.into(), 1))
            .map_err(TpmError::of("TPM2_GetCapability"))?;
        let CapabilityData::TpmProperties(properties) = data else {
            return Err(TpmError::broken("TPM2_GetCapability", "it answered something else"));
        };
        // A TPM without this property answers with the next one.
        Ok(properties.find(tag).map(|property| property.value()))
    }

    /// The storage root key: the persistent one, if the machine was set up with one, else the same one derived anew. With a name,
    /// the one of that name.
    pub(super) fn storage_key(&mut self, wanted: Option<&[u8]>) -> Result<StorageKey, TpmError> {
        if let Some(key) = self.persistent_key()?
            && wanted.is_none_or(|name| name == key.name)
        {
            return Ok(key);
        }
        let template = restricted_key(Use::Storage).map_err(TpmError::of("template"))?;
        let made = self
            .context
            .execute_with_session(Some(AuthSession::Password), |c| c.create_primary(Hierarchy::Owner, template, None, None, None, None))
            .map_err(TpmError::of("TPM2_CreatePrimary"))
            .map_err(|error| match error {
                TpmError::Auth => TpmError::broken(
                    "TPM2_CreatePrimary",
                    "the owner hierarchy has a password; make the storage root key persistent at 0x81000001 (docs/tpm.md)",
                ),
                error => error,
            })?;
        let name = self.context.tr_get_name(made.key_handle.into()).map_err(TpmError::of("name"))?.value().to_vec();
        if wanted.is_some_and(|wanted| wanted != name) {
            return Err(TpmError::Foreign);
        }
        Ok(StorageKey { handle: made.key_handle, name })
    }

    fn persistent_key(&mut self) -> Result<Option<StorageKey>, TpmError> {
        let handle = PersistentTpmHandle::new(STORAGE_ROOT).map_err(TpmError::of("handle"))?;
        let (data, _) = self
            .context
            .execute_without_session(|c| c.get_capability(CapabilityType::Handles, STORAGE_ROOT, 1))
            .map_err(TpmError::of("TPM2_GetCapability"))?;
        let here = matches!(data, CapabilityData::Handles(ref handles) if handles.contains(&TpmHandle::Persistent(handle)));
        if !here {
            return Ok(None);
        }
        let object = self
            .context
            .execute_without_session(|c| c.tr_from_tpm_public(TpmHandle::Persistent(handle)))
            .map_err(TpmError::of("TPM2_ReadPublic"))?;
        let key = KeyHandle::from(object);
        let (public, name, _) = self.context.execute_without_session(|c| c.read_public(key)).map_err(TpmError::of("TPM2_ReadPublic"))?;
        let attributes = public.object_attributes();
        let stores = attributes.restricted() && attributes.decrypt() && attributes.fixed_tpm() && !attributes.sign_encrypt();
        Ok(stores.then(|| StorageKey { handle: key, name: name.value().to_vec() }))
    }

    /// A session whose key only a TPM that has this storage key can know, and that encrypts the first parameter both ways.
    pub(super) fn session(&mut self, salted_to: &StorageKey) -> Result<AuthSession, TpmError> {
        self.start_session(salted_to, SessionType::Hmac)
    }

    /// The same for satisfying a policy.
    pub(super) fn policy_session(&mut self, salted_to: &StorageKey) -> Result<(AuthSession, PolicySession), TpmError> {
        let session = self.start_session(salted_to, SessionType::Policy)?;
        Ok((session, PolicySession::try_from(session).map_err(TpmError::of("TPM2_StartAuthSession"))?))
    }

    /// For computing a policy's digest.
    pub(super) fn trial_session(&mut self, salted_to: &StorageKey) -> Result<PolicySession, TpmError> {
        let session = self.start_session(salted_to, SessionType::Trial)?;
        PolicySession::try_from(session).map_err(TpmError::of("TPM2_StartAuthSession"))
    }

    fn start_session(&mut self, salted_to: &StorageKey, kind: SessionType) -> Result<AuthSession, TpmError> {
        let failed = TpmError::of("TPM2_StartAuthSession");
        let session = self
            .context
            .execute_without_session(|c| {
                let hash = HashingAlgorithm::Sha256;
                c.start_auth_session(Some(salted_to.handle), None, None, kind, SymmetricDefinition::AES_128_CFB, hash)
            })
            .map_err(&failed)?
            .ok_or_else(|| TpmError::broken("TPM2_StartAuthSession", "no session"))?;
        let (attributes, mask) = SessionAttributesBuilder::new().with_continue_session(true).with_decrypt(true).with_encrypt(true).build();
        self.context.tr_sess_set_attributes(session, attributes, mask).map_err(failed)?;
        Ok(session)
    }
}

/// What a restricted key of a TPM is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Other keys and secrets are kept under it: the TCG's ECC storage root key (EK Credential Profile, appendix B, "SRK").
    Storage,
    /// It signs what its TPM says.
    Quotes,
}

/// The template of a P-256 key that its TPM makes and never gives out, for one use.
pub(super) fn restricted_key(purpose: Use) -> Result<Public, tss_esapi::Error> {
    let storage = purpose == Use::Storage;
    let (symmetric, scheme) = match purpose {
        Use::Storage => (SymmetricDefinitionObject::AES_128_CFB, EccScheme::Null),
        Use::Quotes => (SymmetricDefinitionObject::Null, EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256))),
    };
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(storage)
        .with_sign_encrypt(!storage)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(
            PublicEccParametersBuilder::new()
                .with_symmetric(symmetric)
                .with_ecc_scheme(scheme)
                .with_curve(EccCurve::NistP256)
                .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
                .with_restricted(true)
                .with_is_decryption_key(storage)
                .with_is_signing_key(!storage)
                .build()?,
        )
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}
