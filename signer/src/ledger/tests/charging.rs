use super::*;

#[test]
fn a_charge_takes_from_the_limits_and_a_retry_takes_nothing() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[rate(1, 1_000, 100)], Some(1_000))));
    let plan = plan(&[1], 60, 0);
    let first = ledger.charge(Arc::clone(&plan), at(0)).unwrap();
    assert_eq!((first.increase_sat(), first.is_repeat(), first.signatures()), (60, false, None));
    assert_eq!((ledger.left(0, 0), ledger.left(1, 0)), (40, 940));
    for _ in 0..3 {
        let again = ledger.charge(Arc::clone(&plan), at(0)).unwrap();
        assert_eq!((again.increase_sat(), again.is_repeat(), again.number()), (0, true, first.number()));
    }
    assert_eq!((ledger.left(0, 0), ledger.left(1, 0)), (40, 940));
    assert_eq!(ledger.totals().transactions, 1);
}

#[test]
fn a_retry_gets_the_stored_signatures_and_the_first_ones_stay() {
    let folder = folder();
    let ledger = open(&folder, rules(Limits::default()));
    let plan = plan(&[1], 60, 0);
    let charged = ledger.charge(Arc::clone(&plan), at(0)).unwrap();
    ledger.record(&charged, signature(1));
    ledger.record(&charged, signature(2));
    assert_eq!(ledger.charge(Arc::clone(&plan), at(0)).unwrap().signatures(), Some(&signature(1)[..]));
    ledger.stop(at(0)).unwrap();
    let ledger = open(&folder, rules(Limits::default()));
    assert_eq!(ledger.charge(plan, at(0)).unwrap().signatures(), Some(&signature(1)[..]));
}

#[test]
fn a_fee_bump_is_charged_the_increase() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[], Some(1_000))));
    let increase = |numbers: &[u8], sat, salt| ledger.charge(plan(numbers, sat, salt), at(0)).unwrap().increase_sat();
    assert_eq!(increase(&[1, 2], 100, 0), 100);
    assert_eq!(increase(&[1, 2], 110, 1), 10, "the same coins");
    assert_eq!(increase(&[1, 2, 3], 115, 2), 5, "and one more");
    assert_eq!(increase(&[1, 2, 3, 4], 90, 3), 0, "less than the largest so far");
    assert_eq!(increase(&[1, 2, 3], 116, 4), 1, "the family keeps its maximum");
    assert_eq!(increase(&[5], 50, 5), 50, "disjoint coins join nothing");
    assert_eq!(ledger.left(0, 0), 1_000 - 116 - 50);
}

#[test]
fn a_transaction_that_frees_a_rival_is_new_money() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[rate(1, 1_000_000, 100)], None)));
    let charge = |numbers: &[u8], salt, now| ledger.charge(plan(numbers, 50, salt), at(now)).unwrap().increase_sat();
    // Of these two, one can confirm; both are charged.
    assert_eq!(charge(&[1, 2], 0, 0), 50);
    assert_eq!(charge(&[2, 3], 1, 0), 50);
    // This one excludes the first and lets the second confirm beside it: 50 more can leave than before.
    assert_eq!(charge(&[1], 2, 100_000_000), 50);
    // This one excludes whatever excludes the first: nothing more can leave.
    assert_eq!(charge(&[1, 2, 3], 3, 100_000_000), 0);
}

#[test]
fn each_family_of_a_coin_grows_by_itself_in_memory_and_in_the_file() {
    let folder = folder();
    let ledger = open(&folder, rules(Limits::default()));
    let increase = |ledger: &Ledger, coins, sat, salt| ledger.charge(plan(coins, sat, salt), at(0)).unwrap().increase_sat();
    assert_eq!(increase(&ledger, &[1, 2], 100, 0), 100);
    // Without coin 2 it founds a family of its own; two bumps join that one, of which the second moves nothing.
    assert_eq!(increase(&ledger, &[1], 50, 1), 50);
    assert_eq!(increase(&ledger, &[1], 70, 2), 20);
    assert_eq!(increase(&ledger, &[1, 3], 70, 3), 0);
    drop(ledger);
    // The rows are in the file now, and come back one by one.
    let ledger = open(&folder, rules(Limits::default()));
    assert_eq!(increase(&ledger, &[1, 2], 110, 4), 10);
    assert_eq!(increase(&ledger, &[1], 80, 5), 10);
    assert_eq!(increase(&ledger, &[1], 80, 6), 0);
    verify(folder.path()).unwrap();
}

#[test]
fn the_same_transaction_is_charged_to_each_wallet_that_signs_it() {
    let charge = |ledger: &Ledger, wallet, other: bool| {
        let mut plan = SpendPlan::for_tests(wallet, &coins(&[1]), &coins(&[2]), 50, 0);
        // The same inputs and outputs, seen from the other wallet.
        if other {
            plan.swap_own_and_foreign();
        }
        let charged = ledger.charge(Arc::new(plan), at(0)).unwrap();
        (charged.increase_sat(), charged.is_repeat())
    };
    // A restart writes the first one's row into the file.
    for restarts in [false, true] {
        let folder = folder();
        let open = || open(&folder, rules(limits(&[], Some(1_000))));
        let mut ledger = open();
        assert_eq!(charge(&ledger, "hot", false), (50, false));
        if restarts {
            drop(ledger);
            ledger = open();
        }
        assert_eq!(charge(&ledger, "warm", true), (50, false));
        assert_eq!(ledger.left(0, 0), 900);
        assert!(charge(&ledger, "hot", false).1 && charge(&ledger, "warm", true).1, "a retry of either is one still");
        assert_eq!(ledger.left(0, 0), 900);
    }
}

#[test]
fn a_refused_charge_changes_nothing() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[rate(1, 1_000, 100)], Some(150))));
    ledger.charge(plan(&[1], 100, 0), at(0)).unwrap();
    let before = (ledger.levels(at(0)), ledger.head(), ledger.totals());
    assert_eq!(refused(ledger.charge(plan(&[2], 101, 0), at(0))), RefusalCode::RateBurst);
    assert_eq!(refused(ledger.charge(plan(&[2], 51, 0), at(0))), RefusalCode::TotalReached);
    let refusal = ledger.charge(plan(&[2], 50, 0), at(0)).unwrap_err();
    assert_eq!((refusal.code, refusal.wait_ms), (RefusalCode::RateWait, Some(50_000)));
    assert_eq!((ledger.levels(at(0)), ledger.head(), ledger.totals()), before);
    assert_eq!(refused(ledger.charge(plan(&[2], 50, 0), at(49_999))), RefusalCode::RateWait);
    assert!(ledger.charge(plan(&[2], 50, 0), at(50_000)).is_ok());
}

#[test]
fn a_time_earlier_than_the_last_one_gives_no_credit() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[rate(1, 1_000, 100)], None)));
    ledger.charge(plan(&[1], 100, 0), at(100_000)).unwrap();
    assert_eq!(refused(ledger.charge(plan(&[2], 1, 0), at(0))), RefusalCode::RateWait);
    assert_eq!(refused(ledger.charge(plan(&[2], 1, 0), at(100_999))), RefusalCode::RateWait);
    // The clock steps back after the refusal; what was seen stays seen, no more and no less.
    let refusal = ledger.charge(plan(&[2], 1, 0), at(5)).unwrap_err();
    assert_eq!(refusal.wait_ms, Some(1));
    assert!(ledger.charge(plan(&[2], 1, 0), at(101_000)).is_ok());
}

#[test]
fn parallel_duplicates_are_charged_once() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[], Some(60))));
    let plan = plan(&[1], 60, 0);
    let outcomes: Vec<Charged> = std::thread::scope(|scope| {
        let ask = || ledger.charge(Arc::clone(&plan), at(0)).unwrap();
        let threads: Vec<_> = (0..32).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|c| !c.is_repeat()).count(), 1);
    assert_eq!((ledger.totals().charged_sat, ledger.totals().transactions), (60, 1));
}

#[test]
fn sixty_four_threads_never_pass_the_limits() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[rate(1, 1_000, 1_000)], Some(700))));
    let charged = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..64_u32 {
            let (ledger, charged) = (&ledger, &charged);
            scope.spawn(move || {
                for n in 0..8 {
                    let salt = thread * 100 + n;
                    let mut txid = [0; 32];
                    txid[..4].copy_from_slice(&salt.to_be_bytes());
                    let own = OutPoint { txid: Txid::from_byte_array(txid), vout: 0 };
                    match ledger.charge(Arc::new(SpendPlan::for_tests(HOT, &[own], &[], 7, salt)), at(0)) {
                        Ok(c) => drop(charged.fetch_add(c.increase_sat(), std::sync::atomic::Ordering::SeqCst)),
                        Err(refusal) => assert_eq!(refusal.code, RefusalCode::TotalReached),
                    }
                }
            });
        }
    });
    assert_eq!(charged.into_inner(), 700);
    assert_eq!(ledger.totals().charged_sat, 700);
}

#[test]
fn a_second_process_is_refused() {
    let folder = folder();
    let ledger = open(&folder, rules(Limits::default()));
    let second = Ledger::open(options(&folder, rules(Limits::default())), Box::new(NoAnchor));
    assert!(matches!(second, Err(LedgerError::InUse { .. })));
    assert!(matches!(Ledger::create(folder.path()), Err(LedgerError::InUse { .. })));
    drop(ledger);
    drop(open(&folder, rules(Limits::default())));
}

#[test]
fn a_missing_ledger_is_not_made_up_and_one_that_is_there_is_not_replaced() {
    let folder = folder();
    assert!(matches!(Ledger::create(folder.path()), Err(LedgerError::Exists(_))));
    std::fs::remove_file(folder.path().join("ledger.db")).unwrap();
    let missing = Ledger::open(options(&folder, rules(Limits::default())), Box::new(NoAnchor));
    assert!(matches!(missing, Err(LedgerError::Missing(_))));
}

#[test]
fn a_full_disk_refuses_and_what_is_in_memory_is_what_is_on_disk() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[rate(1, 1_000, 1_000_000)], Some(1_000_000))));
    ledger.charge(plan(&[1], 100, 0), at(0)).unwrap();
    ledger.in_writer(|writer| {
        let pages: i64 = writer.store.db.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        writer.store.db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    });
    let before = (ledger.levels(at(0)), ledger.head(), ledger.totals());
    // More inputs than the pages that are left can hold.
    let large = |salt| {
        let own: Vec<OutPoint> = (0..5_000).map(|vout| OutPoint { txid: Txid::from_byte_array([9; 32]), vout }).collect();
        Arc::new(SpendPlan::for_tests(HOT, &own, &[], 1_000, salt))
    };
    let refusal = ledger.charge(large(0), at(0)).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::LedgerUnavailable);
    assert!(refusal.message.unwrap().contains("full"));
    assert_eq!((ledger.levels(at(0)), ledger.head(), ledger.totals()), before);
    verify(folder.path()).unwrap();
    // Room again (the connection was opened anew, and with it the limit is gone): it goes on where it was.
    let charged = ledger.charge(large(0), at(0)).unwrap();
    assert_eq!((charged.increase_sat(), charged.is_repeat()), (1_000, false));
    assert_eq!(ledger.left(1, 0), 1_000_000 - 1_100);
    ledger.stop(at(0)).unwrap();
    verify(folder.path()).unwrap();
}

#[test]
fn the_limits_survive_a_writer_that_cannot_write_any_more() {
    let folder = folder();
    let ledger = open(&folder, rules(Limits::default()));
    ledger.in_writer(|writer| writer.store.db.execute_batch("PRAGMA query_only = ON").unwrap());
    assert_eq!(refused(ledger.charge(plan(&[1], 1, 0), at(0))), RefusalCode::LedgerUnavailable);
    assert!(ledger.charge(plan(&[1], 1, 0), at(0)).is_ok(), "opened anew");
}

#[test]
fn a_stopped_ledger_refuses() {
    let folder = folder();
    let ledger = open(&folder, rules(Limits::default()));
    ledger.stop(at(0)).unwrap();
    assert_eq!(refused(ledger.charge(plan(&[1], 1, 0), at(0))), RefusalCode::ShuttingDown);
    ledger.stop(at(0)).unwrap();
}

#[test]
fn the_highest_used_index_of_each_branch_is_remembered() {
    let folder = folder();
    let ledger = open(&folder, rules(Limits::default()));
    for salt in [3, 9, 4] {
        ledger.charge(plan(&[u8::try_from(salt).unwrap()], 1, salt), at(0)).unwrap();
    }
    let used = vec![Position { branch: 0, index: 9 }];
    assert_eq!((ledger.last_used(HOT), ledger.last_used("warm")), (used.clone(), vec![]));
    drop(ledger);
    assert_eq!(open(&folder, rules(Limits::default())).last_used(HOT), used);
}

#[test]
fn a_family_that_is_full_takes_no_more_free_members() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[], Some(150))));
    let members = u32::try_from(crate::policy::MEMBERS_MAX).unwrap();
    for salt in 0..members {
        ledger.charge(plan(&[1], 100, salt), at(0)).unwrap();
    }
    assert_eq!(ledger.totals().charged_sat, 100);
    assert_eq!(refused(ledger.charge(plan(&[1], 100, members), at(0))), RefusalCode::TotalReached);
}
