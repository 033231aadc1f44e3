//! A sealed seed in the state folder. One file may hold several sealings of the same seed: to the boot of today and to the one
//! after an update.

use std::path::{Path, PathBuf};

use bitcoin::Network;
use minicbor::{Decode, Encode};
use postern_protocol::canonical;
use sha2::{Digest as _, Sha256};

use super::{
    super::{
        KeystoreError, durable,
        entropy::SEED_LEN,
        seed::{self, Associated},
    },
    core::Core,
};
use crate::{
    secret::LockedBytes,
    tpm::{PcrValues, Sealed, pcr_meaning},
};

/// What the file is for; another form gets another number.
const PURPOSE: &str = "postern/tpm-seed/1";
/// Largest file.
const FILE_MAX: u64 = 16_384;
/// Most sealings of one seed.
const SEALINGS_MAX: usize = 8;

/// The file. All of it is public.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub(super) struct SeedFile {
    #[n(0)]
    associated: Associated,
    #[n(1)]
    sealings: Vec<Sealing>,
}

/// The seed and the hash of what it is for, sealed to PCR values.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
struct Sealing {
    /// To say which PCRs changed. The TPM has its own copy.
    #[n(0)]
    pcrs: Vec<Pcr>,
    #[n(1)]
    sealed: Sealed,
}

#[derive(Clone, Encode, Decode)]
struct Pcr {
    #[n(0)]
    index: u8,
    #[cbor(n(1), with = "minicbor::bytes")]
    value: [u8; 32],
}

impl Sealing {
    fn pcrs(&self) -> PcrValues {
        PcrValues(self.pcrs.iter().map(|pcr| (pcr.index, pcr.value)).collect())
    }
}

impl SeedFile {
    /// Never in the place of another, whichever keystore made that.
    pub(super) fn refuse_existing(state: &Path, wallet: &str) -> Result<(), KeystoreError> {
        let path = seed::path(state, wallet);
        if path.exists() { Err(KeystoreError::Exists { what: path.display().to_string() }) } else { Ok(()) }
    }

    /// Seals a seed to these PCR values.
    pub(super) fn seal(core: &Core, wallet: &str, network: Network, seed: &[u8], pcrs: &PcrValues) -> Result<Self, KeystoreError> {
        let associated = Associated::new(PURPOSE, wallet, network);
        let no_memory = |error: crate::secret::LockedMemoryError| KeystoreError::Memory { reason: error.to_string() };
        let mut secret = LockedBytes::zeroed(SEED_LEN.saturating_mul(2)).map_err(no_memory)?;
        let bound = bound_to(&associated);
        secret.iter_mut().zip(seed.iter().chain(&bound)).for_each(|(to, from)| *to = *from);
        let sealed = core.tpm.with(|tpm| tpm.seal(&secret, &core.auth, pcrs)).map_err(|error| core.explain(wallet, &error))?;
        let pcrs = pcrs.0.iter().map(|(index, value)| Pcr { index: *index, value: *value }).collect();
        Ok(Self { associated, sealings: vec![Sealing { pcrs, sealed }] })
    }

    /// Reads a wallet's file.
    pub(super) fn read(state: &Path, wallet: &str, network: Network) -> Result<Self, KeystoreError> {
        let path = seed::path(state, wallet);
        let bytes = durable::read(&path, FILE_MAX)?
            .ok_or_else(|| KeystoreError::KeyMissing { wallet: wallet.into(), reason: format!("there is no {}", path.display()) })?;
        let mismatch = |reason: String| KeystoreError::KeyMismatch { wallet: wallet.into(), reason };
        let file: Self =
            canonical::from_slice(&bytes).map_err(|error| mismatch(format!("{} is no seed sealed by a TPM: {error}", path.display())))?;
        file.associated.expect(&Associated::new(PURPOSE, wallet, network), &path)?;
        if file.sealings.is_empty() || file.sealings.len() > SEALINGS_MAX {
            return Err(mismatch(format!("{} is damaged", path.display())));
        }
        Ok(file)
    }

    /// Unseals the seed: with the sealing that fits what was booted.
    pub(super) fn open(&self, core: &Core) -> Result<LockedBytes, KeystoreError> {
        let wallet = self.associated.wallet();
        let mismatch = |reason: String| KeystoreError::KeyMismatch { wallet: wallet.into(), reason };
        let mut told = String::new();
        for sealing in self.sealings.iter().rev() {
            let wanted = sealing.pcrs();
            let now = core.tpm.with(|tpm| tpm.pcrs(&wanted.set())).map_err(|error| core.explain(wallet, &error))?;
            let differing = wanted.differing(&now);
            if !differing.is_empty() {
                if told.is_empty() {
                    told = differing.iter().map(|index| pcr_words(*index, &wanted, &now)).collect::<Vec<_>>().join("; ");
                }
                continue;
            }
            let unsealed = core.tpm.with_auth(|tpm| tpm.unseal(&sealing.sealed, &core.auth, &wanted.set()));
            let secret = unsealed.map_err(|error| core.explain(wallet, &error))?;
            let (seed, bound) = secret.split_at_checked(SEED_LEN).unwrap_or_default();
            if *bound != bound_to(&self.associated) {
                return Err(mismatch("the sealed seed is another wallet's or network's".into()));
            }
            return LockedBytes::copy_of(seed).map_err(|error| KeystoreError::Memory { reason: error.to_string() });
        }
        Err(mismatch(format!(
            "its seed is sealed to another boot: {told}; boot what it was sealed to, and prepare an update with `postern wallet reseal` \
             (docs/tpm.md)"
        )))
    }

    /// This file with another's sealing: beside the present ones, or instead of them.
    pub(super) fn with_sealing(mut self, other: Self, only: bool) -> Self {
        let added: Vec<Vec<Pcr>> = other.sealings.iter().map(|sealing| sealing.pcrs.clone()).collect();
        let same = |one: &[Pcr], two: &[Pcr]| one.iter().map(|p| (p.index, p.value)).eq(two.iter().map(|p| (p.index, p.value)));
        self.sealings.retain(|sealing| !only && !added.iter().any(|pcrs| same(pcrs, &sealing.pcrs)));
        self.sealings.extend(other.sealings);
        let too_many = self.sealings.len().saturating_sub(SEALINGS_MAX);
        self.sealings.drain(..too_many);
        self
    }

    pub(super) fn write_new(&self, state: &Path) -> Result<(), KeystoreError> {
        durable::write_new(&self.path(state), &canonical::to_vec(self))
    }

    pub(super) fn replace(&self, state: &Path) -> Result<(), KeystoreError> {
        durable::replace(&self.path(state), &canonical::to_vec(self))
    }

    fn path(&self, state: &Path) -> PathBuf {
        seed::path(state, self.associated.wallet())
    }
}

/// Sealed behind the seed: a file of another wallet or network does not open in its place.
fn bound_to(associated: &Associated) -> [u8; 32] {
    Sha256::digest(canonical::to_vec(associated)).into()
}

fn pcr_words(index: u8, wanted: &PcrValues, now: &PcrValues) -> String {
    let value = |values: &PcrValues| values.0.get(&index).map(hex::encode).unwrap_or_default();
    format!("PCR {index} ({}) holds {}, and it is sealed to {}", pcr_meaning(index), value(now), value(wanted))
}
