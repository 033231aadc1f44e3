use super::*;

fn hot() -> Scope {
    Scope::Wallet(HOT.into())
}

#[test]
fn a_command_lets_more_out_once_and_its_serial_is_remembered_for_ever() {
    let folder = folder();
    let rules = rules(limits(&[], Some(100)));
    let ledger = open(&folder, rules.clone());
    ledger.charge(plan(&[1], 100, 0), at(0)).unwrap();
    assert_eq!(refused(ledger.charge(plan(&[2], 50, 0), at(0))), RefusalCode::TotalReached);
    let add = command(7, Action::AddTotal(Scope::Signer, 50));
    assert_eq!(
        ledger.apply(add.clone(), at(0)).unwrap(),
        Applied { serial: 7, effect: "signer: 0.0000005 BTC more may leave; 0.0000005 BTC are left".into() }
    );
    assert_eq!(refused(ledger.apply(add.clone(), at(0))), RefusalCode::CommandSerialUsed);
    drop(ledger);
    let ledger = open(&folder, rules.clone());
    assert_eq!(refused(ledger.apply(add.clone(), at(0))), RefusalCode::CommandSerialUsed);
    ledger.charge(plan(&[2], 50, 0), at(0)).unwrap();
    ledger.stop(at(0)).unwrap();
    let ledger = open(&folder, rules);
    assert_eq!(refused(ledger.apply(add, at(0))), RefusalCode::CommandSerialUsed);
    assert_eq!(refused(ledger.charge(plan(&[3], 1, 0), at(0))), RefusalCode::TotalReached);
}

#[test]
fn each_kind_of_command_has_its_effect() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[rate(1, 1_000, 100)], Some(1_000))));
    ledger.charge(plan(&[1], 80, 0), at(0)).unwrap();
    ledger.apply(command(1, Action::SetTotal(Scope::Signer, 5)), at(0)).unwrap();
    assert_eq!(ledger.left(1, 0), 5);
    ledger.apply(command(2, Action::AddTotal(Scope::Signer, 500)), at(0)).unwrap();
    assert_eq!(ledger.left(1, 0), 505);
    ledger.apply(command(3, Action::SetRate(Scope::Signer, vec![rate(2, 1_000, 300)])), at(0)).unwrap();
    assert_eq!(ledger.left(0, 0), 220, "what was spent stays spent");
    ledger.apply(command(4, Action::Freeze(hot())), at(0)).unwrap();
    assert_eq!(refused(ledger.charge(plan(&[2], 1, 0), at(0))), RefusalCode::Frozen);
    assert_eq!(ledger.frozen(), ["wallet hot: frozen by command 4 of cfo, cto"]);
    let warm = SpendPlan::for_tests("warm", &coins(&[3]), &[], 1, 0);
    assert!(ledger.charge(Arc::new(warm), at(0)).is_ok());
    ledger.apply(command(5, Action::Unfreeze(hot())), at(0)).unwrap();
    assert!(ledger.charge(plan(&[2], 1, 0), at(0)).is_ok());
    ledger.apply(command(6, Action::SetTotal(hot(), 10)), at(0)).unwrap();
    assert_eq!(refused(ledger.charge(plan(&[4], 11, 0), at(0))), RefusalCode::TotalReached);
}

#[test]
fn a_command_that_makes_no_sense_is_refused_and_its_serial_stays_unused() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[], None)));
    let before = ledger.head();
    let cold = Scope::Wallet("cold".into());
    for (action, code) in [
        (Action::Freeze(cold.clone()), RefusalCode::CommandScope),
        (Action::SetTotal(cold, 1), RefusalCode::CommandScope),
        (Action::AddTotal(Scope::Signer, 1), RefusalCode::CommandScope),
        (Action::SetTotal(Scope::Signer, u64::MAX), RefusalCode::CommandMalformed),
        (Action::SetRate(Scope::Signer, vec![rate(0, 1, 1)]), RefusalCode::CommandMalformed),
        (Action::SetRate(Scope::Signer, vec![rate(1, 0, 1)]), RefusalCode::CommandMalformed),
        (Action::SetRate(Scope::Signer, vec![rate(1, 1, 1); 9]), RefusalCode::CommandMalformed),
    ] {
        assert_eq!(refused(ledger.apply(command(1, action), at(0))), code);
    }
    assert_eq!(ledger.head(), before);
    assert!(ledger.apply(command(1, Action::Freeze(Scope::Signer)), at(0)).is_ok());
    // All the money there will ever be is a total like any other.
    let all = postern_protocol::units::MAX_MONEY_SAT;
    assert_eq!(refused(ledger.apply(command(2, Action::SetTotal(Scope::Signer, all + 1)), at(0))), RefusalCode::CommandMalformed);
    assert!(ledger.apply(command(2, Action::SetTotal(Scope::Signer, all)), at(0)).is_ok());
}

#[test]
fn a_lock_survives_restarts_and_ends_only_by_a_command() {
    let folder = folder();
    let ledger = open(&folder, rules(Limits::default()));
    ledger.lock(hot(), "an order with a forged signature", at(0)).unwrap();
    let head = ledger.head();
    ledger.lock(hot(), "another one", at(0)).unwrap();
    assert_eq!(ledger.head(), head, "a locked wallet is not locked again: forgeries must not fill the disk");
    drop(ledger);
    let ledger = open(&folder, rules(Limits::default()));
    let refusal = ledger.charge(plan(&[1], 1, 0), at(0)).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Locked);
    assert!(refusal.message.unwrap().contains("an order with a forged signature"));
    ledger.apply(command(1, Action::Unfreeze(hot())), at(0)).unwrap();
    assert!(ledger.charge(plan(&[1], 1, 0), at(0)).is_ok());
}

#[test]
fn one_serial_from_many_sides_at_once_is_applied_once() {
    let folder = folder();
    let ledger = open(&folder, rules(limits(&[], Some(100))));
    let applied = std::thread::scope(|scope| {
        let apply = || ledger.apply(command(1, Action::AddTotal(Scope::Signer, 50)), at(0)).is_ok();
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(apply)).collect();
        threads.into_iter().filter_map(|t| t.join().unwrap().then_some(())).count()
    });
    assert_eq!((applied, ledger.left(0, 0)), (1, 150));
}
