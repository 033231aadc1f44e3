//! The power is cut before every single call that the ledger makes to its disk in a whole day, and the signer starts again on
//! what a disk may then hold.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use postern_protocol::{
    command::{Action, Scope},
    refusal::RefusalCode,
};
use postern_signer::{
    analysis::SpendPlan,
    clock::Uptime,
    ledger::{Entry, Ledger, show, verify},
};
use tempfile::TempDir;

use crate::{
    day::{Facts, Label, TOTAL_SAT, options, run, run_busy},
    disk::{Disk, Files, Left, Op, Platter},
    plans::{HOT, Plans, command, signature},
    vfs::Mounted,
};

/// Sets how many states are tried for each cut; see `docs/ledger.md`.
pub(crate) const STATES: &str = "POSTERN_POWER_CUT_STATES";

/// A folder in memory where there is such a place: only the lock is in it.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

#[test]
fn a_power_cut_at_any_even_call_loses_no_charge_no_serial_and_no_signer() {
    cut(0);
}

/// The other half, for the other core.
#[test]
fn a_power_cut_at_any_odd_call_loses_no_charge_no_serial_and_no_signer() {
    cut(1);
}

fn cut(half: u64) {
    let random: u64 = std::env::var(STATES).ok().map_or(1, |states| states.parse().unwrap());
    let folder = folder();
    let day = run(folder.path());
    let court = Court { folder: folder.path(), plans: &day.plans, maker: Plans::new() };
    let (mut platter, mut facts) = (Platter::with(&day.start), Facts::default());
    let (mut cuts, mut states, mut deep) = (0_u64, 0_u64, 0_u64);
    let started = Instant::now();
    for (n, op) in day.log.iter().map(Some).chain([None]).enumerate() {
        let n = u64::try_from(n).unwrap();
        let mut tried = vec![];
        // Nothing but the synced: it changes with a sync only, and what must survive is the most right before one.
        if matches!(op, None | Some(Op::Sync { .. } | Op::Note(_))) || platter.is_settled() {
            tried.push(Left::Synced);
        }
        if !platter.is_settled() {
            if random > 1 || n % 6 < 2 {
                tried.push(Left::All);
            }
            if random > 1 || n % 6 >= 2 {
                tried
                    .extend((0..random).map(|r| if (n / 2 + r) % 4 == 0 { Left::Prefix(n << 16 | r) } else { Left::Sectors(n << 16 | r) }));
            }
        }
        if n % 2 != half {
            tried.clear();
        } else {
            cuts += 1;
        }
        for (m, left) in (0..).zip(&tried) {
            let whole = (n / 2 + m) % 16 == 0;
            court.examine(platter.cut(*left), &facts, whole, &format!("cut before call {n}, left {left:?}"));
            states += 1;
            deep += u64::from(whole);
        }
        let Some(op) = op else { break };
        platter.play(op);
        if let Op::Note(note) = op {
            facts.learn(&day.notes[*note]);
        }
    }
    let syncs = day.log.iter().filter(|op| matches!(op, Op::Sync { .. })).count();
    println!(
        "{} requests, {} calls to the disk, {syncs} of them syncs: {cuts} cuts, {states} states restarted from, {deep} of them \
         verified to the last row, in {:?}",
        crate::day::REQUESTS,
        day.log.iter().filter(|op| !matches!(op, Op::Note(_))).count(),
        started.elapsed()
    );
    assert!(states >= cuts && cuts > 500);
}

#[test]
fn a_power_cut_while_what_waited_in_memory_is_written_loses_no_charge() {
    let folder = folder();
    let day = run_busy(folder.path());
    let court = Court { folder: folder.path(), plans: &day.plans, maker: Plans::new() };
    // Between two syncs of a busy day nothing else writes as much.
    let syncs: Vec<usize> = (0..day.log.len()).filter(|n| matches!(day.log[*n], Op::Sync { .. })).collect();
    let (from, to) = syncs.iter().zip(&syncs[1..]).map(|(a, b)| (*a, *b)).max_by_key(|(a, b)| b - a).unwrap();
    assert!(to - from > 40, "{} calls", to - from);
    let (mut platter, mut facts, mut states) = (Platter::with(&day.start), Facts::default(), 0);
    for (n, op) in day.log.iter().enumerate() {
        if (from..to + 10).contains(&n) && (n % 2 == 0 || n.abs_diff(to) < 4) {
            let left = if n % 3 == 0 { Left::All } else { Left::Sectors(u64::try_from(n).unwrap()) };
            court.examine(platter.cut(left), &facts, n % 16 == 0, &format!("cut before call {n}, left {left:?}"));
            states += 1;
        }
        platter.play(op);
        if let Op::Note(note) = op {
            facts.learn(&day.notes[*note]);
        }
    }
    println!("{} calls at once, {states} states restarted from", to - from);
    court.examine(platter.cut(Left::Synced), &facts, true, "at the end");
}

#[test]
#[should_panic(expected = "at the end")]
fn a_disk_that_only_says_that_it_synced_is_found_out() {
    let folder = folder();
    let day = run(folder.path());
    let court = Court { folder: folder.path(), plans: &day.plans, maker: Plans::new() };
    let (mut platter, mut facts) = (Platter::with(&day.start), Facts::default());
    for op in &day.log {
        if !matches!(op, Op::Sync { .. }) {
            platter.play(op);
        }
        if let Op::Note(note) = op {
            facts.learn(&day.notes[*note]);
        }
    }
    court.examine(platter.cut(Left::Sectors(1)), &facts, true, "at the end");
}

/// Starts again after a cut, and judges.
pub(crate) struct Court<'a> {
    pub(crate) folder: &'a Path,
    /// By number, as in [`Facts`].
    pub(crate) plans: &'a [Arc<SpendPlan>],
    /// For what nobody asked for yet.
    pub(crate) maker: Plans,
}

impl Court<'_> {
    pub(crate) fn examine(&self, files: Files, facts: &Facts, whole: bool, what: &str) {
        let _mounted = Mounted::at(self.folder, Disk::with(&files));
        let label = Label::holding(facts.anchor.clone());
        let ledger = Ledger::open(options(self.folder), label.anchor()).unwrap_or_else(|e| panic!("{what}: does not start: {e}"));
        assert!(!ledger.is_stale(), "{what}: taken for an old copy");
        let totals = ledger.totals();
        assert!(totals.charged_sat >= facts.charged_sat, "{what}: {} sat are charged of {}", totals.charged_sat, facts.charged_sat);
        assert!(totals.commands >= u64::try_from(facts.applied).unwrap(), "{what}: a command is forgotten");
        let journal = self.journal(facts, what);

        // A retry is free, and gives the same signatures or none.
        for plan in facts.charged.iter().rev().take(2) {
            let frozen = journal.frozen;
            match ledger.charge(Arc::clone(&self.plans[*plan]), hours(1)) {
                Ok(charged) => {
                    assert!(charged.is_repeat(), "{what}: plan {plan} is charged twice");
                    let recorded = facts.recorded.iter().find(|(of, _)| of == plan).map(|(_, n)| signature(*n));
                    assert!(charged.signatures().is_none_or(|kept| Some(kept) == recorded.as_deref()), "{what}: other signatures");
                }
                Err(refusal) => assert!(frozen && refusal.code == RefusalCode::Frozen, "{what}: {refusal}"),
            }
        }
        // A serial works once.
        if let Some((serial, action)) = facts.ordered[..facts.applied].last() {
            let again = ledger.apply(command(*serial, action.clone()), hours(1)).unwrap_err();
            assert_eq!(again.code, RefusalCode::CommandSerialUsed, "{what}");
        }
        // Serviceable, once thawed.
        if journal.frozen {
            ledger.apply(command(u64::MAX, Action::Unfreeze(Scope::Wallet(HOT.into()))), hours(1)).unwrap();
        }
        ledger.charge(self.maker.plan(1_000_000, 1_000, 9), hours(1)).unwrap_or_else(|e| panic!("{what}: charges nothing: {e}"));
        // Not a satoshi more than what managers allowed.
        let more = journal.allowed_sat - facts.charged_sat - 1_000 + 1;
        let breach = ledger.charge(self.maker.plan(1_000_001, more, 9), hours(2)).unwrap_err();
        assert_eq!(breach.code, RefusalCode::TotalReached, "{what}: {breach}");

        if whole {
            verify(self.folder).unwrap_or_else(|e| panic!("{what}: {e}"));
            ledger.stop(hours(2)).unwrap();
            let ledger = Ledger::open(options(self.folder), label.anchor()).unwrap();
            assert!(ledger.anchor().contains("latest"), "{what}: {}", ledger.anchor());
        }
    }

    /// Everything that was promised is in the journal, and nothing is that nobody asked for.
    fn journal(&self, facts: &Facts, what: &str) -> Journal {
        let mut found = Journal { frozen: false, allowed_sat: TOTAL_SAT };
        let (mut charged, mut serials) = (BTreeSet::new(), BTreeSet::new());
        show(self.folder, 0, |line| {
            match line.entry {
                Entry::Charged(charge) => drop(charged.insert(charge.unsigned_txid())),
                Entry::Commanded(serial, action, ..) => {
                    assert!(facts.ordered.contains(&(serial, action.clone())), "{what}: nobody gave command {serial}");
                    serials.insert(serial);
                    match action {
                        Action::AddTotal(_, sat) => found.allowed_sat += sat,
                        Action::Freeze(_) => found.frozen = true,
                        Action::Unfreeze(_) => found.frozen = false,
                        _ => {}
                    }
                }
                _ => {}
            }
            true
        })
        .unwrap_or_else(|e| panic!("{what}: {e}"));
        for plan in &facts.charged {
            assert!(charged.contains(&self.plans[*plan].unsigned_txid()), "{what}: the charge of plan {plan} is lost");
        }
        for (serial, _) in &facts.ordered[..facts.applied] {
            assert!(serials.contains(serial), "{what}: serial {serial} is forgotten");
        }
        found
    }
}

struct Journal {
    frozen: bool,
    allowed_sat: u64,
}

fn hours(hours: u64) -> Uptime {
    Uptime(Duration::from_secs(hours * 3_600))
}
