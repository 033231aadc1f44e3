//! Kind `pool`: keys born in the token, wrapped out under a token key that can do nothing else, kept in numbered batches, and
//! unwrapped into a session to sign. The token stays small however many addresses there are.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use bitcoin::{Network, PublicKey};
use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectClass, ObjectHandle},
};
use postern_protocol::reply::InputSignature;

use super::{
    KeystoreError,
    fault::Fault,
    hsm,
    module::lock,
    pool_file::{BATCH_MAX, PoolFile, PoolIds, PoolKey, StoredBatch},
    signature,
    work::Token,
};
use crate::{
    analysis::{Scheme, SigningTask},
    wallet::{KeyLocator, Position},
};

/// Keys that one session keeps unwrapped for the next input of the same address.
const UNWRAPPED_MAX: usize = 16;

/// The verified keys of a pool by branch. Public halves and wrapped blobs: nothing here is secret.
pub(super) type Entries = RwLock<BTreeMap<u32, Vec<PoolKey>>>;

/// A pool whose token keys were found.
pub(super) struct PoolKeys {
    wallet: String,
    wrapping: ObjectHandle,
    authentication: ObjectHandle,
    entries: Arc<Entries>,
    file: Mutex<PoolFile>,
}

/// Pool keys that are unwrapped on one session, the most recently used last. They end with the session.
#[derive(Default)]
pub(super) struct Unwrapped {
    keys: VecDeque<(PublicKey, ObjectHandle)>,
}

/// What is asked of one key, ready for any worker.
#[derive(Clone)]
pub(super) struct PoolTask {
    task: SigningTask,
    wrapped: Vec<u8>,
}

fn wrapping_label(wallet: &str) -> String {
    format!("postern:{wallet}:wrap")
}

fn authentication_label(wallet: &str) -> String {
    format!("postern:{wallet}:mac")
}

/// Makes the token keys of a pool and an empty file.
pub(super) fn create(token: &mut Token<'_>, state: &Path, wallet: &str, network: Network) -> Result<(), Fault> {
    let path = super::pool_file::path(state, wallet);
    if path.exists() {
        return Err(KeystoreError::Exists { what: path.display().to_string() }.into());
    }
    for label in [wrapping_label(wallet), authentication_label(wallet)] {
        if !token.session.find_objects(&[Attribute::Label(label.clone().into_bytes())])?.is_empty() {
            return Err(KeystoreError::Exists { what: format!("an object labelled `{label}` on the token") }.into());
        }
    }
    token.prove_presence()?;
    let ids = PoolIds { wrapping: hsm::random_id()?.to_vec(), authentication: hsm::random_id()?.to_vec() };
    let wrapping = token.calls.generate_wrapping_key(token.session, &wrapping_label(wallet), &ids.wrapping)?;
    token.remember(wrapping);
    token.session.generate_key(
        &Mechanism::GenericSecretKeyGen,
        &[
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::ValueLen(32.into()),
            Attribute::Label(authentication_label(wallet).into_bytes()),
            Attribute::Id(ids.authentication.clone()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Modifiable(false),
            Attribute::Copyable(false),
            Attribute::Sign(true),
            Attribute::Verify(true),
            Attribute::Derive(false),
        ],
    )?;
    prove_template(token, wrapping)?;
    PoolFile::create(state, wallet, network, &ids)?;
    Ok(())
}

/// Has the token refuse the attack that the unwrap template is there for; a token that ignores the template gets no pool.
fn prove_template(token: &mut Token<'_>, wrapping: ObjectHandle) -> Result<(), Fault> {
    let (_, private) = hsm::create_in_session(token)?;
    let wrapped = token.session.wrap_key(&Mechanism::AesKeyWrapPad, wrapping, private)?;
    token.session.destroy_object(private)?;
    let readable = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::Token(false),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ];
    match token.session.unwrap_key(&Mechanism::AesKeyWrapPad, wrapping, &wrapped, &readable) {
        Err(_) => Ok(()),
        Ok(key) => {
            token.session.destroy_object(key)?;
            Err(Fault::call("CKA_UNWRAP_TEMPLATE", "the token unwraps pool keys as readable ones; it cannot hold a pool"))
        }
    }
}

/// Finds the pool's token keys, verifies every batch, and signs with the last key. `known` are the entries of an earlier connection.
pub(super) fn open(token: &mut Token<'_>, state: &Path, wallet: &str, network: Network, entries: Arc<Entries>) -> Result<PoolKeys, Fault> {
    let missing = |reason: String| Fault::from(KeystoreError::KeyMissing { wallet: wallet.into(), reason });
    let Some((file, ids)) = PoolFile::open(state, wallet, network)? else {
        return Err(missing(format!("there is no {}", super::pool_file::path(state, wallet).display())));
    };
    let find = |kind: KeyType, label: String, id: &[u8]| {
        let found = token.session.find_objects(&[
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(kind),
            Attribute::Label(label.clone().into_bytes()),
            Attribute::Id(id.to_vec()),
        ])?;
        if found.is_empty() {
            token.prove_presence()?;
        }
        found.first().copied().ok_or_else(|| missing(format!("the token has no key labelled `{label}`")))
    };
    let wrapping = find(KeyType::AES, wrapping_label(wallet), &ids.wrapping)?;
    let authentication = find(KeyType::GENERIC_SECRET, authentication_label(wallet), &ids.authentication)?;
    let pool = PoolKeys { wallet: wallet.into(), wrapping, authentication, entries, file: Mutex::new(file) };
    pool.load(token)?;
    pool.test(token)?;
    Ok(pool)
}

impl PoolKeys {
    /// Reads and verifies batches that are not known yet.
    pub(super) fn load(&self, token: &mut Token<'_>) -> Result<(), Fault> {
        let file = lock(&self.file);
        for branch in file.branches()? {
            let from = self.size(branch);
            for StoredBatch { batch, code } in file.batches(branch, from)? {
                let expected = token.calls.hmac_sha256(token.session, self.authentication, &batch.authenticated())?;
                if expected.as_slice() != code {
                    return Err(file.damaged(&format!("the batch at index {} of branch {branch} is not authentic", batch.first)).into());
                }
                self.keep(branch, batch.first, batch.keys);
            }
        }
        Ok(())
    }

    /// Appends verified keys, unless somebody was faster.
    fn keep(&self, branch: u32, first: u32, keys: Vec<PoolKey>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let known = entries.entry(branch).or_default();
        if u32::try_from(known.len()) == Ok(first) {
            known.extend(keys);
        }
    }

    /// The key that unwraps.
    pub(super) fn wrapping(&self) -> ObjectHandle {
        self.wrapping
    }

    /// How many keys a branch has.
    pub(super) fn size(&self, branch: u32) -> u32 {
        size(&self.entries, branch)
    }

    /// Signs with the newest key of each branch.
    fn test(&self, token: &mut Token<'_>) -> Result<(), Fault> {
        let newest: Vec<PoolKey> = {
            let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
            entries.values().filter_map(|keys| keys.last().cloned()).collect()
        };
        for key in newest {
            let public_key = self.public_key(&key)?;
            self.sign_with(token, &public_key, &key.wrapped, &hsm::test_digest(&self.wallet))?;
        }
        Ok(())
    }

    fn public_key(&self, key: &PoolKey) -> Result<PublicKey, KeystoreError> {
        PublicKey::from_slice(&key.public_key).map_err(|error| self.mismatch(format!("a pool key is no key: {error}")))
    }

    fn mismatch(&self, reason: String) -> KeystoreError {
        KeystoreError::KeyMismatch { wallet: self.wallet.clone(), reason }
    }

    /// Looks the keys of all tasks up, each checked against its pin. None: a key is not known (yet).
    pub(super) fn prepare(&self, tasks: &[SigningTask]) -> Result<Option<Vec<PoolTask>>, KeystoreError> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut prepared = Vec::with_capacity(tasks.len());
        for task in tasks {
            let (KeyLocator::Pool(Position { branch, index }), Scheme::Ecdsa) = (&task.key.locator, task.scheme) else {
                return Err(KeystoreError::Unsupported {
                    wallet: self.wallet.clone(),
                    reason: format!("a pool key makes ECDSA signatures only, input {} wants another", task.input),
                });
            };
            let index = usize::try_from(*index).unwrap_or(usize::MAX);
            let Some(key) = entries.get(branch).and_then(|keys| keys.get(index)) else {
                return Ok(None);
            };
            if key.public_key != task.key.public_key.inner.serialize() {
                return Err(self.mismatch(format!("pool key {branch}/{index} is not the pinned {}", task.key.public_key)));
            }
            prepared.push(PoolTask { task: task.clone(), wrapped: key.wrapped.clone() });
        }
        Ok(Some(prepared))
    }

    /// One signature.
    pub(super) fn sign(&self, token: &mut Token<'_>, prepared: &PoolTask) -> Result<InputSignature, Fault> {
        let signature = self.sign_with(token, &prepared.task.key.public_key, &prepared.wrapped, &prepared.task.digest)?;
        Ok(signature::ecdsa_answer(&prepared.task, &signature))
    }

    fn sign_with(
        &self,
        token: &mut Token<'_>,
        public_key: &PublicKey,
        wrapped: &[u8],
        digest: &[u8; 32],
    ) -> Result<bitcoin::secp256k1::ecdsa::Signature, Fault> {
        let private = match token.unwrapped.take(public_key) {
            Some(private) => private,
            None => token.session.unwrap_key(
                &Mechanism::AesKeyWrapPad,
                self.wrapping,
                wrapped,
                &[
                    Attribute::Class(ObjectClass::PRIVATE_KEY),
                    Attribute::KeyType(KeyType::EC),
                    Attribute::Token(false),
                    Attribute::Private(true),
                    Attribute::Sensitive(true),
                    Attribute::Extractable(false),
                    Attribute::Sign(true),
                    Attribute::Derive(false),
                ],
            )?,
        };
        // When this fails the session is closed, and the unwrapped key with it.
        let signature = hsm::sign(token, private, &self.wallet, digest, public_key)?;
        if let Some(oldest) = token.unwrapped.put(*public_key, private) {
            token.session.destroy_object(oldest)?;
        }
        Ok(signature)
    }

    /// Makes a key in the token, wraps it out and forgets it.
    pub(super) fn make_key(&self, token: &mut Token<'_>) -> Result<PoolKey, Fault> {
        let (public_key, private) = hsm::create_in_session(token)?;
        let wrapped = token.session.wrap_key(&Mechanism::AesKeyWrapPad, self.wrapping, private)?;
        token.session.destroy_object(private)?;
        Ok(PoolKey { public_key: public_key.inner.serialize(), wrapped })
    }

    /// Authenticates new keys, puts them on disk, and only then makes them known. Returns the branch's size. When another process
    /// was faster, its keys are read and these are dropped: nobody has seen them.
    pub(super) fn append(&self, token: &mut Token<'_>, branch: u32, first: u32, keys: &[PoolKey]) -> Result<u32, Fault> {
        {
            let mut file = lock(&self.file);
            let batch = file.batch(branch, first, keys.to_vec());
            let code = token.calls.hmac_sha256(token.session, self.authentication, &batch.authenticated())?;
            if !file.append(&batch, &code)? {
                log::info!("pool `{}`: another process made the keys from index {first} on", self.wallet);
            }
        }
        self.load(token)?;
        Ok(self.size(branch))
    }
}

/// How many keys a branch has.
pub(super) fn size(entries: &Entries, branch: u32) -> u32 {
    let entries = entries.read().unwrap_or_else(PoisonError::into_inner);
    u32::try_from(entries.get(&branch).map_or(0, Vec::len)).unwrap_or(u32::MAX)
}

/// Public keys of a branch in order.
pub(super) fn public_keys(entries: &Entries, branch: u32, start: u32, count: u32) -> Vec<PublicKey> {
    let entries = entries.read().unwrap_or_else(PoisonError::into_inner);
    let skip = usize::try_from(start).unwrap_or(usize::MAX);
    let take = usize::try_from(count).unwrap_or(usize::MAX);
    let keys = entries.get(&branch).into_iter().flatten().skip(skip).take(take);
    // A batch's keys were made by the token and authenticated: none is left out, so positions hold.
    keys.map_while(|key| PublicKey::from_slice(&key.public_key).ok()).collect()
}

/// How many keys the next batch of a branch makes on the way to `size`.
pub(super) fn next_batch(have: u32, size: u32) -> u32 {
    size.saturating_sub(have).min(BATCH_MAX)
}

impl Unwrapped {
    fn take(&mut self, key: &PublicKey) -> Option<ObjectHandle> {
        let place = self.keys.iter().position(|(known, _)| known == key)?;
        self.keys.remove(place).map(|(_, handle)| handle)
    }

    /// Keeps a handle, and returns the one that has to go.
    fn put(&mut self, key: PublicKey, handle: ObjectHandle) -> Option<ObjectHandle> {
        self.keys.push_back((key, handle));
        if self.keys.len() > UNWRAPPED_MAX { self.keys.pop_front().map(|(_, handle)| handle) } else { None }
    }
}
