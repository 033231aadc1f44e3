use rusqlite::{Connection, types::Value};

use super::*;

/// A ledger with an entry of every kind and a row in every table.
fn eventful() -> TempDir {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[rate(1, 1_000, 500)], Some(1_000))));
    let charged = ledger.charge(plan(&[1, 2], 100, 0), at(0)).unwrap();
    ledger.record(&charged, signature(1));
    ledger.charge(plan(&[1, 2], 110, 1), at(5)).unwrap();
    ledger.apply(command(7, Action::AddTotal(Scope::Signer, 50)), at(10)).unwrap();
    ledger.lock(Scope::Wallet("warm".into()), "why", at(11)).unwrap();
    ledger.stop(at(20)).unwrap();
    folder
}

fn kinds(folder: &TempDir) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    show(folder.path(), 0, |line| {
        kinds.push(line.entry.kind());
        true
    })
    .unwrap();
    kinds
}

#[test]
fn a_sound_ledger_is_found_sound_and_shows_every_entry() {
    let folder = eventful();
    let report = verify(folder.path()).unwrap();
    let all = ["created", "started", "charged", "signed", "charged", "commanded", "locked", "stopped"];
    assert_eq!(kinds(&folder), all);
    assert_eq!((report.head.seq, report.totals.charged_sat, report.totals.transactions, report.totals.commands), (8, 110, 2, 2));
    let mut from = Vec::new();
    show(folder.path(), 7, |line| {
        from.push(line.seq);
        false
    })
    .unwrap();
    assert_eq!(from, [7]);
}

#[test]
fn a_running_ledger_can_be_verified() {
    let folder = folder();
    let ledger = open(&folder, rules(Limits::default()));
    ledger.charge(plan(&[1], 100, 0), at(0)).unwrap();
    assert_eq!(verify(folder.path()).unwrap().head, ledger.head());
    ledger.charge(plan(&[2], 100, 0), at(0)).unwrap();
    assert_eq!(verify(folder.path()).unwrap().head, ledger.head());
}

/// Every way to change one value a little: each byte of a blob or text, a number by one, NULL to something and back.
fn changes(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![Value::Integer(1)],
        Value::Integer(n) => vec![Value::Integer(n + 1), Value::Integer(n - 1)],
        Value::Real(_) => vec![],
        Value::Text(text) => {
            let bytes = text.as_bytes();
            let flipped = (0..bytes.len()).map(|at| {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 1;
                Value::Text(String::from_utf8(bytes).unwrap())
            });
            flipped.chain([Value::Text(format!("{text}x"))]).collect()
        }
        Value::Blob(bytes) => {
            let flipped = (0..bytes.len()).map(|at| {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1;
                Value::Blob(bytes)
            });
            flipped.chain([Value::Blob([&bytes[..], &[0]].concat())]).collect()
        }
    }
}

#[test]
fn tables_that_claim_to_hold_more_or_less_than_they_do_are_found() {
    let folder = eventful();
    let db = Connection::open(folder.path().join("ledger.db")).unwrap();
    for seq in [0, 3, 1_000_000] {
        db.execute("UPDATE indexed SET seq = ?1", [seq]).unwrap();
        assert!(matches!(verify(folder.path()), Err(LedgerError::Damaged { .. })), "{seq}");
    }
}

#[test]
fn any_changed_byte_of_any_table_is_found() {
    let folder = eventful();
    let path = folder.path().join("ledger.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch("PRAGMA synchronous = OFF; DROP TRIGGER journal_is_never_changed; DROP TRIGGER journal_is_never_cut;").unwrap();
    let tables: &[(&str, &[&str], &[&str])] = &[
        ("journal", &["seq"], &["seq", "prev_hash", "kind", "body", "hash"]),
        ("charges", &["txid", "wallet"], &["txid", "wallet", "charge", "outflow_sat"]),
        ("families", &["outpoint", "wallet", "founder"], &["outpoint", "wallet", "founder", "charge_sat", "members", "leader"]),
        ("signatures", &["charge"], &["charge", "entry"]),
        ("commands", &["serial"], &["serial", "entry"]),
        ("scopes", &["wallet"], &["wallet", "body"]),
        ("state", &["id"], &["body"]),
    ];
    let mut tried = 0;
    for (table, keys, columns) in tables {
        let wherever = (1..).zip(*keys).map(|(n, key)| format!("{key} IS ?{n}")).collect::<Vec<_>>().join(" AND ");
        let mut statement = db.prepare(&format!("SELECT {} FROM {table}", keys.join(", "))).unwrap();
        let rows: Vec<Vec<Value>> =
            statement.query_map([], |row| (0..keys.len()).map(|k| row.get(k)).collect()).unwrap().collect::<Result<_, _>>().unwrap();
        assert!(!rows.is_empty(), "{table} is never looked at");
        for key in &rows {
            for column in *columns {
                let old: Value = db
                    .query_row(&format!("SELECT {column} FROM {table} WHERE {wherever}"), rusqlite::params_from_iter(key), |r| r.get(0))
                    .unwrap();
                for new in changes(&old) {
                    db.execute_batch("SAVEPOINT change").unwrap();
                    let with = [std::slice::from_ref(&new), key].concat();
                    let shifted = (2..).zip(*keys).map(|(n, key)| format!("{key} IS ?{n}")).collect::<Vec<_>>().join(" AND ");
                    let changed =
                        db.execute(&format!("UPDATE {table} SET {column} = ?1 WHERE {shifted}"), rusqlite::params_from_iter(with));
                    if changed == Ok(1) {
                        tried += 1;
                        let found = super::super::verify::check(&db);
                        assert!(found.is_err(), "{table}.{column} {old:?} became {new:?} and nobody noticed");
                    }
                    db.execute_batch("ROLLBACK TO change; RELEASE change").unwrap();
                }
            }
            db.execute_batch("SAVEPOINT change").unwrap();
            db.execute(&format!("DELETE FROM {table} WHERE {wherever}"), rusqlite::params_from_iter(key)).unwrap();
            // The journal's last entry gone, with all that follows from it, is what an old copy looks like: the anchor notices.
            assert!(super::super::verify::check(&db).is_err(), "a row of {table} is gone and nobody noticed");
            db.execute_batch("ROLLBACK TO change; RELEASE change").unwrap();
        }
    }
    assert!(tried > 1_000, "{tried}");
    super::super::verify::check(&db).unwrap();
}

#[test]
fn a_row_that_was_added_is_found() {
    let folder = eventful();
    let db = Connection::open(folder.path().join("ledger.db")).unwrap();
    for row in [
        "INSERT INTO commands VALUES (x'0000000000000009', 3)",
        "INSERT INTO signatures VALUES (5, 4)",
        "INSERT INTO scopes VALUES ('cold', x'a0')",
        "INSERT INTO families VALUES (x'00', 'hot', 3, 1, 1, 3)",
    ] {
        db.execute_batch("SAVEPOINT change").unwrap();
        db.execute(row, []).unwrap();
        assert!(super::super::verify::check(&db).is_err(), "{row}");
        db.execute_batch("ROLLBACK TO change; RELEASE change").unwrap();
    }
}

#[test]
fn the_journal_cannot_be_changed_or_cut_by_a_statement() {
    let folder = eventful();
    let db = Connection::open(folder.path().join("ledger.db")).unwrap();
    for statement in ["UPDATE journal SET kind = 'x'", "DELETE FROM journal WHERE seq = 3"] {
        assert!(db.execute(statement, []).unwrap_err().to_string().contains("never"), "{statement}");
    }
}

#[test]
fn what_is_no_ledger_is_refused_with_its_name() {
    let folder = folder();
    let path = folder.path().join("ledger.db");
    std::fs::write(&path, b"this is not a database, and a little longer than a header would be".repeat(20)).unwrap();
    for outcome in [verify(folder.path()).map(drop), Ledger::open(options(&folder, rules(Limits::default())), Box::new(NoAnchor)).map(drop)]
    {
        assert!(outcome.unwrap_err().to_string().contains("ledger.db"));
    }
    std::fs::remove_file(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(verify(folder.path()), Err(LedgerError::NotALedger { .. })));
    db.execute_batch("PRAGMA application_id = 0x5053544e; PRAGMA user_version = 99").unwrap();
    assert!(matches!(verify(folder.path()), Err(LedgerError::Schema { found: 99, .. })));
}

/// A start does not look at the rows of single charges. Who could write them could have a repeat for nothing, or a bump.
#[test]
fn a_changed_row_is_not_believed_when_it_is_used() {
    let repeat = || plan(&[1], 1_000, 0);
    let bump = || plan(&[1], 1_500, 1);
    for (change, asked) in [
        // As large as what is asked for; another charge of the same size.
        ("UPDATE charges SET outflow_sat = 5000 WHERE charge = 3", repeat()),
        ("UPDATE charges SET charge = 4 WHERE charge = 3", repeat()),
        ("UPDATE charges SET charge = 1 WHERE charge = 3", repeat()),
        ("UPDATE charges SET charge = 99 WHERE charge = 3", repeat()),
        ("UPDATE families SET charge_sat = 9000 WHERE founder = 3", bump()),
        ("UPDATE families SET leader = 4 WHERE founder = 3", bump()),
        ("UPDATE families SET leader = 2 WHERE founder = 3", bump()),
    ] {
        let folder = folder();
        let ledger = open(&folder, rules(Limits::default()));
        ledger.charge(repeat(), at(0)).unwrap();
        ledger.charge(plan(&[2], 1_000, 0), at(0)).unwrap();
        ledger.stop(at(0)).unwrap();
        let db = Connection::open(folder.path().join("ledger.db")).unwrap();
        assert_eq!(db.execute(change, []).unwrap(), 1, "{change}");
        drop(db);
        let ledger = open(&folder, rules(Limits::default()));
        assert_eq!(refused(ledger.charge(asked, at(0))), RefusalCode::LedgerUnavailable, "{change}");
        // Others are charged as before.
        assert_eq!(ledger.charge(plan(&[3], 700, 0), at(0)).unwrap().increase_sat(), 700, "{change}");
    }
}
