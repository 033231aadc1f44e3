use std::path::PathBuf;

use super::*;

const TOTAL: u64 = 10_000;
/// 1 % of it.
const LEASE: u64 = 100;

fn anchored(folder: &TempDir, label: &MemoryLabel) -> Result<Ledger, LedgerError> {
    Ledger::open(options(folder, rules(limits(&[rate(1, 1_000, 5_000)], Some(TOTAL)))), label.anchor())
}

fn charge(ledger: &Ledger, n: u8, sat: u64) -> u64 {
    ledger.charge(plan(&[n], sat, 0), at(0)).unwrap().increase_sat()
}

#[test]
fn after_a_clean_stop_nothing_is_burnt_and_the_buckets_keep_their_levels() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let ledger = anchored(&folder, &label).unwrap();
    charge(&ledger, 1, 1_000);
    ledger.stop(at(7_000)).unwrap();
    let ledger = anchored(&folder, &label).unwrap();
    assert_eq!((ledger.left(0, 0), ledger.left(1, 0)), (4_007, 9_000));
    assert!(ledger.anchor().contains("latest"));
    // A fee bump of what was paid before the stop is still one.
    assert_eq!(ledger.charge(plan(&[1], 1_010, 1), at(0)).unwrap().increase_sat(), 10);
}

#[test]
fn a_clean_stop_gives_back_what_is_left_of_the_lease() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let ledger = anchored(&folder, &label).unwrap();
    charge(&ledger, 1, 1_000);
    charge(&ledger, 2, 30);
    ledger.stop(at(0)).unwrap();
    let ledger = anchored(&folder, &label).unwrap();
    assert!(ledger.anchor().contains("latest"), "{}", ledger.anchor());
    assert_eq!(ledger.left(1, 0), TOTAL - 1_030);
}

#[test]
fn a_crash_burns_at_most_a_lease_and_the_level_of_the_buckets() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let mut spent = 0;
    for n in 0..10 {
        let ledger = anchored(&folder, &label).unwrap();
        let left = ledger.left(1, 0);
        assert!(left >= TOTAL - spent - u64::from(n) * LEASE, "{left}");
        spent += ledger.charge(plan(&[n], 3, 0), at(3_000)).unwrap().increase_sat();
    }
    let ledger = anchored(&folder, &label).unwrap();
    assert_eq!(ledger.left(0, 0), 0);
}

#[test]
fn the_anchor_is_written_once_for_a_lease_and_not_for_each_payment() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let ledger = anchored(&folder, &label).unwrap();
    let before = label.0.lock().unwrap().writes;
    for n in 0..200 {
        charge(&ledger, n, 1);
    }
    assert_eq!(label.0.lock().unwrap().writes - before, 200 / LEASE);
}

#[test]
fn an_old_ledger_gains_nothing() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let ledger = anchored(&folder, &label).unwrap();
    charge(&ledger, 1, 1_000);
    ledger.stop(at(0)).unwrap();
    let old = snapshot(&folder);
    let ledger = anchored(&folder, &label).unwrap();
    charge(&ledger, 2, 2_000);
    charge(&ledger, 3, 2_000);
    drop(ledger);
    restore(&folder, &old);
    let ledger = anchored(&folder, &label).unwrap();
    assert!(ledger.left(1, 0) <= TOTAL - 5_000, "{}", ledger.left(1, 0));
    assert!(ledger.left(1, 0) >= TOTAL - 5_000 - LEASE, "{}", ledger.left(1, 0));
    assert_eq!(ledger.left(0, 0), 0);
    verify(folder.path()).unwrap();
}

#[test]
fn an_old_ledger_that_was_stopped_cleanly_is_not_taken_for_the_latest() {
    for clean in [true, false] {
        let (folder, label) = (folder(), MemoryLabel::default());
        let ledger = anchored(&folder, &label).unwrap();
        charge(&ledger, 1, 5_000);
        ledger.stop(at(0)).unwrap();
        let old = snapshot(&folder);
        // A later run charges nothing: the sums stay as they are.
        let ledger = anchored(&folder, &label).unwrap();
        assert!(ledger.anchor().contains("latest"), "{}", ledger.anchor());
        assert_eq!(ledger.charge(plan(&[1], 4_000, 1), at(0)).unwrap().increase_sat(), 0);
        if clean {
            ledger.stop(at(0)).unwrap();
        }
        drop(ledger);
        restore(&folder, &old);
        let ledger = anchored(&folder, &label).unwrap();
        assert!(ledger.anchor().contains("not clean"), "{}", ledger.anchor());
    }
}

#[test]
fn an_untouched_copy_put_back_is_an_alarm() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let untouched = snapshot(&folder);
    let ledger = anchored(&folder, &label).unwrap();
    charge(&ledger, 1, 5_000);
    drop(ledger);
    let latest = snapshot(&folder);
    // It would bring its first burst with it, and take any configuration as the first one, whoever may raise.
    restore(&folder, &untouched);
    let loose = PolicyRules { raise: Raise::Config, ..rules(Limits::default()) };
    assert!(matches!(Ledger::open(options(&folder, loose), label.anchor()), Err(LedgerError::Untouched)));
    assert!(matches!(anchored(&folder, &label), Err(LedgerError::Untouched)));
    restore(&folder, &latest);
    assert_eq!(anchored(&folder, &label).unwrap().left(0, 0), 0);
}

#[test]
fn an_old_ledger_charges_nothing_and_accepts_no_command_but_a_freeze() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let ledger = anchored(&folder, &label).unwrap();
    ledger.stop(at(0)).unwrap();
    let old = snapshot(&folder);
    let add = command(1, Action::AddTotal(Scope::Signer, 1_000));
    let ledger = anchored(&folder, &label).unwrap();
    ledger.apply(add.clone(), at(0)).unwrap();
    ledger.stop(at(0)).unwrap();
    restore(&folder, &old);
    for clean in [true, true, false] {
        let ledger = anchored(&folder, &label).unwrap();
        assert!(ledger.is_stale());
        assert_eq!(refused(ledger.apply(add.clone(), at(0))), RefusalCode::LedgerStale);
        // What the missing command ordered may have been less, slower or nothing at all.
        assert_eq!(refused(ledger.charge(plan(&[1], 1, 0), at(0))), RefusalCode::LedgerStale);
        assert_eq!((ledger.left(0, 0), ledger.left(1, 0)), (0, TOTAL), "nor do its buckets keep their levels");
        if clean {
            ledger.stop(at(5_000)).unwrap();
        }
    }
    let ledger = anchored(&folder, &label).unwrap();
    ledger.apply(command(2, Action::Freeze(Scope::Signer)), at(0)).unwrap();
    drop(ledger);
    let ledger = anchored(&folder, &label).unwrap();
    assert!(ledger.is_stale() && ledger.frozen().iter().any(|why| why.contains("frozen by command 2")), "{:?}", ledger.frozen());
}

#[test]
fn an_anchor_that_knows_less_than_its_ledger_is_an_alarm() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let ledger = anchored(&folder, &label).unwrap();
    charge(&ledger, 1, 10);
    let after_charge = label.0.lock().unwrap().clone();
    charge(&ledger, 2, 1_000);
    drop(ledger);
    let latest = label.0.lock().unwrap().clone();
    *label.0.lock().unwrap() = after_charge;
    assert!(matches!(anchored(&folder, &label), Err(LedgerError::AnchorBehind { .. })));
    // The same for commands.
    *label.0.lock().unwrap() = latest;
    let ledger = anchored(&folder, &label).unwrap();
    let before_command = label.0.lock().unwrap().clone();
    ledger.apply(command(1, Action::Freeze(Scope::Signer)), at(0)).unwrap();
    ledger.apply(command(2, Action::Unfreeze(Scope::Signer)), at(0)).unwrap();
    drop(ledger);
    *label.0.lock().unwrap() = before_command;
    assert!(matches!(anchored(&folder, &label), Err(LedgerError::AnchorBehind { .. })));
}

#[test]
fn another_ledgers_anchor_and_a_lost_one_are_alarms() {
    let (folder, label) = (folder(), MemoryLabel::default());
    drop(anchored(&folder, &label).unwrap());
    let other = super::folder();
    assert!(matches!(anchored(&other, &label), Err(LedgerError::AnchorForeign { .. })), "a fresh ledger would forget what was spent");
    assert!(matches!(anchored(&folder, &MemoryLabel::default()), Err(LedgerError::AnchorLost { .. })));
    let without = Ledger::open(options(&folder, rules(Limits::default())), Box::new(NoAnchor));
    assert!(matches!(without, Err(LedgerError::AnchorLost { .. })));
    drop(anchored(&folder, &label).unwrap());
}

#[test]
fn a_crash_between_a_command_and_its_anchor_is_no_alarm() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let ledger = anchored(&folder, &label).unwrap();
    label.set_broken(true);
    ledger.apply(command(1, Action::AddTotal(Scope::Signer, 500)), at(0)).unwrap();
    // The command holds, and nothing is charged under it before the anchor knows of it.
    assert_eq!(refused(ledger.charge(plan(&[1], 10, 0), at(0))), RefusalCode::LedgerUnavailable);
    drop(ledger);
    assert!(matches!(anchored(&folder, &label), Err(LedgerError::Anchor(_))));
    label.set_broken(false);
    let ledger = anchored(&folder, &label).unwrap();
    assert!(!ledger.is_stale());
    assert_eq!(ledger.left(1, 0), TOTAL + 500);
    ledger.stop(at(0)).unwrap();
    assert!(!anchored(&folder, &label).unwrap().is_stale());
}

#[test]
fn nothing_is_charged_past_a_bound_that_the_anchor_did_not_take() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let ledger = anchored(&folder, &label).unwrap();
    charge(&ledger, 1, 10);
    label.set_broken(true);
    assert_eq!(charge(&ledger, 2, LEASE - 10), LEASE - 10, "within the lease the token is not needed");
    let before = (ledger.levels(at(0)), ledger.totals());
    assert_eq!(refused(ledger.charge(plan(&[3], 1, 0), at(0))), RefusalCode::LedgerUnavailable);
    assert_eq!((ledger.levels(at(0)), ledger.totals()), before);
    label.set_broken(false);
    assert_eq!(charge(&ledger, 3, 1), 1);
}

#[test]
fn a_wallets_own_total_is_burnt_as_well() {
    let (folder, label) = (folder(), MemoryLabel::default());
    let mut with = rules(Limits::default());
    with.wallets.get_mut(HOT).unwrap().limits = limits(&[], Some(1_000));
    let open = || Ledger::open(options(&folder, with.clone()), label.anchor()).unwrap();
    open().stop(at(0)).unwrap();
    let old = snapshot(&folder);
    let ledger = open();
    ledger.charge(plan(&[1], 900, 0), at(0)).unwrap();
    drop(ledger);
    restore(&folder, &old);
    assert!(open().left(0, 0) <= 100);
}

/// The anchor's memory; at each write it notes what a power cut just before and just after would leave.
#[derive(Clone)]
struct Cut {
    label: MemoryLabel,
    folder: PathBuf,
    moments: Arc<Mutex<Vec<Moment>>>,
    answered: Arc<Mutex<(u64, u64)>>,
}

struct Moment {
    labels: [Option<String>; 2],
    files: Vec<(String, Vec<u8>)>,
    /// Satoshi charged and commands applied, by the ledger's word.
    answered: (u64, u64),
}

impl LabelStore for Cut {
    fn read(&mut self) -> Result<Option<String>, AnchorError> {
        self.label.read()
    }

    fn write(&mut self, label: &str) -> Result<(), AnchorError> {
        let labels = [self.label.read()?, Some(label.into())];
        self.moments.lock().unwrap().push(Moment { labels, files: files_of(&self.folder), answered: *self.answered.lock().unwrap() });
        self.label.write(label)
    }
}

#[test]
fn a_power_cut_at_any_write_of_the_anchor_is_no_alarm_and_forgets_nothing() {
    let folder = folder();
    let cut = Cut { label: MemoryLabel::default(), folder: folder.path().into(), moments: Arc::default(), answered: Arc::default() };
    let open = || {
        let rules = rules(limits(&[rate(1, 1_000, 5_000)], Some(TOTAL)));
        Ledger::open(options(&folder, rules), Box::new(LabelAnchor::new(cut.clone()))).unwrap()
    };
    let charge = |ledger: &Ledger, n: u8, sat: u64| {
        let charged = ledger.charge(plan(&[n], sat, 0), at(9_000_000)).unwrap();
        cut.answered.lock().unwrap().0 += charged.increase_sat();
    };
    let order = |ledger: &Ledger, serial: u64| {
        ledger.apply(command(serial, Action::AddTotal(Scope::Signer, 10)), at(9_000_000)).unwrap();
        cut.answered.lock().unwrap().1 += 1;
    };
    let ledger = open();
    charge(&ledger, 1, 1_000);
    order(&ledger, 1);
    charge(&ledger, 2, 50);
    order(&ledger, 2);
    ledger.stop(at(9_000_000)).unwrap();
    // A start after a clean stop tells the anchor nothing.
    let writes = cut.moments.lock().unwrap().len();
    let ledger = open();
    assert_eq!(cut.moments.lock().unwrap().len(), writes);
    order(&ledger, 3);
    drop(ledger);
    let ledger = open();
    charge(&ledger, 3, 500);
    ledger.stop(at(9_000_000)).unwrap();

    let moments = std::mem::take(&mut *cut.moments.lock().unwrap());
    // The first start twice, charges that pass the bound or clear the mark, commands, stops.
    assert_eq!(moments.len(), 10, "{:?}", moments.iter().map(|m| &m.labels).collect::<Vec<_>>());
    for (n, moment) in moments.iter().enumerate() {
        for (m, label) in moment.labels.iter().enumerate() {
            restore(&folder, &moment.files);
            cut.label.0.lock().unwrap().label.clone_from(label);
            // Cut again right after the start that follows: it told the anchor what it had to.
            for start in 0..3 {
                let ledger = anchored(&folder, &cut.label).unwrap_or_else(|e| panic!("write {n}, {m}, start {start}: {e}"));
                assert!(!ledger.is_stale(), "write {n}, {m}, start {start}");
                let totals = ledger.totals();
                assert!(totals.charged_sat >= moment.answered.0 && totals.commands >= moment.answered.1, "write {n}, {m}: {totals:?}");
            }
        }
    }
}
