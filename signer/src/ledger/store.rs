//! The file: opening it durably, appending to the journal, transactions.

use std::path::{Path, PathBuf};

use postern_protocol::canonical;
use rusqlite::{Connection, ErrorCode, OpenFlags, params, types::ValueRef};

use super::{
    Head, LedgerError,
    entry::{Entry, chain},
    lock_file::LockFile,
    recent::Recent,
    state::State,
    tables::{self, sql},
    upgrade::{NEWEST, OLDEST, upgrade},
    verify::{beyond, check_start, recover},
};

/// Name of the file in the state folder.
pub(super) const FILE: &str = "ledger.db";
/// `PRAGMA application_id`: "PSTN".
const APPLICATION: i64 = 0x5053_544e;

/// Pages of the log (16 MiB) before they are folded into the file. The same few pages change with every charge: the longer the log,
/// the fewer times each is copied. Read again after a crash, in a fraction of a second.
const LOG_PAGES: &str = "4096";
/// Pages kept in memory (16 MiB, said in KiB). Every charge looks for random places in two tables.
const CACHE: &str = "-16384";

/// Makes an empty ledger.
pub(super) fn create(folder: &Path) -> Result<(), LedgerError> {
    let _lock = LockFile::take(folder)?;
    let path = folder.join(FILE);
    if path.try_exists()? {
        return Err(LedgerError::Exists(path));
    }
    let mut identity = [0; 16];
    getrandom::fill(&mut identity).map_err(|e| LedgerError::Io(std::io::Error::other(e)))?;
    // Under another name until it is whole, so that a crash leaves no half ledger behind.
    let draft = folder.join("ledger.new");
    for left in ["ledger.new", "ledger.new-wal", "ledger.new-shm"] {
        match std::fs::remove_file(folder.join(left)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    private(&draft)?;
    let db = Connection::open_with_flags(&draft, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    setting(&db, "synchronous", "FULL", "2")?;
    let transaction = db.unchecked_transaction()?;
    transaction.execute_batch(tables::SCHEMA)?;
    transaction.execute_batch(tables::INDEXED_SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", NEWEST)?;
    let mut state = State::default();
    let entry = Entry::Created(identity);
    let head = insert(&transaction, NOTHING, &entry)?;
    state.apply(&entry);
    tables::fold(&transaction, head.seq, &mut Recent::default(), &state)?;
    transaction.commit()?;
    db.close().map_err(|(_, e)| e)?;
    std::fs::rename(&draft, &path)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

/// Makes an empty file that only this user can read, before SQLite writes anything into it.
fn private(path: &Path) -> Result<(), LedgerError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(())
}

/// The head of an empty journal.
pub(super) const NOTHING: Head = Head { seq: 0, hash: [0; 32] };

/// Appends an entry to the journal, and nothing else.
fn insert(db: &Connection, head: Head, entry: &Entry) -> Result<Head, LedgerError> {
    let seq = head.seq.saturating_add(1);
    let body = canonical::to_vec(entry);
    let hash = chain(seq, &head.hash, entry.kind(), &body);
    db.prepare_cached("INSERT INTO journal VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        sql(seq),
        head.hash,
        entry.kind(),
        body,
        hash
    ])?;
    Ok(Head { seq, hash })
}

/// Opens for reading alone, beside a running signer or without one.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, LedgerError> {
    let file = if path.is_dir() { path.join(FILE) } else { path.into() };
    if !file.try_exists()? {
        return Err(LedgerError::Missing(file));
    }
    let db = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    match check_format(&db, &file)? {
        NEWEST => Ok(db),
        found => Err(LedgerError::Older { path: file, found, known: NEWEST }),
    }
}

/// Which format it is of; one that this program can read or bring up to date.
fn check_format(db: &Connection, path: &Path) -> Result<i64, LedgerError> {
    let not = |what: String| LedgerError::NotALedger { path: path.into(), what };
    // The first thing that is read. A disk that fails says nothing about what is on it.
    let application: i64 = db.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(|e| match e.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => not(e.to_string()),
        _ => e.into(),
    })?;
    if application != APPLICATION {
        return Err(not(format!("its application id is {application:#x}")));
    }
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if (OLDEST..=NEWEST).contains(&version) {
        Ok(version)
    } else {
        Err(LedgerError::Schema { path: path.into(), found: version, known: NEWEST })
    }
}

/// Sets a pragma and reads it back.
fn setting(db: &Connection, name: &'static str, value: &'static str, reads: &'static str) -> Result<(), LedgerError> {
    db.pragma_update(None, name, value)?;
    let found = db.pragma_query_value(None, name, |row| match row.get_ref(0)? {
        ValueRef::Text(text) => Ok(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Integer(number) => Ok(number.to_string()),
        other => Ok(other.data_type().to_string()),
    })?;
    if found == reads { Ok(()) } else { Err(LedgerError::NotDurable { setting: name, found, wanted: reads }) }
}

/// The open ledger of this process.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    pub(super) db: Connection,
    pub(super) head: Head,
    pub(super) state: State,
    /// The rows that are not in the file's tables yet.
    pub(super) recent: Recent,
    /// Up to here the tables in the file go.
    indexed: u64,
    _lock: LockFile,
}

impl Store {
    pub(super) fn open(folder: &Path) -> Result<Self, LedgerError> {
        let path = folder.join(FILE);
        if !path.try_exists()? {
            return Err(LedgerError::Missing(path));
        }
        let lock = LockFile::take(folder)?;
        let Opened { db, head, state, recent, indexed } = connect(folder).map_err(LedgerError::name_damage)?;
        check_start(&db, head, &state).map_err(LedgerError::name_damage)?;
        Ok(Self { folder: folder.into(), db, head, state, recent, indexed, _lock: lock })
    }

    /// Throws the connection away and reads everything from the disk again.
    pub(super) fn reopen(&mut self) -> Result<(), LedgerError> {
        // Closed first: what it has begun is in the way of the next one.
        drop(std::mem::replace(&mut self.db, Connection::open_in_memory()?));
        let Opened { db, head, state, recent, indexed } = connect(&self.folder)?;
        (self.db, self.head, self.state, self.recent, self.indexed) = (db, head, state, recent, indexed);
        Ok(())
    }

    pub(super) fn begin(&self) -> Result<(), LedgerError> {
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    pub(super) fn append(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        self.head = insert(&self.db, self.head, entry)?;
        tables::derive(&self.db, &mut self.recent, self.head.seq, entry)?;
        self.state.apply(entry);
        Ok(())
    }

    /// Writes what was appended, synced. On an error the caller calls [`Self::reopen`].
    pub(super) fn commit(&mut self) -> Result<(), LedgerError> {
        if self.head.seq.saturating_sub(self.indexed) >= tables::FOLD_AFTER {
            return self.commit_and_fold();
        }
        self.db.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// The same, with all that follows from the journal. For whatever is rare.
    pub(super) fn commit_and_fold(&mut self) -> Result<(), LedgerError> {
        tables::fold(&self.db, self.head.seq, &mut self.recent, &self.state)?;
        self.db.prepare_cached("COMMIT")?.execute([])?;
        self.indexed = self.head.seq;
        Ok(())
    }

    /// Ends a transaction that wrote nothing.
    pub(super) fn abandon(&self) -> Result<(), LedgerError> {
        self.db.prepare_cached("ROLLBACK")?.execute([])?;
        Ok(())
    }

    /// An entry in a transaction of its own.
    pub(super) fn commit_one(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        self.begin()?;
        self.append(entry)?;
        self.commit_and_fold()
    }
}

/// Writes what the log holds into the database, synced, and empties the log. After a sync that failed, in this process or the one
/// before, the page cache can show entries in the log that are not on the disk and never will be; whatever is appended to
/// those is lost with them.
fn fold_in(db: &Connection) -> Result<(), LedgerError> {
    let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy != 0 {
        log::warn!("the ledger's log is not folded in while another program reads the ledger");
    }
    Ok(())
}

/// What a process knows of its ledger.
struct Opened {
    db: Connection,
    head: Head,
    state: State,
    recent: Recent,
    indexed: u64,
}

fn connect(folder: &Path) -> Result<Opened, LedgerError> {
    let path = folder.join(FILE);
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    let version = check_format(&db, &path)?;
    setting(&db, "journal_mode", "WAL", "wal")?;
    setting(&db, "synchronous", "FULL", "2")?;
    // The sandbox has no folder for temporary files.
    setting(&db, "temp_store", "MEMORY", "2")?;
    setting(&db, "wal_autocheckpoint", LOG_PAGES, LOG_PAGES)?;
    setting(&db, "cache_size", CACHE, CACHE)?;
    db.set_prepared_statement_cache_capacity(48);
    fold_in(&db)?;
    if version != NEWEST {
        upgrade(&db, version)?;
    }
    let (seq, hash) =
        db.query_row("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1", [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))?;
    let head = Head { seq: u64::try_from(seq).unwrap_or(0), hash };
    let indexed = tables::indexed(&db)?;
    if indexed > head.seq {
        return Err(beyond(indexed, head.seq));
    }
    let (mut state, mut recent) = (tables::load(&db)?, Recent::default());
    recover(&db, indexed, &mut state, &mut recent)?;
    Ok(Opened { db, head, state, recent, indexed })
}
