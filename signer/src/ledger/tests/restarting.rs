use super::*;

#[test]
fn a_crash_loses_no_charge() {
    let folder = folder();
    let rules = rules(limits(&[], Some(100)));
    for n in 0..4 {
        let ledger = open(&folder, rules.clone());
        assert_eq!(ledger.left(0, 0), 100 - 25 * u64::from(n));
        ledger.charge(plan(&[n], 25, 0), at(0)).unwrap();
        // Dropped without a stop.
    }
    let ledger = open(&folder, rules);
    assert_eq!(refused(ledger.charge(plan(&[9], 1, 0), at(0))), RefusalCode::TotalReached);
    assert!(ledger.charge(plan(&[0], 25, 0), at(0)).unwrap().is_repeat());
    verify(folder.path()).unwrap();
}

#[test]
fn a_copy_taken_while_it_runs_holds_every_charge_that_was_answered() {
    // What a power cut leaves: the file and its write-ahead log as they are, nothing flushed at a stop.
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[], Some(1_000))));
    for n in 0..50 {
        ledger.charge(plan(&[n], 1, 0), at(0)).unwrap();
        let copy = super::folder();
        restore(&copy, &snapshot(&folder));
        let report = verify(copy.path()).unwrap();
        assert_eq!(report.totals.transactions, u64::from(n) + 1);
    }
}

#[test]
fn without_an_anchor_the_buckets_start_empty_but_for_the_first_time() {
    let folder = folder();
    let rules = rules(limits(&[rate(1, 1_000, 100)], None));
    let ledger = open(&folder, rules.clone());
    assert_eq!(ledger.left(0, 0), 100);
    ledger.stop(at(1_000_000)).unwrap();
    let ledger = open(&folder, rules);
    assert_eq!(ledger.left(0, 0), 0);
    assert_eq!(ledger.left(0, 5_000), 5, "refilled by this run's uptime alone");
    assert!(ledger.anchor().contains("started empty"));
}

#[test]
fn what_the_configuration_lowers_counts_at_the_next_start_and_what_it_raises_does_not() {
    let folder = folder();
    let with = |amount, total| rules(limits(&[rate(amount, 1_000, 100)], Some(total)));
    drop(open(&folder, with(10, 500)));
    let ledger = open(&folder, with(20, 600));
    assert_eq!(ledger.warnings().len(), 2);
    assert_eq!(ledger.levels(at(0))[0].refill_sat, 10);
    assert_eq!(ledger.left(1, 0), 500);
    drop(ledger);
    let ledger = open(&folder, with(5, 400));
    assert!(ledger.warnings().is_empty());
    assert_eq!(ledger.levels(at(0))[0].refill_sat, 5);
    assert_eq!(ledger.left(1, 0), 400);
    drop(ledger);
    let ledger = open(&folder, with(10, 500));
    assert_eq!(ledger.warnings().len(), 2, "back to where it was is a raise");
    assert_eq!(ledger.left(1, 0), 400);
    verify(folder.path()).unwrap();
}

#[test]
fn a_wallet_that_comes_back_finds_its_limits_as_it_left_them() {
    let folder = folder();
    let mut with = rules(Limits::default());
    with.wallets.get_mut(HOT).unwrap().limits = limits(&[], Some(100));
    let mut without = with.clone();
    without.wallets.remove(HOT);
    let ledger = open(&folder, with.clone());
    ledger.charge(plan(&[1], 90, 0), at(0)).unwrap();
    drop(ledger);
    let ledger = open(&folder, without);
    assert_eq!(refused(ledger.charge(plan(&[2], 1, 0), at(0))), RefusalCode::WalletUnknown);
    assert!(ledger.levels(at(0)).is_empty());
    drop(ledger);
    assert_eq!(refused(open(&folder, with).charge(plan(&[2], 11, 0), at(0))), RefusalCode::TotalReached);
}

#[test]
fn limits_that_make_no_sense_are_refused_with_their_scope() {
    let folder = folder();
    let mut wrong = rules(Limits::default());
    wrong.wallets.get_mut(HOT).unwrap().limits = limits(&[rate(1, 1_000, 0)], None);
    let error = Ledger::open(options(&folder, wrong), Box::new(NoAnchor)).unwrap_err().to_string();
    assert!(error.contains("wallet hot") && error.contains("burst 0 BTC"), "{error}");
}

#[test]
fn where_the_first_configuration_says_so_a_later_one_may_raise() {
    let folder = folder();
    let with = |total, raise| PolicyRules { raise, ..rules(limits(&[], Some(total))) };
    let ledger = open(&folder, with(100, Raise::Config));
    assert_eq!((ledger.left(0, 0), ledger.warnings()), (100, &[] as &[String]));
    drop(ledger);
    let ledger = open(&folder, with(120, Raise::Config));
    assert_eq!((ledger.left(0, 0), ledger.warnings()), (120, &[] as &[String]));
    drop(ledger);
    // From then on only a command does, and there is no way back.
    assert_eq!(open(&folder, with(120, Raise::Command)).warnings(), &[] as &[String]);
    let ledger = open(&folder, with(130, Raise::Config));
    assert_eq!((ledger.left(0, 0), ledger.warnings().len()), (120, 2));
}

#[test]
fn charges_are_known_whether_their_rows_are_in_the_file_or_in_memory_and_after_a_crash() {
    let folder = folder();
    let many = u32::try_from(tables::FOLD_AFTER).unwrap() / 2 + 50;
    let coin = |n: u32| OutPoint { txid: Txid::from_byte_array([1; 32]), vout: n };
    let plan = |n: u32, outflow_sat, salt| Arc::new(SpendPlan::for_tests(HOT, &[coin(n)], &[], outflow_sat, salt));
    let in_file = || {
        rusqlite::Connection::open(folder.path().join("ledger.db"))
            .unwrap()
            .query_row("SELECT count(*) FROM charges", [], |r| r.get::<_, u32>(0))
            .unwrap()
    };

    let ledger = open(&folder, rules(limits(&[], Some(1_000_000_000))));
    for n in 0..many {
        let charged = ledger.charge(plan(n, 1_000, 0), at(0)).unwrap();
        ledger.record(&charged, signature(7));
    }
    assert!((1..many).contains(&in_file()), "{} of {many} are in the file", in_file());
    let again = |ledger: &Ledger| {
        for n in [0, 1, many - 2, many - 1] {
            let charged = ledger.charge(plan(n, 1_000, 0), at(0)).unwrap();
            assert!(charged.is_repeat(), "{n}");
            assert!(charged.signatures().is_some(), "{n}");
        }
    };
    ledger.charge(plan(many, 5, 0), at(0)).unwrap();
    again(&ledger);
    // A fee bump of one that is in the file, twice, and of one that is in memory.
    assert_eq!(ledger.charge(plan(0, 1_010, 1), at(0)).unwrap().increase_sat(), 10);
    assert_eq!(ledger.charge(plan(0, 1_015, 2), at(0)).unwrap().increase_sat(), 5);
    assert_eq!(ledger.charge(plan(many - 1, 1_010, 1), at(0)).unwrap().increase_sat(), 10);
    verify(folder.path()).unwrap();
    drop(ledger);
    verify(folder.path()).unwrap();

    let ledger = open(&folder, rules(limits(&[], Some(1_000_000_000))));
    assert!(in_file() > many, "a start writes what waited");
    again(&ledger);
    assert_eq!(ledger.charge(plan(0, 1_020, 3), at(0)).unwrap().increase_sat(), 5);
    assert_eq!(ledger.totals().charged_sat, u64::from(many) * 1_000 + 5 + 30);
    ledger.stop(at(0)).unwrap();
    verify(folder.path()).unwrap();
}
