//! Ledger and anchor do not agree: nothing is charged until the managers say what counts.

use postern_protocol::command::Challenge;

use super::*;

const TOTAL: u64 = 10_000;

fn with_totals() -> PolicyRules {
    let mut rules = rules(limits(&[rate(1, 1_000, 5_000)], Some(TOTAL)));
    rules.wallets.get_mut(HOT).unwrap().limits = limits(&[], Some(TOTAL));
    rules
}

fn hold(folder: &TempDir, label: &MemoryLabel) -> Ledger {
    Ledger::open_or_hold(options(folder, with_totals()), label.anchor()).unwrap()
}

fn open(folder: &TempDir, label: &MemoryLabel) -> Result<Ledger, LedgerError> {
    Ledger::open(options(folder, with_totals()), label.anchor())
}

fn challenge(ledger: &Ledger) -> Challenge {
    hex::decode(ledger.rebase_needed().unwrap().challenge).unwrap().try_into().unwrap()
}

fn rebase(serial: u64, ledger: &Ledger, spent_sat: u64) -> VerifiedCommand {
    command(serial, Action::Rebase { challenge: challenge(ledger), spent_sat })
}

fn based(ledger: &Ledger, command: VerifiedCommand) -> VerifiedCommand {
    VerifiedCommand { base: ledger.base(), ..command }
}

fn add(serial: u64) -> VerifiedCommand {
    command(serial, Action::AddTotal(Scope::Signer, 1_000))
}

/// A ledger that charged 1,000 sat, put back to before a command and another 2,000 sat.
fn old_copy() -> (TempDir, MemoryLabel) {
    let (folder, label) = (folder(), MemoryLabel::default());
    let ledger = open(&folder, &label).unwrap();
    ledger.charge(plan(&[1], 1_000, 0), at(0)).unwrap();
    ledger.stop(at(0)).unwrap();
    let old = snapshot(&folder);
    let ledger = open(&folder, &label).unwrap();
    ledger.apply(add(1), at(0)).unwrap();
    ledger.charge(plan(&[2], 2_000, 0), at(0)).unwrap();
    ledger.stop(at(0)).unwrap();
    restore(&folder, &old);
    (folder, label)
}

#[test]
fn an_old_ledger_goes_on_after_a_re_base_and_its_forgotten_commands_stay_used() {
    let (folder, label) = old_copy();
    let ledger = open(&folder, &label).unwrap();
    let needed = ledger.rebase_needed().unwrap();
    assert_eq!(needed.least_sat, 3_000);
    assert_eq!(refused(ledger.charge(plan(&[3], 1, 0), at(9_000_000))), RefusalCode::LedgerStale);
    assert_eq!(refused(ledger.apply(add(1), at(0))), RefusalCode::LedgerStale);

    let too_little = rebase(2, &ledger, 2_999);
    assert_eq!(refused(ledger.apply(too_little, at(0))), RefusalCode::CommandRebase);
    let guessed = command(2, Action::Rebase { challenge: [0; 16], spent_sat: 3_000 });
    assert_eq!(refused(ledger.apply(guessed, at(0))), RefusalCode::CommandRebase);
    let good = rebase(2, &ledger, 3_500);
    let applied = ledger.apply(good.clone(), at(0)).unwrap();
    assert!(applied.effect.contains("0.000035 BTC count as spent"), "{}", applied.effect);
    assert_eq!((ledger.is_stale(), ledger.totals().charged_sat, ledger.totals().commands), (false, 3_500, 2));
    assert_eq!((ledger.left(0, 0), ledger.left(1, 0), ledger.left(2, 0)), (0, TOTAL - 3_500, TOTAL - 3_500), "the wallet's as well");

    assert_eq!(refused(ledger.apply(good, at(0))), RefusalCode::CommandSerialUsed);
    assert_eq!(refused(ledger.apply(add(1), at(0))), RefusalCode::CommandBase, "used, and forgotten");
    assert_eq!(refused(ledger.apply(add(7), at(0))), RefusalCode::CommandBase, "who knows");
    ledger.apply(based(&ledger, add(8)), at(0)).unwrap();
    ledger.apply(command(9, Action::Freeze(Scope::Wallet("warm".into()))), at(0)).unwrap();
    ledger.charge(plan(&[3], 100, 0), at(200_000)).unwrap();
    ledger.stop(at(200_000)).unwrap();
    verify(folder.path()).unwrap();
    let ledger = open(&folder, &label).unwrap();
    assert!(ledger.anchor().contains("latest"), "{}", ledger.anchor());
    assert_eq!(refused(ledger.apply(add(10), at(0))), RefusalCode::CommandBase, "for ever");
}

#[test]
fn a_re_base_is_good_for_one_run_of_one_ledger() {
    let (folder, label) = old_copy();
    let old = snapshot(&folder);
    let ledger = open(&folder, &label).unwrap();
    let first = rebase(2, &ledger, 3_000);
    drop(ledger);
    let ledger = open(&folder, &label).unwrap();
    assert_eq!(refused(ledger.apply(first, at(0))), RefusalCode::CommandRebase, "the signer was started again");
    let second = rebase(2, &ledger, 3_000);
    ledger.apply(second.clone(), at(0)).unwrap();
    ledger.apply(based(&ledger, add(3)), at(0)).unwrap();
    let based_on_second = based(&ledger, add(4));
    ledger.apply(based_on_second.clone(), at(0)).unwrap();
    let needless = command(5, Action::Rebase { challenge: [1; 16], spent_sat: 9_000 });
    assert_eq!(refused(ledger.apply(needless, at(0))), RefusalCode::CommandRebase);
    drop(ledger);

    // The old disk once more, and everything that was ever signed is shown to it.
    restore(&folder, &old);
    assert!(matches!(open(&folder, &label), Err(LedgerError::AnchorForeign { .. })), "the anchor knows the re-based one");
    let ledger = hold(&folder, &label);
    for used in [second, based_on_second.clone(), add(1)] {
        assert!(ledger.apply(used, at(0)).is_err());
    }
    let third = rebase(6, &ledger, 3_000);
    ledger.apply(third, at(0)).unwrap();
    assert_eq!(refused(ledger.apply(based_on_second, at(0))), RefusalCode::CommandBase);
    assert_eq!(ledger.left(1, 0), TOTAL - 3_000);
}

/// Each way in which an anchor can say what cannot be, on a ledger that charged 3,000 sat under one command.
fn alarms() -> Vec<(&'static str, TempDir, MemoryLabel)> {
    let made = || {
        let (folder, label) = (folder(), MemoryLabel::default());
        let ledger = open(&folder, &label).unwrap();
        let early = label.0.lock().unwrap().clone();
        ledger.apply(add(1), at(0)).unwrap();
        ledger.charge(plan(&[1], 3_000, 0), at(0)).unwrap();
        ledger.stop(at(0)).unwrap();
        (folder, label, early)
    };
    let lost = made();
    let behind = made();
    *behind.1.0.lock().unwrap() = behind.2;
    let foreign = made();
    let torn = made();
    torn.1.0.lock().unwrap().label.as_mut().unwrap().pop();
    vec![
        ("lost", lost.0, MemoryLabel::default()),
        ("behind", behind.0, behind.1),
        ("foreign", foreign.0, made().1),
        ("torn", torn.0, torn.1),
    ]
}

#[test]
fn whatever_the_anchor_says_nothing_changes_before_managers_say_so_and_then_it_goes_on() {
    for (what, folder, label) in alarms() {
        let before = label.0.lock().unwrap().label.clone();
        let head = verify(folder.path()).unwrap().head;
        assert!(open(&folder, &label).is_err(), "{what}");
        let ledger = hold(&folder, &label);
        assert_eq!(ledger.rebase_needed().unwrap().least_sat, 3_000, "{what}");
        assert!(!ledger.frozen().is_empty(), "{what}");
        let add_more = add(2);
        let freeze = command(3, Action::Freeze(Scope::Signer));
        assert_eq!(refused(ledger.charge(plan(&[2], 1, 0), at(9_000_000))), RefusalCode::LedgerStale, "{what}");
        assert_eq!(refused(ledger.apply(add_more.clone(), at(0))), RefusalCode::LedgerStale, "{what}");
        assert_eq!(refused(ledger.apply(freeze, at(0))), RefusalCode::LedgerStale, "{what}");
        assert_eq!(refused(ledger.lock(Scope::Signer, "forged", at(0))), RefusalCode::LedgerStale, "{what}");
        ledger.stop(at(0)).unwrap();
        assert_eq!((verify(folder.path()).unwrap().head, label.0.lock().unwrap().label.clone()), (head, before), "{what}");

        let ledger = hold(&folder, &label);
        let good = rebase(4, &ledger, 4_000);
        ledger.apply(good, at(0)).unwrap();
        assert_eq!((ledger.left(0, 0), ledger.left(1, 0), ledger.left(2, 0)), (0, TOTAL + 1_000 - 4_000, TOTAL - 4_000), "{what}");
        assert_eq!(refused(ledger.apply(add_more, at(0))), RefusalCode::CommandBase, "{what}");
        ledger.charge(plan(&[2], 100, 0), at(200_000)).unwrap();
        ledger.stop(at(200_000)).unwrap();
        verify(folder.path()).unwrap();
        assert!(open(&folder, &label).unwrap().anchor().contains("latest"), "{what}");
    }
}

#[test]
fn a_new_state_folder_takes_over_what_the_old_one_spent() {
    let (folder, label) = old_copy();
    let fresh = super::folder();
    assert!(matches!(open(&fresh, &label), Err(LedgerError::AnchorForeign { .. })));
    let ledger = hold(&fresh, &label);
    let little = rebase(1, &ledger, 0);
    assert_eq!(refused(ledger.apply(little, at(0))), RefusalCode::CommandRebase, "the anchor knows better");
    let good = rebase(2, &ledger, 3_000);
    ledger.apply(good, at(0)).unwrap();
    assert_eq!((ledger.left(0, 0), ledger.left(1, 0), ledger.left(2, 0)), (0, TOTAL - 3_000, TOTAL - 3_000));
    assert_eq!(refused(ledger.apply(add(1), at(0))), RefusalCode::CommandBase);
    drop(ledger);
    verify(fresh.path()).unwrap();
    // The old folder is now the one that the anchor does not know.
    assert!(matches!(open(&folder, &label), Err(LedgerError::AnchorForeign { .. })));
}

#[test]
fn an_anchor_can_be_given_up_by_managers_and_by_nobody_else() {
    let (folder, label) = (folder(), MemoryLabel::default());
    open(&folder, &label).unwrap().stop(at(0)).unwrap();
    let without = || Ledger::open_or_hold(options(&folder, with_totals()), Box::new(NoAnchor)).unwrap();
    for _ in 0..2 {
        let ledger = without();
        assert_eq!(refused(ledger.charge(plan(&[1], 1, 0), at(9_000_000))), RefusalCode::LedgerStale);
        ledger.stop(at(0)).unwrap();
    }
    let ledger = without();
    let good = rebase(1, &ledger, 0);
    ledger.apply(good, at(0)).unwrap();
    ledger.charge(plan(&[1], 1, 0), at(9_000_000)).unwrap();
    drop(ledger);
    without().charge(plan(&[2], 1, 0), at(9_000_000)).unwrap();
}

#[test]
fn an_anchor_that_does_not_answer_during_a_re_base_is_told_before_anything_is_charged() {
    let (folder, label) = old_copy();
    let ledger = open(&folder, &label).unwrap();
    let good = rebase(2, &ledger, 3_000);
    label.set_broken(true);
    ledger.apply(good, at(0)).unwrap();
    assert_eq!(refused(ledger.charge(plan(&[3], 10, 0), at(90_000))), RefusalCode::LedgerUnavailable);
    label.set_broken(false);
    ledger.charge(plan(&[3], 10, 0), at(90_000)).unwrap();
    drop(ledger);
    assert!(!open(&folder, &label).unwrap().is_stale());
}

#[test]
fn after_a_lost_anchor_is_re_based_no_copy_from_before_passes_for_the_ledger_whatever_it_was_ordered() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let mut copies = vec![];
    for serial in 1..=4 {
        let ledger = open(&folder, &label).unwrap();
        ledger.apply(add(serial), at(0)).unwrap();
        ledger.stop(at(0)).unwrap();
        copies.push(snapshot(&folder));
    }
    // An old disk and an erased anchor: nothing knows any more that there were four commands.
    restore(&folder, &copies[0]);
    label.0.lock().unwrap().label = None;
    let ledger = hold(&folder, &label);
    let good = rebase(11, &ledger, 0);
    ledger.apply(good, at(0)).unwrap();
    let mut ledger = ledger;
    ledger.stop(at(0)).unwrap();
    let mut latest = snapshot(&folder);
    // It has had as many commands as the second copy; then as many as the third.
    for serial in [12, 13] {
        for copy in &copies {
            restore(&folder, copy);
            assert!(matches!(open(&folder, &label), Err(LedgerError::AnchorForeign { .. })));
        }
        restore(&folder, &latest);
        ledger = open(&folder, &label).unwrap();
        ledger.apply(based(&ledger, add(serial)), at(0)).unwrap();
        ledger.stop(at(0)).unwrap();
        latest = snapshot(&folder);
    }
}

/// A freeze is accepted by an old copy, and counts.
#[test]
fn what_an_old_copy_was_ordered_before_its_re_base_is_not_forgotten_by_the_anchor() {
    let (folder, label) = old_copy();
    let ledger = open(&folder, &label).unwrap();
    for serial in 21..=25 {
        ledger.apply(command(serial, Action::Freeze(Scope::Signer)), at(0)).unwrap();
    }
    let known = ledger.totals().commands;
    let good = rebase(26, &ledger, 3_000);
    ledger.apply(good, at(0)).unwrap();
    // The one that this copy misses, five freezes, and the re-base.
    assert_eq!((known, ledger.totals().commands), (5, 7));
}

#[test]
fn a_power_cut_between_a_re_base_and_its_anchor_gives_nothing_away() {
    let (folder, label) = old_copy();
    let ledger = open(&folder, &label).unwrap();
    let good = rebase(2, &ledger, 3_000);
    label.set_broken(true);
    ledger.apply(good, at(0)).unwrap();
    drop(ledger);
    label.set_broken(false);
    assert!(matches!(open(&folder, &label), Err(LedgerError::AnchorForeign { .. })), "the anchor was never told");
    let ledger = hold(&folder, &label);
    assert_eq!(refused(ledger.charge(plan(&[3], 10, 0), at(90_000))), RefusalCode::LedgerStale);
    let again = rebase(3, &ledger, 3_000);
    ledger.apply(again, at(0)).unwrap();
    assert_eq!(ledger.left(1, 0), TOTAL - 3_000);
    assert_eq!(refused(ledger.apply(add(1), at(0))), RefusalCode::CommandBase);
}
