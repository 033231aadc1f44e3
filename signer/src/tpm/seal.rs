//! Secrets that only this TPM opens, only with the auth value, and only when these PCRs hold these values.

use minicbor::{Decode, Encode};
use tss_esapi::{
    attributes::ObjectAttributesBuilder,
    handles::KeyHandle,
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        session_handles::PolicySession,
    },
    structures::{Digest, KeyedHashScheme, Private, Public, PublicBuilder, PublicKeyedHashParameters, SensitiveData},
    traits::{Marshall as _, UnMarshall as _},
};

use super::{AuthValue, Connection, PcrSet, PcrValues, TpmError, connection::StorageKey, pcr};
use crate::secret::LockedBytes;

/// A secret or a key as its TPM gives it out to be kept: public to everyone, useless without that TPM.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sealed {
    /// Name of the storage key above it: tells one TPM from another.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub parent: Vec<u8>,
    /// TPMT_PUBLIC.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub public: Vec<u8>,
    /// TPM2B_PRIVATE's content.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub private: Vec<u8>,
}

impl Connection {
    /// Seals a secret of at most 128 bytes (MAX_SYM_DATA) to PCR values, which need not be the present ones. Guessing the auth value runs into the TPM's lockout.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn seal(&mut self, secret: &[u8], auth: &AuthValue, pcrs: &PcrValues) -> Result<Sealed, TpmError> {
        let parent = self.storage_key(None)?;
        let trial = self.trial_session(&parent)?;
        self.satisfy(trial, &pcrs.set(), &pcrs.digest())?;
        let policy = self.context.execute_without_session(|c| c.policy_get_digest(trial)).map_err(TpmError::of("TPM2_PolicyGetDigest"))?;

        let template = template(policy).map_err(TpmError::of("template"))?;
        let secret = SensitiveData::try_from(secret).map_err(TpmError::of("TPM2_Create"))?;
        let auth = auth.for_command()?;
        let session = self.session(&parent)?;
        let made = self
            .context
            .execute_with_session(Some(session), |c| c.create(parent.handle, template, Some(auth), Some(secret), None, None))
            .map_err(TpmError::of("TPM2_Create"))?;
        let public = made.out_public.marshall().map_err(TpmError::of("TPM2_Create"))?;
        Ok(Sealed { parent: parent.name, public, private: made.out_private.value().to_vec() })
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// [`TpmError::Foreign`], [`TpmError::Policy`], [`TpmError::Auth`] and others.
    pub fn unseal(&mut self, sealed: &Sealed, auth: &AuthValue, pcrs: &PcrSet) -> Result<LockedBytes, TpmError> {
        let (parent, object) = self.load(sealed, "the sealed secret is damaged")?;
        let (session, policy) = self.policy_session(&parent)?;
        // No digest: the TPM takes what its PCRs hold.
        self.satisfy(policy, pcrs, &[])?;
        self.context.tr_set_auth(object.into(), auth.for_command()?).map_err(TpmError::of("auth value"))?;
        let secret = self.context.execute_with_session(Some(session), |c| c.unseal(object.into())).map_err(TpmError::of("TPM2_Unseal"))?;
        Ok(LockedBytes::copy_of(&secret)?)
    }

    /// Brings back what this TPM gave out, under the storage key that it was made under.
    pub(super) fn load(&mut self, stored: &Sealed, otherwise: &str) -> Result<(StorageKey, KeyHandle), TpmError> {
        let parent = self.storage_key(Some(&stored.parent))?;
        let damaged = |_| TpmError::broken("TPM2_Load", otherwise);
        let public = Public::unmarshall(&stored.public).map_err(damaged)?;
        let private = Private::try_from(stored.private.as_slice()).map_err(damaged)?;
        let session = self.session(&parent)?;
        let loaded = self.context.execute_with_session(Some(session), |c| c.load(parent.handle, private, public));
        Ok((parent, loaded.map_err(TpmError::of("TPM2_Load"))?))
    }

    /// The policy: these PCRs, and the auth value.
    fn satisfy(&mut self, session: PolicySession, pcrs: &PcrSet, digest: &[u8]) -> Result<(), TpmError> {
        let digest = Digest::try_from(digest).map_err(TpmError::of("TPM2_PolicyPCR"))?;
        if !pcrs.is_empty() {
            let selection = pcr::selection(pcrs)?;
            self.context.execute_without_session(|c| c.policy_pcr(session, digest, selection)).map_err(TpmError::of("TPM2_PolicyPCR"))?;
        }
        self.context.execute_without_session(|c| c.policy_auth_value(session)).map_err(TpmError::of("TPM2_PolicyAuthValue"))
    }
}

fn template(policy: Digest) -> Result<Public, tss_esapi::Error> {
    // Not `no_da`: guessing counts. Not `user_with_auth`: the auth value alone opens nothing.
    let attributes = ObjectAttributesBuilder::new().with_fixed_tpm(true).with_fixed_parent(true).with_admin_with_policy(true).build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(policy)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
}
