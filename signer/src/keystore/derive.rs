//! BIP 32 from a seed in locked memory, and signing with what it derives. Branches that were used are kept, so that a
//! thousand inputs of a wallet cost one hash each and not a thousand derivations.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use bitcoin::{
    NetworkKind, PublicKey,
    bip32::{ChainCode, ChildNumber, DerivationPath, Fingerprint, Xpub},
    hashes::{Hash as _, HashEngine as _, Hmac, HmacEngine, sha512},
    key::TapTweak as _,
    secp256k1::{Keypair, Message, Scalar, SecretKey},
};
use postern_protocol::reply::InputSignature;
use zeroize::Zeroizing;

use super::{
    AccountKey, KeystoreError, hsm,
    signature::{self, curve},
};
use crate::{
    analysis::{SIGHASH_ALL, Scheme, SigningTask},
    secret::{LockedBytes, LockedMemoryError, leaving_no_copies},
    wallet::{KeyLocator, KeyRef},
};

/// Branches kept: two for each account that descriptors name, and more than anyone has.
const BRANCHES_MAX: usize = 256;

/// A wallet's keys, all derived from one seed.
pub(super) struct SeedKeys {
    wallet: String,
    master: Arc<Node>,
    branches: RwLock<BTreeMap<Vec<ChildNumber>, Arc<Node>>>,
}

/// An extended private key: 32 bytes of secret and 32 of chain code in locked memory, and the public half that hashing needs.
struct Node {
    secret: LockedBytes,
    public: bitcoin::secp256k1::PublicKey,
    depth: u8,
    parent: Fingerprint,
    number: ChildNumber,
}

/// Why nothing is derived.
#[derive(Debug, thiserror::Error)]
enum DeriveError {
    #[error(transparent)]
    Memory(#[from] LockedMemoryError),
    /// One chance in 2^127: BIP 32 says to take the next index.
    #[error("this path derives no key")]
    NoKey,
    #[error("the path is longer than 255 steps")]
    TooDeep,
}

impl SeedKeys {
    /// The master key of a seed.
    pub(super) fn from_seed(wallet: &str, seed: &[u8]) -> Result<Self, KeystoreError> {
        let derived = |error: DeriveError| derive_failed(wallet, &error);
        let master = leaving_no_copies(|| Node::master(seed));
        let master = Arc::new(master.map_err(derived)?);
        Ok(Self { wallet: wallet.into(), master, branches: RwLock::default() })
    }

    /// An account's public half.
    pub(super) fn account(&self, network: NetworkKind, path: &DerivationPath) -> Result<AccountKey, KeystoreError> {
        let steps: Vec<ChildNumber> = path.into_iter().copied().collect();
        let node = self.node(&steps).map_err(|error| derive_failed(&self.wallet, &error))?;
        let [_, chain_code] = node.halves();
        let xpub = Xpub {
            network,
            depth: node.depth,
            parent_fingerprint: node.parent,
            child_number: node.number,
            public_key: node.public,
            chain_code: ChainCode::from(*chain_code),
        };
        Ok(AccountKey { fingerprint: self.master.fingerprint(), path: path.clone(), xpub })
    }

    /// Signs all tasks, each signature verified against its pinned key.
    pub(super) fn sign(&self, tasks: &[SigningTask]) -> Result<Vec<InputSignature>, KeystoreError> {
        leaving_no_copies(|| self.sign_all(tasks))
    }

    fn sign_all(&self, tasks: &[SigningTask]) -> Result<Vec<InputSignature>, KeystoreError> {
        let mut last: Option<(&[ChildNumber], Arc<Node>)> = None;
        let mut signatures = Vec::with_capacity(tasks.len());
        for task in tasks {
            let KeyLocator::Seed(path) = &task.key.locator else {
                return Err(self.mismatch(format!("input {} is to be signed with a key that is not in a seed", task.input)));
            };
            let path: &[ChildNumber] = path.as_ref();
            let (index, branch) = path.split_last().map_or((None, path), |(index, branch)| (Some(*index), branch));
            let node = match &last {
                Some((known, node)) if *known == branch => Arc::clone(node),
                _ => self.node(branch).map_err(|error| derive_failed(&self.wallet, &error))?,
            };
            let mut secret = index
                .map_or_else(|| node.secret_key(), |index| node.child_secret(index))
                .map_err(|error| derive_failed(&self.wallet, &error))?;
            let signed = sign_one(task, &secret);
            secret.non_secure_erase();
            signatures.push(signed.map_err(|error| {
                self.mismatch(format!("the seed's key for input {} is not the pinned {}: {error}", task.input, task.key.public_key))
            })?);
            last = Some((branch, node));
        }
        Ok(signatures)
    }

    /// Signs a digest that is no transaction's with an account's key.
    pub(super) fn test(&self, account: &AccountKey) -> Result<(), KeystoreError> {
        let task = SigningTask {
            input: 0,
            key: KeyRef { locator: KeyLocator::Seed(account.path.clone()), public_key: PublicKey::new(account.xpub.public_key) },
            digest: hsm::test_digest(&self.wallet),
            scheme: Scheme::Ecdsa,
            sighash_byte: Some(SIGHASH_ALL),
        };
        self.sign(&[task]).map(|_| ())
    }

    fn mismatch(&self, reason: String) -> KeystoreError {
        KeystoreError::KeyMismatch { wallet: self.wallet.clone(), reason }
    }

    /// The node at a path from the master key, kept for the next time.
    fn node(&self, path: &[ChildNumber]) -> Result<Arc<Node>, DeriveError> {
        let known = |branches: &BTreeMap<Vec<ChildNumber>, Arc<Node>>| branches.get(path).cloned();
        if let Some(node) = known(&self.branches.read().unwrap_or_else(std::sync::PoisonError::into_inner)) {
            return Ok(node);
        }
        let node = leaving_no_copies(|| {
            path.iter().try_fold(Arc::clone(&self.master), |node, step| Ok::<_, DeriveError>(Arc::new(node.child(*step)?)))
        })?;
        let mut branches = self.branches.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if branches.len() < BRANCHES_MAX {
            branches.insert(path.to_vec(), Arc::clone(&node));
        }
        Ok(node)
    }
}

impl std::fmt::Debug for SeedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SeedKeys({}, master {})", self.wallet, self.master.fingerprint())
    }
}

fn derive_failed(wallet: &str, error: &DeriveError) -> KeystoreError {
    match error {
        DeriveError::Memory(error) => KeystoreError::Memory { reason: error.to_string() },
        DeriveError::NoKey | DeriveError::TooDeep => KeystoreError::KeyMismatch { wallet: wallet.into(), reason: error.to_string() },
    }
}

fn sign_one(task: &SigningTask, secret: &SecretKey) -> Result<InputSignature, signature::NotVerified> {
    let message = Message::from_digest(task.digest);
    let mut key = match task.scheme {
        Scheme::Ecdsa => {
            let signature = curve().sign_ecdsa(&message, secret);
            signature::verify_ecdsa(&signature, &task.digest, &task.key.public_key)?;
            return Ok(signature::ecdsa_answer(task, &signature));
        }
        Scheme::SchnorrKeyPath { merkle_root } => {
            let mut untweaked = Keypair::from_secret_key(curve(), secret);
            let tweaked = untweaked.tap_tweak(curve(), merkle_root).to_keypair();
            untweaked.non_secure_erase();
            tweaked
        }
        Scheme::SchnorrLeaf { .. } => Keypair::from_secret_key(curve(), secret),
    };
    // BIP 340: auxiliary randomness protects against fault and side channel attacks, and is not needed for safety otherwise.
    let mut auxiliary = [0; 32];
    let _ = getrandom::fill(&mut auxiliary);
    let signature = curve().sign_schnorr_with_aux_rand(&message, &key, &auxiliary);
    key.non_secure_erase();
    signature::schnorr_answer(task, &signature).unwrap_or(Err(signature::NotVerified))
}

impl Node {
    fn master(seed: &[u8]) -> Result<Self, DeriveError> {
        let next = hmac(b"Bitcoin seed", &[seed]);
        let mut key = next.first_chunk::<32>().and_then(|key| SecretKey::from_slice(key).ok()).ok_or(DeriveError::NoKey)?;
        Self::new(&mut key, &next, 0, Fingerprint::default(), ChildNumber::Normal { index: 0 })
    }

    /// Moves a secret and the chain code (the last 32 bytes of `next`) into locked memory.
    fn new(key: &mut SecretKey, next: &[u8; 64], depth: u8, parent: Fingerprint, number: ChildNumber) -> Result<Self, DeriveError> {
        let public = key.public_key(curve());
        let mut secret = LockedBytes::copy_of(next)?;
        if let Some(place) = secret.first_chunk_mut::<32>() {
            place.copy_from_slice(key.as_ref());
        }
        key.non_secure_erase();
        Ok(Self { secret, public, depth, parent, number })
    }

    /// Secret and chain code.
    fn halves(&self) -> [&[u8; 32]; 2] {
        const NONE: [u8; 32] = [0; 32];
        let key = self.secret.first_chunk::<32>().unwrap_or(&NONE);
        let chain_code = self.secret.last_chunk::<32>().unwrap_or(&NONE);
        [key, chain_code]
    }

    fn secret_key(&self) -> Result<SecretKey, DeriveError> {
        let [key, _] = self.halves();
        SecretKey::from_slice(key).map_err(|_| DeriveError::NoKey)
    }

    fn fingerprint(&self) -> Fingerprint {
        let id = PublicKey::new(self.public).pubkey_hash();
        id.as_byte_array().first_chunk::<4>().map(Fingerprint::from).unwrap_or_default()
    }

    /// CKDpriv's HMAC: the tweak, and the child's chain code.
    fn step(&self, number: ChildNumber) -> Zeroizing<[u8; 64]> {
        let [key, chain_code] = self.halves();
        let index = u32::from(number).to_be_bytes();
        match number {
            ChildNumber::Normal { .. } => hmac(chain_code, &[&self.public.serialize(), &index]),
            ChildNumber::Hardened { .. } => hmac(chain_code, &[&[0], key, &index]),
        }
    }

    fn child(&self, number: ChildNumber) -> Result<Self, DeriveError> {
        let next = self.step(number);
        let mut key = self.tweaked(&next)?;
        Self::new(&mut key, &next, self.depth.checked_add(1).ok_or(DeriveError::TooDeep)?, self.fingerprint(), number)
    }

    /// The child's secret alone: what a signature needs. On the stack and the caller's to erase; no page is mapped for it.
    fn child_secret(&self, number: ChildNumber) -> Result<SecretKey, DeriveError> {
        self.tweaked(&self.step(number))
    }

    fn tweaked(&self, next: &[u8; 64]) -> Result<SecretKey, DeriveError> {
        let tweak = next.first_chunk::<32>().and_then(|tweak| Scalar::from_be_bytes(*tweak).ok()).ok_or(DeriveError::NoKey)?;
        self.secret_key()?.add_tweak(&tweak).map_err(|_| DeriveError::NoKey)
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 64]> {
    let mut engine = HmacEngine::<sha512::Hash>::new(key);
    for part in parts {
        engine.input(part);
    }
    Zeroizing::new(Hmac::<sha512::Hash>::from_engine(engine).to_byte_array())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::str::FromStr as _;

    use bitcoin::{
        TapLeafHash, TapNodeHash,
        bip32::{Xpriv, Xpub},
        secp256k1::{XOnlyPublicKey, schnorr},
    };
    use postern_protocol::reply::SignaturePlace;

    use super::*;

    fn seed_and_master() -> (SeedKeys, Xpriv) {
        let seed = [0x5a; 32];
        (SeedKeys::from_seed("hot", &seed).unwrap(), Xpriv::new_master(NetworkKind::Test, &seed).unwrap())
    }

    fn task(master: &Xpriv, path: &str, scheme: Scheme) -> SigningTask {
        let path = DerivationPath::from_str(path).unwrap();
        let public_key = PublicKey::new(master.derive_priv(curve(), &path).unwrap().private_key.public_key(curve()));
        SigningTask {
            input: 3,
            key: KeyRef { locator: KeyLocator::Seed(path), public_key },
            digest: [0x11; 32],
            scheme,
            sighash_byte: None,
        }
    }

    #[test]
    fn accounts_are_those_of_bip32() {
        // BIP 32, test vector 1.
        let seed = hex::decode("000102030405060708090a0b0c0d0e0f").unwrap();
        let keys = SeedKeys::from_seed("hot", &seed).unwrap();
        let account = keys.account(NetworkKind::Main, &DerivationPath::from_str("m/0h/1/2h/2/1000000000").unwrap()).unwrap();
        let vector = "xpub6H1LXWLaKsWFhvm6RVpEL9P4KfRZSW7abD2ttkWP3SSQvnyA8FSVqNTEcYFgJS2UaFcxupHiYkro49S8yGasTvXEYBVPamhGW6cFJodrTHy";
        assert_eq!(account.xpub, Xpub::from_str(vector).unwrap());
        assert_eq!(account.fingerprint.to_string(), "3442193e");

        let (keys, master) = seed_and_master();
        for path in ["m", "m/84h/1h/0h", "m/48h/1h/0h/2h", "m/1/2/3"] {
            let path = DerivationPath::from_str(path).unwrap();
            let derived = master.derive_priv(curve(), &path).unwrap();
            assert_eq!(keys.account(NetworkKind::Test, &path).unwrap().xpub, Xpub::from_priv(curve(), &derived));
        }
    }

    #[test]
    fn every_scheme_signs_with_the_key_that_verifiers_expect() {
        let (keys, master) = seed_and_master();
        let root = Some(TapNodeHash::assume_hidden([7; 32]));
        let leaf = TapLeafHash::from_byte_array([8; 32]);
        let tasks = [
            task(&master, "m/84h/1h/0h/0/5", Scheme::Ecdsa),
            task(&master, "m/86h/1h/0h/0/5", Scheme::SchnorrKeyPath { merkle_root: None }),
            task(&master, "m/86h/1h/0h/1/6", Scheme::SchnorrKeyPath { merkle_root: root }),
            task(&master, "m/86h/1h/0h/1/7", Scheme::SchnorrLeaf { leaf }),
        ];
        let answers = keys.sign(&tasks).unwrap();
        let message = Message::from_digest([0x11; 32]);

        let ecdsa = bitcoin::ecdsa::Signature::from_slice(&answers[0].signature).unwrap();
        assert_eq!(ecdsa.sighash_type, bitcoin::EcdsaSighashType::All);
        curve().verify_ecdsa(&message, &ecdsa.signature, &tasks[0].key.public_key.inner).unwrap();
        assert_eq!((answers[0].input, &answers[0].place), (3, &SignaturePlace::Partial));

        let expected = [
            (XOnlyPublicKey::from(tasks[1].key.public_key.inner).tap_tweak(curve(), None).0.to_x_only_public_key(), SignaturePlace::TapKey),
            (XOnlyPublicKey::from(tasks[2].key.public_key.inner).tap_tweak(curve(), root).0.to_x_only_public_key(), SignaturePlace::TapKey),
            (XOnlyPublicKey::from(tasks[3].key.public_key.inner), SignaturePlace::TapLeaf([8; 32])),
        ];
        for (answer, (key, place)) in answers[1..].iter().zip(expected) {
            assert_eq!((&answer.public_key, &answer.place), (&key.serialize().to_vec(), &place));
            curve().verify_schnorr(&schnorr::Signature::from_slice(&answer.signature).unwrap(), &message, &key).unwrap();
        }
    }

    #[test]
    fn a_key_that_is_not_the_pinned_one_gives_no_signature() {
        let (keys, master) = seed_and_master();
        for scheme in [
            Scheme::Ecdsa,
            Scheme::SchnorrKeyPath { merkle_root: None },
            Scheme::SchnorrLeaf { leaf: TapLeafHash::from_byte_array([8; 32]) },
        ] {
            let mut task = task(&master, "m/84h/1h/0h/0/5", scheme);
            task.key.locator = KeyLocator::Seed(DerivationPath::from_str("m/84h/1h/0h/0/6").unwrap());
            assert!(matches!(keys.sign(&[task]), Err(KeystoreError::KeyMismatch { .. })));
        }
        let mut elsewhere = task(&master, "m/84h/1h/0h/0/5", Scheme::Ecdsa);
        elsewhere.key.locator = KeyLocator::Hsm;
        assert!(matches!(keys.sign(&[elsewhere]), Err(KeystoreError::KeyMismatch { .. })));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let (keys, _) = seed_and_master();
        assert!(!format!("{keys:?}").contains("5a5a"));
    }
}
