//! State folders of each format that there was and of the present one, kept as SQL in `fixtures/` (`sqlite3 ledger.db .dump`, with the
//! three pragmas before it). Whoever changes the format adds one of the new.

use std::path::Path;

use postern_protocol::{
    command::{Action, Scope},
    refusal::RefusalCode,
};
use postern_signer::{
    clock::Uptime,
    ledger::{Ledger, LedgerError, VerifiedCommand, show, verify},
};
use rusqlite::Connection;

use crate::{
    day::{Label, TOTAL_SAT, options},
    plans::{Plans, command},
    power::folder,
};

const V1: &str = include_str!("fixtures/v1.sql");
const V1_ANCHOR: &str = "postern1:a8fa399f66eacca9e9d9a927f2c5ce5e:25110:3:e67052856b80c80f5622be5337fd23c4:021d1740";

const V2: &str = include_str!("fixtures/v2.sql");
const V2_ANCHOR: &str = "postern1:b02d0d8dd24d40d0b6fc4c1ed8464eb9:21105:9:c6b3dc9f2625d364ed7978e3f2ff0f10:c231a328";

const V3: &str = include_str!("fixtures/v3.sql");
const V3_ANCHOR: &str = "postern1:259008d98feb1b277fa76e01fd20ada3:12001:0:-:58fd4a0c";

const V4: &str = include_str!("fixtures/v4.sql");
const V4_ANCHOR: &str = "postern1:46ef564d951927ec086cbf497304d220:12001:0:-:117b3008";

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
fn a_ledger_of_format_2_is_brought_up_to_date_and_forgets_nothing() {
    let folder = folder();
    drop(write(folder.path(), V2));
    let label = Label::holding(Some(V2_ANCHOR.into()));
    let ledger = Ledger::open(options(folder.path()), label.anchor()).unwrap();
    assert!(ledger.anchor().contains("latest"), "{}", ledger.anchor());
    let (totals, now) = (ledger.totals(), Uptime::from_millis(36_000_000));
    assert_eq!((totals.charged_sat, totals.transactions, totals.commands), (21_105, 7, 9));
    // The rate of command 20, as full as it was; the total with what command 13 added to it, less what the re-base counts and since.
    let levels = ledger.levels(Uptime::default());
    assert_eq!((levels[0].capacity_sat, levels[0].available_sat), (2_500_000, 178_061));
    assert_eq!(levels[1].available_sat, TOTAL_SAT + 5_000 - 21_105);
    assert!(ledger.frozen().is_empty(), "{:?}", ledger.frozen());
    // From before the re-base and from after it: charges, fee bumps, signatures that were kept.
    let plans = Plans::new();
    for (coin, outflow_sat, salt, kept) in [(0, 1_000, 0, false), (1, 1_001, 0, true), (3, 1_103, 1, false), (5, 1_005, 0, true)] {
        let charged = ledger.charge(plans.plan(coin, outflow_sat, salt), now).unwrap();
        assert!(charged.is_repeat() && charged.signatures().is_some() == kept, "coin {coin}");
    }
    assert_eq!(ledger.charge(plans.plan(5, 1_115, 2), now).unwrap().increase_sat(), 10);
    // What the copy that was put back had forgotten is new to it.
    assert_eq!(ledger.charge(plans.plan(4, 1_004, 0), now).unwrap().increase_sat(), 1_004);
    for serial in [13, 16, 17, 18, 19, 20] {
        let used = ledger.apply(command(serial, Action::AddTotal(Scope::Signer, 5_000)), now).unwrap_err();
        assert_eq!(used.code, RefusalCode::CommandSerialUsed, "{serial}");
    }
    // Made before the re-base, and forgotten or never given.
    let void = ledger.apply(command(15, Action::AddTotal(Scope::Signer, 5_000)), now).unwrap_err();
    assert_eq!(void.code, RefusalCode::CommandBase);
    let base = ledger.base();
    assert!(base.is_some());
    ledger.apply(VerifiedCommand { base, ..command(21, Action::AddTotal(Scope::Signer, 5_000)) }, now).unwrap();
    ledger.stop(now).unwrap();
    verify(folder.path()).unwrap();
    assert!(Ledger::open(options(folder.path()), label.anchor()).unwrap().anchor().contains("latest"));
}

#[test]
fn a_ledger_of_format_3_or_4_whose_last_rows_are_missing_is_opened_and_forgets_nothing() {
    for (sql, anchor) in [(V3, V3_ANCHOR), (V4, V4_ANCHOR)] {
        let folder = folder();
        drop(write(folder.path(), sql));
        let label = Label::holding(Some(anchor.into()));
        let ledger = Ledger::open(options(folder.path()), label.anchor()).unwrap();
        let plans = Plans::new();
        let now = Uptime::from_millis(36_000_000);
        // Charged before the crash, and what the anchor had leased beyond that.
        assert_eq!((ledger.totals().charged_sat, ledger.totals().transactions), (12_001, 5));
        for (coin, outflow_sat, salt, kept) in [(0, 1_000, 0, true), (6, 900, 0, false), (7, 901, 0, true), (6, 950, 1, false)] {
            let charged = ledger.charge(plans.plan(coin, outflow_sat, salt), now).unwrap();
            assert!(charged.is_repeat() && charged.signatures().is_some() == kept, "coin {coin}");
        }
        assert_eq!(ledger.charge(plans.plan(6, 960, 2), now).unwrap().increase_sat(), 10);
        ledger.stop(now).unwrap();
        verify(folder.path()).unwrap();
    }
}

#[test]
fn the_newest_fixture_is_of_the_format_that_is_written() {
    let folder = folder();
    Ledger::create(folder.path()).unwrap();
    let format = |db: &Connection| db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap();
    let schema = |db: &Connection| {
        let mut all = db.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
        let rows = all.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    let written = Connection::open(folder.path().join("ledger.db")).unwrap();
    let kept = crate::power::folder();
    let kept = write(kept.path(), V4);
    assert_eq!(format(&written), format(&kept), "add a fixture of the new format");
    assert_eq!(schema(&written), schema(&kept), "the tables changed, and the format did not");
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
    for version in [5, 99, 0, -1] {
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
