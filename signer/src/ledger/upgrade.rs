//! A ledger of an older format. The journal is for ever; what follows from it is derived anew, in one transaction.

use rusqlite::Connection;

use super::{LedgerError, recent::Recent, state::State, tables, verify::follow};

/// Format 1: without re-bases. A wallet that was configured at the very start that burnt something was not burnt itself.
pub(super) const OLDEST: i64 = 1;
/// Format 2: re-bases, and the challenge of the last one in the state.
/// Format 3: the rows of the last entries may be missing, and `indexed` says from which one on.
/// Format 4: so may what they change in the sums and limits.
pub(super) const NEWEST: i64 = 4;

/// Brings the file to the newest format. A crash leaves the old one.
pub(super) fn upgrade(db: &Connection, from: i64) -> Result<(), LedgerError> {
    let transaction = db.unchecked_transaction()?;
    for (table, _) in tables::DERIVED {
        transaction.execute(&format!("DELETE FROM {table}"), [])?;
    }
    transaction.execute_batch("DROP TABLE IF EXISTS indexed")?;
    transaction.execute_batch(tables::INDEXED_SCHEMA)?;
    let (mut state, mut recent) = (State::default(), Recent::default());
    let head = follow(&transaction, |seq, entry| {
        state.apply(entry);
        tables::derive_in_file(&transaction, &mut recent, seq, entry)
    })?;
    tables::fold(&transaction, head.seq, &mut recent, &state)?;
    transaction.pragma_update(None, "user_version", NEWEST)?;
    transaction.commit()?;
    log::warn!("the ledger was of format {from} and now is of format {NEWEST}; older programs do not read it any more");
    Ok(())
}
