//! The whole ledger computed again from its journal, and compared.

use std::path::Path;

use postern_protocol::canonical;
use rusqlite::{Connection, types::Value};

use super::{
    Head, LedgerError,
    entry::{Entry, Hash, RebaseEntry, chain},
    recent::Recent,
    state::{State, Totals},
    store::{self, NOTHING},
    tables,
};

/// What a sound ledger holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The journal's last entry.
    pub head: Head,
    /// Sums over all time.
    pub totals: Totals,
}

/// One entry, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
    /// What it says.
    pub entry: Entry,
}

/// Computes the hash chain and everything that follows from the journal again, and compares. Reads only; a running signer is not
/// disturbed. `path` is the state folder or the file.
///
/// That the journal is the one that the signer wrote is proven by its head: compare it with the anchor or with a heartbeat.
///
/// # Errors
/// [`LedgerError::Damaged`] names the entry or the row; [`LedgerError`] when the file cannot be read.
pub fn verify(path: &Path) -> Result<Report, LedgerError> {
    let db = store::open_to_read(path)?;
    let _snapshot = db.unchecked_transaction()?;
    check(&db)
}

/// [`verify`] on an open file.
pub(super) fn check(db: &Connection) -> Result<Report, LedgerError> {
    check_pages(db)?;
    // A temporary database on disk, since a ledger may be larger than memory.
    let again = Connection::open("")?;
    again.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF;")?;
    again.execute_batch(tables::SCHEMA)?;
    again.execute_batch(tables::INDEXED_SCHEMA)?;
    again.execute_batch("BEGIN")?;
    let (mut state, mut recent) = (State::default(), Recent::default());
    // What the signer had not written yet is not in the tables here either.
    let indexed = tables::indexed(db)?;
    let head = follow(db, |seq, entry| {
        state.apply(entry);
        if seq < indexed {
            tables::derive_in_file(&again, &mut recent, seq, entry)
        } else {
            tables::derive(&again, &mut recent, seq, entry)?;
            if seq == indexed { tables::fold(&again, seq, &mut recent, &state) } else { Ok(()) }
        }
    })?;
    if indexed > head.seq {
        return Err(beyond(indexed, head.seq));
    }
    for (table, query) in tables::DERIVED {
        compare(db, &again, table, query, head.seq)?;
    }
    Ok(Report { head, totals: state.totals() })
}

/// What a start looks at: every page, the whole chain, the small state, every serial. The rows of single charges are compared with
/// the journal when they are used ([`tables::kin`]), and by [`verify`].
pub(super) fn check_start(db: &Connection, head: Head, state: &State) -> Result<(), LedgerError> {
    check_pages(db)?;
    let mut again = State::default();
    let end = follow(db, |seq, entry| {
        again.apply(entry);
        match entry {
            Entry::Commanded(serial, ..) | Entry::Rebased(RebaseEntry { serial, .. }) if !tables::is_used(db, *serial)? => {
                Err(LedgerError::Damaged { seq, what: format!("its serial {serial} is not among the used ones") })
            }
            _ => Ok(()),
        }
    })?;
    let damaged = |what: &str| Err(LedgerError::Damaged { seq: end.seq, what: what.into() });
    if end != head {
        return damaged("the journal does not end where its last entry is");
    }
    if again != *state {
        return damaged("the stored sums and limits do not follow from the journal");
    }
    Ok(())
}

/// Gives every entry to `each`, in order, and checks the chain. Returns its end.
pub(super) fn follow(db: &Connection, mut each: impl FnMut(u64, &Entry) -> Result<(), LedgerError>) -> Result<Head, LedgerError> {
    let mut head = NOTHING;
    walk(db, 0, |row| {
        let seq = head.seq.saturating_add(1);
        if row.seq != seq {
            return Err(LedgerError::Damaged { seq, what: format!("it is missing; entry {} follows", row.seq) });
        }
        if row.prev_hash != head.hash {
            return Err(LedgerError::Damaged { seq, what: "it does not continue the entry before it".into() });
        }
        let hash = chain(seq, &head.hash, row.entry.kind(), &canonical::to_vec(&row.entry));
        if hash != row.hash || row.kind != row.entry.kind() {
            return Err(LedgerError::Damaged { seq, what: "its hash is not the hash of its content".into() });
        }
        head = Head { seq, hash };
        each(seq, &row.entry)?;
        Ok(true)
    })?;
    Ok(head)
}

/// Gives every entry from number `from` on to `each`, until it says false.
///
/// # Errors
/// [`LedgerError::Damaged`] for an entry that cannot be read; [`LedgerError`] when the file cannot.
pub fn show(path: &Path, from: u64, mut each: impl FnMut(Line) -> bool) -> Result<(), LedgerError> {
    let db = store::open_to_read(path)?;
    walk(&db, from, |row| Ok(each(Line { seq: row.seq, hash: row.hash, entry: row.entry })))
}

struct Row {
    seq: u64,
    prev_hash: Hash,
    kind: String,
    entry: Entry,
    hash: Hash,
}

/// Reads again what waits in memory while a ledger is open: what follows from the entries after `indexed`.
pub(super) fn recover(db: &Connection, indexed: u64, state: &mut State, recent: &mut Recent) -> Result<(), LedgerError> {
    walk(db, indexed.saturating_add(1), |row| {
        state.apply(&row.entry);
        recent.derive(db, row.seq, &row.entry).map(|()| true)
    })
}

/// Tables that know of more than the journal.
pub(super) fn beyond(indexed: u64, last: u64) -> LedgerError {
    LedgerError::Damaged { seq: last, what: format!("the tables go up to entry {indexed}, and this is the last") }
}

fn walk(db: &Connection, from: u64, mut each: impl FnMut(Row) -> Result<bool, LedgerError>) -> Result<(), LedgerError> {
    let mut statement = db.prepare("SELECT seq, prev_hash, kind, body, hash FROM journal WHERE seq >= ?1 ORDER BY seq")?;
    let mut rows = statement.query([tables::sql(from)])?;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        let seq = u64::try_from(seq).map_err(|_| LedgerError::Damaged { seq: 0, what: format!("there is an entry {seq}") })?;
        let damaged = |e: rusqlite::Error| LedgerError::Damaged { seq, what: e.to_string() };
        let body: Vec<u8> = row.get(3).map_err(damaged)?;
        let row = Row {
            seq,
            prev_hash: row.get(1).map_err(damaged)?,
            kind: row.get(2).map_err(damaged)?,
            entry: tables::decode(seq, &body)?,
            hash: row.get(4).map_err(damaged)?,
        };
        if !each(row)? {
            break;
        }
    }
    Ok(())
}

/// SQLite's own check of the file's pages.
fn check_pages(db: &Connection) -> Result<(), LedgerError> {
    let found: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(LedgerError::Damaged { seq: 0, what: found }) }
}

fn compare(db: &Connection, again: &Connection, table: &str, query: &str, seq: u64) -> Result<(), LedgerError> {
    let damaged = |row: u64| LedgerError::Damaged { seq, what: format!("row {row} of table {table} does not follow from the journal") };
    let (mut left, mut right) = (db.prepare(query)?, again.prepare(query)?);
    let columns = left.column_count();
    let (mut left, mut right) = (left.query([])?, right.query([])?);
    let mut number: u64 = 0;
    loop {
        match (left.next()?, right.next()?) {
            (None, None) => return Ok(()),
            (Some(l), Some(r)) => {
                for column in 0..columns {
                    if l.get::<_, Value>(column)? != r.get::<_, Value>(column)? {
                        return Err(damaged(number));
                    }
                }
            }
            _ => return Err(damaged(number)),
        }
        number = number.saturating_add(1);
    }
}
