//! Kind `seed`: a BIP-32 seed in a file, encrypted by an AES key that never leaves the token.

use std::path::{Path, PathBuf};

use bitcoin::Network;
use cryptoki::{
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
};
use minicbor::{Decode, Encode};
use postern_protocol::canonical;

use super::{
    AccountKey, KeystoreError, TypedEntropy,
    call::{GCM_NONCE_LEN, GCM_TAG_LEN},
    derive::SeedKeys,
    durable,
    entropy::{self, SEED_LEN},
    fault::Fault,
    hsm,
    work::Token,
};

/// What the seed is for: part of what the encryption authenticates.
const PURPOSE: &str = "postern/seed/1";
/// What the token's generator is called where sources are named.
const GENERATOR: &str = "C_GenerateRandom";
/// Largest file.
const FILE_MAX: u64 = 4096;

/// The file. Everything but the ciphertext is public; all that matters of it is authenticated.
#[derive(Encode, Decode)]
#[cbor(map)]
struct SealedSeed {
    #[n(0)]
    associated: Associated,
    /// CKA_ID of the token key.
    #[cbor(n(1), with = "minicbor::bytes")]
    key_id: Vec<u8>,
    #[cbor(n(2), with = "minicbor::bytes")]
    nonce: [u8; GCM_NONCE_LEN],
    /// Ciphertext and tag.
    #[cbor(n(3), with = "minicbor::bytes")]
    sealed: Vec<u8>,
}

/// What a sealed seed is for, bound to it: a file of another wallet or network does not open in its place.
#[derive(Clone, Encode, Decode, PartialEq, Eq)]
#[cbor(map)]
pub(super) struct Associated {
    #[n(0)]
    purpose: String,
    #[n(1)]
    wallet: String,
    #[n(2)]
    network: String,
}

impl Associated {
    pub(super) fn new(purpose: &str, wallet: &str, network: Network) -> Self {
        Self { purpose: purpose.into(), wallet: wallet.into(), network: network.to_string() }
    }

    pub(super) fn wallet(&self) -> &str {
        &self.wallet
    }

    /// That a file is for what it is asked for.
    pub(super) fn expect(&self, wanted: &Self, path: &Path) -> Result<(), KeystoreError> {
        if self == wanted {
            return Ok(());
        }
        let Associated { wallet, network, .. } = wanted;
        let reason = format!("{} is for wallet `{}` on {}, not for `{wallet}` on {network}", path.display(), self.wallet, self.network);
        Err(KeystoreError::KeyMismatch { wallet: wallet.clone(), reason })
    }
}

/// Where a wallet's seed is.
pub(super) fn path(state: &Path, wallet: &str) -> PathBuf {
    state.join(format!("seed-{wallet}.sealed"))
}

fn key_label(wallet: &str) -> String {
    format!("postern:{wallet}:seal")
}

/// Makes a seed and its token key, and writes the file. What is on disk has been opened again before this returns.
pub(super) fn create(
    token: &mut Token<'_>,
    keystore: &str,
    state: &Path,
    wallet: &str,
    network: Network,
    typed: Option<&TypedEntropy>,
) -> Result<(), Fault> {
    let path = path(state, wallet);
    let label = key_label(wallet);
    if path.exists() {
        return Err(KeystoreError::Exists { what: path.display().to_string() }.into());
    }
    if !token.session.find_objects(&[Attribute::Label(label.clone().into_bytes())])?.is_empty() {
        return Err(KeystoreError::Exists { what: format!("an object labelled `{label}` on the token") }.into());
    }
    token.prove_presence()?;
    let id = hsm::random_id()?;
    let key = token.session.generate_key(
        &Mechanism::AesKeyGen,
        &[
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(32.into()),
            Attribute::Label(label.into_bytes()),
            Attribute::Id(id.to_vec()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Modifiable(false),
            Attribute::Copyable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Derive(false),
        ],
    )?;
    token.remember(key);
    let draw = |out: &mut [u8]| token.session.generate_random_slice(out);
    let seed = entropy::new_seed(GENERATOR, draw, typed).map_err(|error| error.explain(keystore, Fault::from))?;
    let associated = Associated::new(PURPOSE, wallet, network);
    let bound = canonical::to_vec(&associated);
    let mut nonce = [0; GCM_NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(|error| Fault::call("getrandom", error.to_string()))?;
    let sealed = {
        let mut nonce = nonce;
        let parameters = GcmParams::new(&mut nonce, &bound, 128.into())?;
        token.session.encrypt(&Mechanism::AesGcm(parameters), key, &seed)?
    };
    if sealed.len() != SEED_LEN.saturating_add(GCM_TAG_LEN) {
        return Err(Fault::call("C_Encrypt", format!("{} bytes for a seed of {SEED_LEN}", sealed.len())));
    }
    if *token.calls.open_gcm(token.session, key, &nonce, &bound, &sealed)?.get(..SEED_LEN).unwrap_or_default() != *seed {
        return Err(Fault::call("C_Decrypt", "the new seed does not come back as it went in"));
    }
    let file = SealedSeed { associated, key_id: id.to_vec(), nonce, sealed };
    durable::write_new(&path, &canonical::to_vec(&file))?;
    Ok(())
}

/// Opens a wallet's seed; with it comes the token key that sealed it.
pub(super) fn open(token: &mut Token<'_>, state: &Path, wallet: &str, network: Network) -> Result<(SeedKeys, ObjectHandle), Fault> {
    let path = path(state, wallet);
    let mismatch = |reason: String| Fault::from(KeystoreError::KeyMismatch { wallet: wallet.into(), reason });
    let missing = |reason: String| Fault::from(KeystoreError::KeyMissing { wallet: wallet.into(), reason });
    let bytes = durable::read(&path, FILE_MAX)?.ok_or_else(|| missing(format!("there is no {}", path.display())))?;
    let file: SealedSeed =
        canonical::from_slice(&bytes).map_err(|error| mismatch(format!("{} is no sealed seed: {error}", path.display())))?;
    let associated = Associated::new(PURPOSE, wallet, network);
    file.associated.expect(&associated, &path)?;
    // Malformed parameters crash modules: what the token is asked is checked here.
    if file.sealed.len() != SEED_LEN.saturating_add(GCM_TAG_LEN) || file.key_id.is_empty() || file.key_id.len() > 64 {
        return Err(mismatch(format!("{} is damaged", path.display())));
    }
    let key = find_key(token, wallet, &file.key_id)?
        .ok_or_else(|| missing(format!("the token has no key {} for {}", hex::encode(&file.key_id), path.display())))?;
    let seed = match token.calls.open_gcm(token.session, key, &file.nonce, &canonical::to_vec(&associated), &file.sealed) {
        Ok(seed) => seed,
        // Modules say many things when a tag does not fit. If the key is still there, it is the file.
        Err(fault @ Fault::Call { .. }) => {
            return match token.session.get_attributes(key, &[AttributeType::Class]) {
                Ok(attributes) if !attributes.is_empty() => {
                    Err(mismatch(format!("{} does not open with the token's key: {}", path.display(), fault.words())))
                }
                _ => Err(fault),
            };
        }
        Err(fault) => return Err(fault),
    };
    Ok((SeedKeys::from_seed(wallet, seed.get(..SEED_LEN).unwrap_or_default())?, key))
}

/// Compares what the seed derives with what the descriptor names, and has it sign something.
pub(super) fn check(keys: &SeedKeys, wallet: &str, network: Network, pinned: &[AccountKey]) -> Result<(), KeystoreError> {
    if pinned.is_empty() {
        return Err(KeystoreError::KeyMismatch { wallet: wallet.into(), reason: "the descriptor names no account of the seed".into() });
    }
    for account in pinned {
        let derived = keys.account(network.into(), &account.path)?;
        if derived.fingerprint != account.fingerprint
            || derived.xpub.public_key != account.xpub.public_key
            || derived.xpub.chain_code != account.xpub.chain_code
        {
            return Err(KeystoreError::KeyMismatch {
                wallet: wallet.into(),
                reason: format!("the seed derives {derived}, and the descriptor says {account}"),
            });
        }
        keys.test(account)?;
    }
    Ok(())
}

fn find_key(token: &Token<'_>, wallet: &str, id: &[u8]) -> Result<Option<ObjectHandle>, Fault> {
    let found = token.session.find_objects(&[
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(key_label(wallet).into_bytes()),
        Attribute::Id(id.to_vec()),
    ])?;
    if found.is_empty() {
        token.prove_presence()?;
    }
    Ok(found.first().copied())
}

/// The self-test of the randomness that new seeds are made from.
pub(super) fn prove_random(token: &Token<'_>, keystore: &str) -> Result<(), Fault> {
    entropy::prove(GENERATOR, |out| token.session.generate_random_slice(out)).map_err(|error| error.explain(keystore, Fault::from))
}
