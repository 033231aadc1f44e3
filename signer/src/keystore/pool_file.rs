//! The pool of a `pool` wallet on disk: numbered public keys with their wrapped private keys, in batches. Each batch is
//! authenticated by a token key, so that nobody can plant a key of his own among the deposit addresses.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use bitcoin::Network;
use minicbor::{Decode, Encode};
use postern_protocol::canonical;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use super::{
    KeystoreError,
    durable::{storage, sync_folder_of},
};

/// Keys in one batch.
pub(super) const BATCH_MAX: u32 = 1_000;
/// Largest wrapped key that is believed to be one.
const WRAPPED_MAX: usize = 512;
/// Domain tag of a batch's authentication code.
const DOMAIN: &[u8] = b"postern/pool/1";

/// One numbered key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct PoolKey {
    /// Compressed.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) public_key: [u8; 33],
    /// CKM_AES_KEY_WRAP_PAD.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) wrapped: Vec<u8>,
}

/// Keys that were made and stored together. What the authentication code covers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Batch {
    #[n(0)]
    pub(super) wallet: String,
    #[n(1)]
    pub(super) network: String,
    #[n(2)]
    pub(super) branch: u32,
    /// Index of the first key.
    #[n(3)]
    pub(super) first: u32,
    #[n(4)]
    pub(super) keys: Vec<PoolKey>,
}

impl Batch {
    /// The bytes that are authenticated.
    pub(super) fn authenticated(&self) -> Vec<u8> {
        [DOMAIN, &canonical::to_vec(self)].concat()
    }
}

/// A batch as it was read: not to be believed before its code is checked.
pub(super) struct StoredBatch {
    pub(super) batch: Batch,
    pub(super) code: Vec<u8>,
}

/// Which token keys a pool belongs to, by CKA_ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolIds {
    pub(super) wrapping: Vec<u8>,
    pub(super) authentication: Vec<u8>,
}

/// The open file.
pub(super) struct PoolFile {
    path: PathBuf,
    database: Connection,
    wallet: String,
    network: String,
}

/// Where a wallet's pool is.
pub(super) fn path(state: &Path, wallet: &str) -> PathBuf {
    state.join(format!("pool-{wallet}.sqlite"))
}

impl PoolFile {
    /// Makes an empty pool; its name is durable before this returns.
    pub(super) fn create(state: &Path, wallet: &str, network: Network, ids: &PoolIds) -> Result<(), KeystoreError> {
        let path = path(state, wallet);
        // SQLite would make it readable by others.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(KeystoreError::Exists { what: path.display().to_string() });
            }
            Err(error) => return Err(storage(&path, &error)),
        }
        let failed = |error: rusqlite::Error| storage(&path, &error);
        let mut database = connect(&path)?;
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction
            .execute_batch(
                "CREATE TABLE pool (wallet TEXT NOT NULL, network TEXT NOT NULL, wrapping BLOB NOT NULL, authentication BLOB NOT NULL) STRICT;
                 CREATE TABLE batch (branch INTEGER NOT NULL, first INTEGER NOT NULL, body BLOB NOT NULL, code BLOB NOT NULL,
                                     PRIMARY KEY (branch, first)) STRICT;",
            )
            .map_err(failed)?;
        transaction
            .execute("INSERT INTO pool VALUES (?1, ?2, ?3, ?4)", params![wallet, network.to_string(), ids.wrapping, ids.authentication])
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        sync_folder_of(&path)
    }

    /// Opens a wallet's pool. None: there is no file.
    pub(super) fn open(state: &Path, wallet: &str, network: Network) -> Result<Option<(Self, PoolIds)>, KeystoreError> {
        let path = path(state, wallet);
        if !path.exists() {
            return Ok(None);
        }
        let database = connect(&path)?;
        let row = database
            .query_row("SELECT wallet, network, wrapping, authentication FROM pool", [], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, PoolIds { wrapping: row.get(2)?, authentication: row.get(3)? }))
            })
            .optional()
            .map_err(|error| storage(&path, &error))?;
        let Some((stored_wallet, stored_network, ids)) = row else {
            return Err(KeystoreError::Storage { path, reason: "holds no pool".into() });
        };
        let network = network.to_string();
        if stored_wallet != wallet || stored_network != network {
            return Err(KeystoreError::KeyMismatch {
                wallet: wallet.into(),
                reason: format!("{} is for wallet `{stored_wallet}` on {stored_network}, not for `{wallet}` on {network}", path.display()),
            });
        }
        Ok(Some((Self { path, database, wallet: wallet.into(), network }, ids)))
    }

    /// The batches of a branch from an index on, in order and without gaps, unverified.
    pub(super) fn batches(&self, branch: u32, from: u32) -> Result<Vec<StoredBatch>, KeystoreError> {
        let failed = |error: rusqlite::Error| storage(&self.path, &error);
        let mut query = self
            .database
            .prepare_cached("SELECT body, code FROM batch WHERE branch = ?1 AND first >= ?2 ORDER BY first")
            .map_err(failed)?;
        let rows =
            query.query_map(params![branch, from], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))).map_err(failed)?;
        let mut batches = Vec::new();
        let mut next = from;
        for row in rows {
            let (body, code) = row.map_err(failed)?;
            let batch: Batch = canonical::from_slice(&body).map_err(|error| self.damaged(&error.to_string()))?;
            let whose = batch.wallet == self.wallet && batch.network == self.network && batch.branch == branch;
            if !whose || batch.first != next || batch.keys.iter().any(|key| key.wrapped.len() > WRAPPED_MAX) {
                return Err(self.damaged(&format!("the batch at index {next} of branch {branch} is another one or missing")));
            }
            let count = u32::try_from(batch.keys.len()).unwrap_or(u32::MAX);
            next = next.checked_add(count).ok_or_else(|| self.damaged("too many keys"))?;
            batches.push(StoredBatch { batch, code });
        }
        Ok(batches)
    }

    /// Branches that have keys.
    pub(super) fn branches(&self) -> Result<Vec<u32>, KeystoreError> {
        let failed = |error: rusqlite::Error| storage(&self.path, &error);
        let mut query = self.database.prepare_cached("SELECT DISTINCT branch FROM batch ORDER BY branch").map_err(failed)?;
        let rows = query.query_map([], |row| row.get(0)).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    /// Appends a batch; it is on disk when this returns. False, and nothing is written: another process appended there first.
    pub(super) fn append(&mut self, batch: &Batch, code: &[u8]) -> Result<bool, KeystoreError> {
        let failed = |error: rusqlite::Error| storage(&self.path, &error);
        let transaction = self.database.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let row = params![batch.branch, batch.first, canonical::to_vec(batch), code];
        match transaction.execute("INSERT INTO batch VALUES (?1, ?2, ?3, ?4)", row) {
            Ok(_) => transaction.commit().map_err(failed).map(|()| true),
            Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::ConstraintViolation => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// A new batch of this pool.
    pub(super) fn batch(&self, branch: u32, first: u32, keys: Vec<PoolKey>) -> Batch {
        Batch { wallet: self.wallet.clone(), network: self.network.clone(), branch, first, keys }
    }

    /// What does not add up in this file.
    pub(super) fn damaged(&self, reason: &str) -> KeystoreError {
        KeystoreError::KeyMismatch {
            wallet: self.wallet.clone(),
            reason: format!("{} was changed or is damaged: {reason}", self.path.display()),
        }
    }
}

/// One file, no WAL beside it: written rarely, and easy to back up. `EXTRA` syncs the folder as well.
fn connect(path: &Path) -> Result<Connection, KeystoreError> {
    let failed = |error: rusqlite::Error| storage(path, &error);
    let database =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    database.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
    database.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA synchronous = EXTRA; PRAGMA trusted_schema = OFF;").map_err(failed)?;
    let synchronous: i64 = database.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(failed)?;
    if synchronous != 3 {
        return Err(KeystoreError::Storage { path: path.into(), reason: "SQLite does not sync".into() });
    }
    Ok(database)
}
