//! A ledger of an older format. The journal is for ever; what follows from it is derived anew, in one transaction.

use rusqlite::Connection;

use super::{LedgerError, state::State, tables, verify::follow};

/// Format 1: without re-bases. A wallet that was configured at the very start that burnt something was not burnt itself.
pub(super) const OLDEST: i64 = 1;
/// Format 2: re-bases, and the challenge of the last one in the state.
pub(super) const NEWEST: i64 = 2;

/// Brings the file to the newest format. A crash leaves the old one.
pub(super) fn upgrade(db: &Connection, from: i64) -> Result<(), LedgerError> {
    let transaction = db.unchecked_transaction()?;
    for (table, _) in tables::DERIVED {
        transaction.execute(&format!("DELETE FROM {table}"), [])?;
    }
    let mut state = State::default();
    follow(&transaction, |seq, entry| {
        tables::derive(&transaction, seq, entry)?;
        state.apply(entry);
        Ok(())
    })?;
    tables::store(&transaction, &state, None)?;
    transaction.pragma_update(None, "user_version", NEWEST)?;
    transaction.commit()?;
    log::warn!("the ledger was of format {from} and now is of format {NEWEST}; older programs do not read it any more");
    Ok(())
}
