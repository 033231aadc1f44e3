//! The tables that are derived from the journal: charges, families, serials, and the small state. One place writes them, for the
//! running signer and for `verify`.

use bitcoin::{OutPoint, hashes::Hash as _};
use minicbor::{Decode, Encode};
use postern_protocol::{canonical, command::Rate};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    LedgerError,
    entry::{ChargeEntry, Entry, FamilyEntry, RebaseEntry, to_bytes},
    recent::{ChargeRow, Coin, FamilyRow, Recent},
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

/// Up to which entry everything but `journal` and `commands` goes.
pub(super) const INDEXED_SCHEMA: &str = "
CREATE TABLE indexed (id INTEGER PRIMARY KEY CHECK (id = 0), seq INTEGER NOT NULL) STRICT;
INSERT INTO indexed VALUES (0, 0);
";

/// Entries of which the journal alone may be in the file. A start reads them again.
pub(super) const FOLD_AFTER: u64 = 1024;

/// Up to which entry the tables in the file go.
pub(super) fn indexed(db: &Connection) -> Result<u64, LedgerError> {
    Ok(number(db.query_row("SELECT seq FROM indexed", [], |row| row.get(0))?))
}

/// Writes all that follows from the journal's entries up to `seq`, which is the last of those that `recent` and `state` know.
pub(super) fn fold(db: &Connection, seq: u64, recent: &mut Recent, state: &State) -> Result<(), LedgerError> {
    recent.write(db)?;
    store(db, state)?;
    db.prepare_cached("UPDATE indexed SET seq = ?1")?.execute(params![sql(seq)])?;
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

/// What an entry changes in the large tables. A used serial is in the file at once.
pub(super) fn derive(db: &Connection, recent: &mut Recent, seq: u64, entry: &Entry) -> Result<(), LedgerError> {
    if let Entry::Commanded(serial, ..) | Entry::Rebased(RebaseEntry { serial, .. }) = entry {
        db.prepare_cached("INSERT INTO commands VALUES (?1, ?2)")?.execute(params![serial.to_be_bytes(), sql(seq)])?;
    }
    recent.derive(db, seq, entry)
}

/// The same for many entries: no more wait in memory than for a running ledger.
pub(super) fn derive_in_file(db: &Connection, recent: &mut Recent, seq: u64, entry: &Entry) -> Result<(), LedgerError> {
    derive(db, recent, seq, entry)?;
    if seq.is_multiple_of(FOLD_AFTER) { recent.write(db) } else { Ok(()) }
}

/// Who was charged for a transaction.
fn charges(db: &Connection, recent: &Recent, txid: &[u8; 32]) -> Result<Vec<ChargeRow>, LedgerError> {
    let mut found = recent.charges(txid).to_vec();
    let mut statement = db.prepare_cached("SELECT wallet, charge, outflow_sat FROM charges WHERE txid = ?1")?;
    let mut rows = statement.query(params![txid])?;
    while let Some(row) = rows.next()? {
        let row = ChargeRow { wallet: row.get(0)?, charge: number(row.get(1)?), outflow_sat: number(row.get(2)?) };
        if found.iter().all(|newer| newer.wallet != row.wallet) {
            found.push(row);
        }
    }
    Ok(found)
}

/// The families of a wallet's outpoint, as the file knows them: the largest first, and so many at most.
fn families_in_file(db: &Connection, coin: &Coin, wallet: &str, most: usize) -> Result<Vec<FamilyRow>, LedgerError> {
    let mut statement = db.prepare_cached(
        "SELECT founder, charge_sat, members, leader FROM families WHERE outpoint = ?1 AND wallet = ?2
         ORDER BY charge_sat DESC, founder LIMIT ?3",
    )?;
    let rows = statement.query_map(params![coin, wallet, i64::try_from(most).unwrap_or(i64::MAX)], |row| family(row, wallet))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One of them, however many there are.
pub(super) fn family_in_file(db: &Connection, coin: &Coin, wallet: &str, founder: u64) -> Result<Option<FamilyRow>, LedgerError> {
    let mut statement = db
        .prepare_cached("SELECT founder, charge_sat, members, leader FROM families WHERE outpoint = ?1 AND wallet = ?2 AND founder = ?3")?;
    Ok(statement.query_row(params![coin, wallet, sql(founder)], |row| family(row, wallet)).optional()?)
}

fn family(row: &Row<'_>, wallet: &str) -> rusqlite::Result<FamilyRow> {
    Ok(FamilyRow {
        wallet: wallet.to_owned(),
        founder: number(row.get(0)?),
        charge_sat: number(row.get(1)?),
        members: number(row.get(2)?),
        leader: number(row.get(3)?),
    })
}

/// What the ledger knows of earlier transactions that spend what this one spends.
pub(super) fn kin(db: &Connection, recent: &Recent, plan: &SpendPlan) -> Result<Kin, LedgerError> {
    let mut kin = Kin::default();
    let txid = plan.unsigned_txid().to_byte_array();
    for same in charges(db, recent, &txid)? {
        if same.wallet == plan.wallet() {
            kin.repeat = Some(Repeat { charge: same.charge, outflow_sat: same.outflow_sat });
        } else {
            kin.shared = true;
        }
    }
    if let Some(repeat) = &kin.repeat {
        let noted = charge(db, repeat.charge)?;
        let same = noted.txid == txid && noted.wallet == plan.wallet();
        believe(same && noted.outflow_sat == repeat.outflow_sat, repeat.charge)?;
    }
    if kin.repeat.is_some() || kin.shared {
        return Ok(kin);
    }
    let mut found: Vec<(OutPoint, FamilyRow)> = Vec::new();
    for input in plan.inputs() {
        let coin = to_bytes(&input.outpoint);
        let newer: Vec<&FamilyRow> = recent.families(&coin).iter().filter(|family| family.wallet == plan.wallet()).collect();
        // No more of the file's are hidden by newer ones than there are newer ones.
        let older = families_in_file(db, &coin, plan.wallet(), newer.len().saturating_add(FAMILIES_MAX))?.into_iter();
        let older = older.filter(|family| newer.iter().all(|n| n.founder != family.founder)).take(FAMILIES_MAX);
        found.extend(older.map(|family| (input.outpoint, family)));
        found.extend(newer.into_iter().map(|family| (input.outpoint, family.clone())));
    }
    // Alike wherever the rows are: the largest first, then in the order of the inputs, then the oldest.
    let place = |coin: &OutPoint| plan.inputs().iter().position(|input| input.outpoint == *coin);
    found.sort_by_cached_key(|(coin, family)| (std::cmp::Reverse(family.charge_sat), place(coin), family.founder));
    found.truncate(FAMILIES_MAX);
    for (coin, row) in found {
        let noted = charge(db, row.leader)?;
        let (FamilyEntry::Founds(input) | FamilyEntry::Joins(_, input)) = noted.family;
        let same = noted.wallet == plan.wallet() && noted.outpoint(input) == Some(to_bytes(&coin));
        believe(same && noted.outflow_sat == row.charge_sat, row.leader)?;
        kin.families.push(Family {
            founder: row.founder,
            outpoint: coin,
            charge_sat: row.charge_sat,
            members: row.members,
            leader_spends: noted.outpoints().collect(),
        });
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
pub(super) fn signatures(db: &Connection, recent: &Recent, charge: u64) -> Result<Option<u64>, LedgerError> {
    if let Some(entry) = recent.signatures(charge) {
        return Ok(Some(entry));
    }
    let mut statement = db.prepare_cached("SELECT entry FROM signatures WHERE charge = ?1")?;
    Ok(statement.query_row(params![sql(charge)], |row| row.get(0)).optional()?.map(number))
}

/// Whether a command's serial was used.
pub(super) fn is_used(db: &Connection, serial: u64) -> Result<bool, LedgerError> {
    let mut statement = db.prepare_cached("SELECT 1 FROM commands WHERE serial = ?1")?;
    Ok(statement.exists(params![serial.to_be_bytes()])?)
}

/// Writes the small state: the signer's row, and those of all wallets.
pub(super) fn store(db: &Connection, state: &State) -> Result<(), LedgerError> {
    let mut insert = db.prepare_cached("INSERT OR REPLACE INTO scopes VALUES (?1, ?2)")?;
    // A wallet cannot be named "": configuration refuses it.
    insert.execute(params!["", canonical::to_vec(&ScopeRow::new(&state.scopes.signer, Vec::new()))])?;
    for (name, held) in &state.scopes.wallets {
        let used = state.last_used.get(name).into_iter().flatten().map(|(branch, index)| (*branch, *index)).collect();
        insert.execute(params![name, canonical::to_vec(&ScopeRow::new(held, used))])?;
    }
    db.prepare_cached("INSERT OR REPLACE INTO state VALUES (0, ?1)")?.execute(params![canonical::to_vec(&StateRow::new(state))])?;
    Ok(())
}

/// Reads the small state, as it was at the entry that [`indexed`] names.
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
