//! The tables that are derived from the journal: charges, families, serials, and the small state. One place writes them, for the
//! running signer and for `verify`.

use std::collections::BTreeSet;

use bitcoin::hashes::Hash as _;
use minicbor::{Decode, Encode};
use postern_protocol::{canonical, command::Rate};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    LedgerError,
    entry::{ChargeEntry, Entry, FamilyEntry, to_bytes},
    state::State,
};
use crate::{
    analysis::SpendPlan,
    policy::{
        Bucket, FAMILIES_MAX, Family, Kin, Repeat, ScopeState, Scopes,
        rules::{Limits, Raise},
    },
};

/// The journal can only grow.
pub(super) const SCHEMA: &str = "
CREATE TABLE journal (seq INTEGER PRIMARY KEY, prev_hash BLOB NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE TRIGGER journal_is_never_changed BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is never changed'); END;
CREATE TRIGGER journal_is_never_cut BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is never cut'); END;
CREATE TABLE charges (txid BLOB NOT NULL, wallet TEXT NOT NULL, charge INTEGER NOT NULL, outflow_sat INTEGER NOT NULL,
    PRIMARY KEY (txid, wallet)) STRICT, WITHOUT ROWID;
CREATE TABLE families (outpoint BLOB NOT NULL, wallet TEXT NOT NULL, founder INTEGER NOT NULL, charge_sat INTEGER NOT NULL,
    members INTEGER NOT NULL, leader INTEGER NOT NULL, PRIMARY KEY (outpoint, wallet, founder)) STRICT, WITHOUT ROWID;
CREATE TABLE signatures (charge INTEGER PRIMARY KEY, entry INTEGER NOT NULL) STRICT;
CREATE TABLE commands (serial BLOB PRIMARY KEY, entry INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE scopes (wallet TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 0), body BLOB NOT NULL) STRICT;
";

/// Up to which entry the tables in the file go. Since format 3.
pub(super) const INDEXED_SCHEMA: &str = "
CREATE TABLE indexed (id INTEGER PRIMARY KEY CHECK (id = 0), seq INTEGER NOT NULL) STRICT;
INSERT INTO indexed VALUES (0, 0);
";

/// The rows of the last entries, in memory, of the connection that writes. Each is found by a hash, so in the file it would take a
/// page of its own: they are written there many at a time.
const RECENT: &str = "
ATTACH ':memory:' AS recent;
CREATE TABLE recent.charges (txid BLOB NOT NULL, wallet TEXT NOT NULL, charge INTEGER NOT NULL, outflow_sat INTEGER NOT NULL,
    PRIMARY KEY (txid, wallet)) STRICT, WITHOUT ROWID;
CREATE TABLE recent.families (outpoint BLOB NOT NULL, wallet TEXT NOT NULL, founder INTEGER NOT NULL, charge_sat INTEGER NOT NULL,
    members INTEGER NOT NULL, leader INTEGER NOT NULL, PRIMARY KEY (outpoint, wallet, founder)) STRICT, WITHOUT ROWID;
CREATE TABLE recent.signatures (charge INTEGER PRIMARY KEY, entry INTEGER NOT NULL) STRICT;
";

/// The tables whose rows wait in `recent`.
const INDEXED: [&str; 3] = ["charges", "families", "signatures"];

/// Entries whose rows may wait in memory. A start reads them again.
pub(super) const FOLD_AFTER: u64 = 1024;

/// Sets up `recent`; before anything is derived.
pub(super) fn attach_recent(db: &Connection) -> Result<(), LedgerError> {
    db.execute_batch(RECENT)?;
    Ok(())
}

/// Up to which entry the tables in the file go.
pub(super) fn indexed(db: &Connection) -> Result<u64, LedgerError> {
    Ok(number(db.query_row("SELECT seq FROM main.indexed", [], |row| row.get(0))?))
}

/// Writes the rows that wait into the file's tables, which then go up to entry `seq`.
pub(super) fn fold(db: &Connection, seq: u64) -> Result<(), LedgerError> {
    for table in INDEXED {
        db.prepare_cached(&format!("INSERT OR REPLACE INTO main.{table} SELECT * FROM recent.{table}"))?.execute([])?;
        db.prepare_cached(&format!("DELETE FROM recent.{table}"))?.execute([])?;
    }
    db.prepare_cached("UPDATE main.indexed SET seq = ?1")?.execute(params![sql(seq)])?;
    Ok(())
}

/// The derived tables, each with the columns that `verify` compares, in the order of the primary key.
pub(super) const DERIVED: &[(&str, &str)] = &[
    ("charges", "SELECT txid, wallet, charge, outflow_sat FROM charges ORDER BY txid, wallet"),
    ("families", "SELECT outpoint, wallet, founder, charge_sat, members, leader FROM families ORDER BY outpoint, wallet, founder"),
    ("signatures", "SELECT charge, entry FROM signatures ORDER BY charge"),
    ("commands", "SELECT serial, entry FROM commands ORDER BY serial"),
    ("scopes", "SELECT wallet, body FROM scopes ORDER BY wallet"),
    ("state", "SELECT id, body FROM state ORDER BY id"),
];

/// SQLite's integers are signed.
pub(super) fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(sql: i64) -> u64 {
    u64::try_from(sql).unwrap_or(0)
}

/// Writes what an entry changes in the large tables.
pub(super) fn derive(db: &Connection, seq: u64, entry: &Entry) -> Result<(), LedgerError> {
    match entry {
        Entry::Charged(_) | Entry::Signed(..) => derive_recent(db, seq, entry),
        Entry::Commanded(serial, ..) => {
            db.prepare_cached("INSERT INTO commands VALUES (?1, ?2)")?.execute(params![serial.to_be_bytes(), sql(seq)])?;
            Ok(())
        }
        Entry::Rebased(rebase) => {
            db.prepare_cached("INSERT INTO commands VALUES (?1, ?2)")?.execute(params![rebase.serial.to_be_bytes(), sql(seq)])?;
            Ok(())
        }
        Entry::Created(_) | Entry::Started(_) | Entry::Stopped(_) | Entry::Locked(..) => Ok(()),
    }
}

/// The same for many entries: no more wait in memory than for a running ledger.
pub(super) fn derive_in_file(db: &Connection, seq: u64, entry: &Entry) -> Result<(), LedgerError> {
    derive(db, seq, entry)?;
    if seq.is_multiple_of(FOLD_AFTER) { fold(db, seq) } else { Ok(()) }
}

/// The part of it that waits in memory.
pub(super) fn derive_recent(db: &Connection, seq: u64, entry: &Entry) -> Result<(), LedgerError> {
    match entry {
        Entry::Charged(charge) => derive_charge(db, seq, charge),
        Entry::Signed(charge, _) => {
            db.prepare_cached("INSERT INTO recent.signatures VALUES (?1, ?2)")?.execute(params![sql(*charge), sql(seq)])?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn derive_charge(db: &Connection, seq: u64, charge: &ChargeEntry) -> Result<(), LedgerError> {
    let damaged = |what: String| LedgerError::Damaged { seq, what };
    db.prepare_cached("INSERT INTO recent.charges VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET charge = ?3, outflow_sat = ?4")?
        .execute(params![charge.txid, charge.wallet, sql(seq), sql(charge.outflow_sat)])?;
    let (FamilyEntry::Founds(input) | FamilyEntry::Joins(_, input)) = charge.family;
    let outpoint = charge.outpoint(input).ok_or_else(|| damaged("its family's outpoint is not one of its inputs".into()))?;
    let changed = match charge.family {
        FamilyEntry::Founds(_) => db.prepare_cached("INSERT INTO recent.families VALUES (?1, ?2, ?3, ?4, 1, ?3)")?.execute(params![
            outpoint,
            charge.wallet,
            sql(seq),
            sql(charge.outflow_sat)
        ])?,
        FamilyEntry::Joins(founder, _) => {
            db.prepare_cached(
                "INSERT OR IGNORE INTO recent.families SELECT * FROM main.families WHERE outpoint = ?1 AND wallet = ?2 AND founder = ?3",
            )?
            .execute(params![outpoint, charge.wallet, sql(founder)])?;
            db.prepare_cached(
                "UPDATE recent.families
                 SET members = members + 1, leader = iif(?4 > charge_sat, ?5, leader), charge_sat = max(charge_sat, ?4)
                 WHERE outpoint = ?1 AND wallet = ?2 AND founder = ?3",
            )?
            .execute(params![outpoint, charge.wallet, sql(founder), sql(charge.outflow_sat), sql(seq)])?
        }
    };
    if changed == 1 { Ok(()) } else { Err(damaged("it joins a family that there is not".into())) }
}

/// What the ledger knows of earlier transactions that spend what this one spends.
pub(super) fn kin(db: &Connection, plan: &SpendPlan) -> Result<Kin, LedgerError> {
    let mut kin = Kin::default();
    let mut seen: Vec<String> = Vec::new();
    // What is in memory counts, where the file has a row of the same key.
    for same in [
        "SELECT wallet, charge, outflow_sat FROM recent.charges WHERE txid = ?1",
        "SELECT wallet, charge, outflow_sat FROM main.charges WHERE txid = ?1",
    ] {
        let mut same = db.prepare_cached(same)?;
        let mut rows = same.query(params![plan.unsigned_txid().to_byte_array()])?;
        while let Some(row) = rows.next()? {
            let wallet: String = row.get(0)?;
            if seen.contains(&wallet) {
                continue;
            }
            if wallet == plan.wallet() {
                kin.repeat = Some(Repeat { charge: number(row.get(1)?), outflow_sat: number(row.get(2)?) });
            } else {
                kin.shared = true;
            }
            seen.push(wallet);
        }
    }
    if let Some(repeat) = &kin.repeat {
        let noted = charge(db, repeat.charge)?;
        let same = noted.txid == plan.unsigned_txid().to_byte_array() && noted.wallet == plan.wallet();
        believe(same && noted.outflow_sat == repeat.outflow_sat, repeat.charge)?;
    }
    if kin.repeat.is_some() || kin.shared {
        return Ok(kin);
    }
    let mut found: Vec<(Family, u64)> = Vec::new();
    for families in [
        "SELECT founder, charge_sat, members, leader FROM recent.families WHERE outpoint = ?1 AND wallet = ?2
         ORDER BY charge_sat DESC, founder",
        "SELECT founder, charge_sat, members, leader FROM main.families m WHERE outpoint = ?1 AND wallet = ?2
         AND NOT EXISTS (SELECT 1 FROM recent.families r WHERE r.outpoint = ?1 AND r.wallet = ?2 AND r.founder = m.founder)
         ORDER BY charge_sat DESC, founder",
    ] {
        let mut families = db.prepare_cached(families)?;
        for input in plan.inputs() {
            let mut rows = families.query(params![to_bytes(&input.outpoint), plan.wallet()])?;
            for _ in 0..FAMILIES_MAX {
                let Some(row) = rows.next()? else { break };
                let family = Family {
                    founder: number(row.get(0)?),
                    outpoint: input.outpoint,
                    charge_sat: number(row.get(1)?),
                    members: number(row.get(2)?),
                    leader_spends: Vec::new(),
                };
                found.push((family, number(row.get(3)?)));
            }
        }
    }
    // Alike wherever the rows are: the largest first, then in the order of the inputs, then the oldest.
    let place = |family: &Family| plan.inputs().iter().position(|input| input.outpoint == family.outpoint);
    found.sort_by_cached_key(|(family, _)| (std::cmp::Reverse(family.charge_sat), place(family), family.founder));
    found.truncate(FAMILIES_MAX);
    for (mut family, leader) in found {
        let noted = charge(db, leader)?;
        let (FamilyEntry::Founds(input) | FamilyEntry::Joins(_, input)) = noted.family;
        let same = noted.wallet == plan.wallet() && noted.outpoint(input) == Some(&to_bytes(&family.outpoint)[..]);
        believe(same && noted.outflow_sat == family.charge_sat, leader)?;
        family.leader_spends = noted.outpoints().collect();
        kin.families.push(family);
    }
    Ok(kin)
}

/// A row is believed when the journal's entry that it points at says the same.
fn believe(same: bool, seq: u64) -> Result<(), LedgerError> {
    if same { Ok(()) } else { Err(LedgerError::Damaged { seq, what: "a row about it says something else".into() }) }
}

/// A charge from the journal.
fn charge(db: &Connection, seq: u64) -> Result<ChargeEntry, LedgerError> {
    match entry(db, seq)? {
        Some(Entry::Charged(charge)) => Ok(charge),
        _ => Err(LedgerError::Damaged { seq, what: "it should be a charge".into() }),
    }
}

/// An entry from the journal.
pub(super) fn entry(db: &Connection, seq: u64) -> Result<Option<Entry>, LedgerError> {
    let mut statement = db.prepare_cached("SELECT body FROM journal WHERE seq = ?1")?;
    let mut rows = statement.query(params![sql(seq)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    decode(seq, row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?).map(Some)
}

/// An entry from its body.
pub(super) fn decode(seq: u64, body: &[u8]) -> Result<Entry, LedgerError> {
    canonical::from_slice(body).map_err(|e| LedgerError::Damaged { seq, what: e.to_string() })
}

/// The number of the entry that holds a charge's signatures.
pub(super) fn signatures(db: &Connection, charge: u64) -> Result<Option<u64>, LedgerError> {
    for table in ["SELECT entry FROM recent.signatures WHERE charge = ?1", "SELECT entry FROM main.signatures WHERE charge = ?1"] {
        if let Some(entry) = db.prepare_cached(table)?.query_row(params![sql(charge)], |row| row.get(0)).optional()? {
            return Ok(Some(number(entry)));
        }
    }
    Ok(None)
}

/// Whether a command's serial was used.
pub(super) fn is_used(db: &Connection, serial: u64) -> Result<bool, LedgerError> {
    let mut statement = db.prepare_cached("SELECT 1 FROM commands WHERE serial = ?1")?;
    Ok(statement.exists(params![serial.to_be_bytes()])?)
}

/// Writes the small state: the signer's row, and those of `wallets` (None: of all).
pub(super) fn store(db: &Connection, state: &State, wallets: Option<&BTreeSet<String>>) -> Result<(), LedgerError> {
    let mut insert = db.prepare_cached("INSERT OR REPLACE INTO scopes VALUES (?1, ?2)")?;
    // A wallet cannot be named "": configuration refuses it.
    insert.execute(params!["", canonical::to_vec(&ScopeRow::new(&state.scopes.signer, Vec::new()))])?;
    for (name, held) in state.scopes.wallets.iter().filter(|(name, _)| wallets.is_none_or(|w| w.contains(*name))) {
        let used = state.last_used.get(name).into_iter().flatten().map(|(branch, index)| (*branch, *index)).collect();
        insert.execute(params![name, canonical::to_vec(&ScopeRow::new(held, used))])?;
    }
    db.prepare_cached("INSERT OR REPLACE INTO state VALUES (0, ?1)")?.execute(params![canonical::to_vec(&StateRow::new(state))])?;
    Ok(())
}

/// Reads the small state.
pub(super) fn load(db: &Connection) -> Result<State, LedgerError> {
    let damaged = |e: canonical::CanonicalError| LedgerError::Damaged { seq: 0, what: format!("the stored state: {e}") };
    let body: Vec<u8> = db.query_row("SELECT body FROM state", [], |row| row.get(0))?;
    let row: StateRow = canonical::from_slice(&body).map_err(damaged)?;
    let mut state = State {
        identity: row.identity,
        fresh: row.fresh,
        anchored: row.anchored,
        charged_sat: row.charged_sat,
        transactions: row.transactions,
        commands: row.commands,
        base: row.base,
        scopes: Scopes { raise: if row.raise_by_command { Raise::Command } else { Raise::Config }, ..Scopes::default() },
        ..State::default()
    };
    let mut statement = db.prepare("SELECT wallet, body FROM scopes")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let scope: ScopeRow = canonical::from_slice(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?).map_err(damaged)?;
        if name.is_empty() {
            state.scopes.signer = scope.into_state();
        } else {
            if !scope.last_used.is_empty() {
                state.last_used.insert(name.clone(), scope.last_used.iter().copied().collect());
            }
            state.scopes.wallets.insert(name, scope.into_state());
        }
    }
    Ok(state)
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct StateRow {
    #[cbor(n(0), with = "minicbor::bytes")]
    identity: [u8; 16],
    #[n(1)]
    fresh: bool,
    #[n(2)]
    anchored: Option<String>,
    #[n(3)]
    charged_sat: u64,
    #[n(4)]
    transactions: u64,
    #[n(5)]
    commands: u64,
    #[n(6)]
    raise_by_command: bool,
    #[cbor(n(7), with = "minicbor::bytes")]
    base: Option<[u8; 16]>,
}

impl StateRow {
    fn new(state: &State) -> Self {
        Self {
            identity: state.identity,
            fresh: state.fresh,
            anchored: state.anchored.clone(),
            charged_sat: state.charged_sat,
            transactions: state.transactions,
            commands: state.commands,
            raise_by_command: state.scopes.raise == Raise::Command,
            base: state.base,
        }
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ScopeRow {
    #[n(0)]
    accepted_rates: Vec<Rate>,
    #[n(1)]
    accepted_total_sat: Option<u64>,
    /// Rate, deficit in whole satoshi, rest of the deficit in satoshi / per_ms.
    #[n(2)]
    buckets: Vec<(Rate, u64, u64)>,
    #[n(3)]
    at_ms: u64,
    #[n(4)]
    used_sat: u64,
    #[n(5)]
    allowance_sat: Option<u64>,
    #[n(6)]
    frozen: Option<String>,
    #[n(7)]
    locked: Option<String>,
    #[n(8)]
    last_used: Vec<(u32, u32)>,
}

impl ScopeRow {
    fn new(held: &ScopeState, last_used: Vec<(u32, u32)>) -> Self {
        let bucket = |b: &Bucket| {
            let (sat, rest) = b.deficit();
            (b.rate(), sat, rest)
        };
        Self {
            accepted_rates: held.accepted.rates.clone(),
            accepted_total_sat: held.accepted.total_sat,
            buckets: held.buckets.iter().map(bucket).collect(),
            at_ms: held.at_ms,
            used_sat: held.used_sat,
            allowance_sat: held.allowance_sat,
            frozen: held.frozen.clone(),
            locked: held.locked.clone(),
            last_used,
        }
    }

    fn into_state(self) -> ScopeState {
        ScopeState {
            accepted: Limits { rates: self.accepted_rates, total_sat: self.accepted_total_sat },
            buckets: self.buckets.into_iter().map(|(rate, sat, rest)| Bucket::with_deficit(rate, sat, rest)).collect(),
            at_ms: self.at_ms,
            used_sat: self.used_sat,
            allowance_sat: self.allowance_sat,
            frozen: self.frozen,
            locked: self.locked,
        }
    }
}
