//! State folders of older programs, kept as SQL in `fixtures/`. Whoever changes the format adds the one before here.

use std::path::Path;

use postern_protocol::{
    command::{Action, Scope},
    refusal::RefusalCode,
};
use postern_signer::{
    clock::Uptime,
    ledger::{Ledger, LedgerError, show, verify},
};
use rusqlite::Connection;

use crate::{
    day::{Label, TOTAL_SAT, options},
    plans::{Plans, command},
    power::folder,
};

const V1: &str = include_str!("fixtures/v1.sql");
const V1_ANCHOR: &str = "postern1:a8fa399f66eacca9e9d9a927f2c5ce5e:25110:3:e67052856b80c80f5622be5337fd23c4:021d1740";

fn write(folder: &Path, sql: &str) -> Connection {
    let db = Connection::open(folder.join("ledger.db")).unwrap();
    db.execute_batch(sql).unwrap();
    db
}

#[test]
fn a_ledger_of_format_1_is_brought_up_to_date_and_forgets_nothing() {
    let folder = folder();
    drop(write(folder.path(), V1));
    assert!(matches!(verify(folder.path()), Err(LedgerError::Older { found: 1, .. })), "reading changes nothing");
    let label = Label::holding(Some(V1_ANCHOR.into()));
    let ledger = Ledger::open(options(folder.path()), label.anchor()).unwrap();
    assert!(ledger.anchor().contains("latest"), "{}", ledger.anchor());
    let (totals, now) = (ledger.totals(), Uptime::from_millis(3_600_000));
    assert_eq!((totals.charged_sat, totals.transactions, totals.commands), (25_110, 20, 3));
    assert_eq!(ledger.levels(Uptime::default())[1].available_sat, TOTAL_SAT + 5_000 - 25_110);
    // The day's first charge and its fee bump; its commands; a signature that was kept.
    let plans = Plans::new();
    assert!(ledger.charge(plans.plan(0, 1_000, 0), now).unwrap().is_repeat());
    assert_eq!(ledger.charge(plans.plan(6, 1_106, 1), now).unwrap().increase_sat(), 0);
    assert_eq!(ledger.charge(plans.plan(6, 1_116, 2), now).unwrap().increase_sat(), 10);
    assert!(ledger.charge(plans.plan(1, 1_001, 0), now).unwrap().signatures().is_some());
    let used = ledger.apply(command(13, Action::AddTotal(Scope::Signer, 5_000)), now).unwrap_err();
    assert_eq!(used.code, RefusalCode::CommandSerialUsed);
    ledger.stop(now).unwrap();
    verify(folder.path()).unwrap();
    assert!(Ledger::open(options(folder.path()), label.anchor()).unwrap().anchor().contains("latest"));
    let mut entries = 0;
    show(folder.path(), 0, |_| {
        entries += 1;
        true
    })
    .unwrap();
    assert!(entries > 38, "the journal goes on: {entries}");
}

#[test]
fn a_damaged_ledger_of_an_older_format_is_not_made_to_look_sound() {
    let folder = folder();
    let db = write(folder.path(), V1);
    db.execute_batch("DROP TRIGGER journal_is_never_changed; UPDATE journal SET body = X'820300' WHERE seq = 20").unwrap();
    drop(db);
    let label = Label::holding(Some(V1_ANCHOR.into()));
    let error = Ledger::open(options(folder.path()), label.anchor()).unwrap_err();
    assert!(matches!(error, LedgerError::Damaged { seq: 20, .. }), "{error}");
    // Still of format 1, and as it was.
    assert!(matches!(verify(folder.path()), Err(LedgerError::Older { found: 1, .. })));
}

#[test]
fn a_ledger_of_a_newer_program_is_refused_and_left_alone() {
    let folder = folder();
    let db = write(folder.path(), V1);
    for version in [3, 99, 0, -1] {
        db.pragma_update(None, "user_version", version).unwrap();
        let error = Ledger::open(options(folder.path()), Label::holding(None).anchor()).unwrap_err();
        assert!(matches!(error, LedgerError::Schema { found, .. } if found == version), "{error}");
        assert!(verify(folder.path()).is_err());
    }
}

#[test]
fn the_second_process_on_a_state_folder_is_told_who_the_first_is() {
    let folder = folder();
    Ledger::create(folder.path()).unwrap();
    let label = Label::holding(None);
    let _first = Ledger::open(options(folder.path()), label.anchor()).unwrap();
    let error = Ledger::open(options(folder.path()), label.anchor()).unwrap_err();
    assert!(matches!(error, LedgerError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
}
