//! The power comes back, the signer starts, and the power is cut again: while SQLite reads its log anew, while the start is noted, during
//! the first payment, during the stop.

use std::{path::Path, sync::Arc, time::Instant};

use postern_protocol::refusal::RefusalCode;
use postern_signer::{analysis::SpendPlan, clock::Uptime, ledger::Ledger};

use crate::{
    day::{Facts, Label, Note, Notes, options, run},
    disk::{Disk, Files, Left, Op, Platter},
    plans::Plans,
    power::{Court, STATES, folder},
    vfs::Mounted,
};

/// Of so many first cuts one is followed by second ones, and of so many calls that follow one is a place for these: another one each time.
const EACH: (u64, u64) = (43, 3);

#[test]
fn a_second_power_cut_while_the_signer_recovers_from_the_first_loses_no_charge_no_serial_and_no_signer() {
    let more: u64 = std::env::var(STATES).ok().map_or(1, |states| states.parse().unwrap());
    let folder = folder();
    let day = run(folder.path());
    let maker = Plans::new();
    let plans: Vec<_> = day.plans.iter().cloned().chain([maker.plan(2_000_000, 1_000, 9)]).collect();
    let court = Court { folder: folder.path(), plans: &plans, maker };
    let (mut platter, mut facts) = (Platter::with(&day.start), Facts::default());
    let (mut firsts, mut states) = (0_u64, 0_u64);
    let started = Instant::now();
    for (n, op) in (0_u64..).zip(day.log.iter().map(Some).chain([None])) {
        if n % (EACH.0 / more).max(1) == 0 {
            let left = [Left::Sectors(n), Left::All, Left::Prefix(n)][usize::try_from(firsts % 3).unwrap()];
            let each = if more > 1 { 1 } else { EACH.1 };
            let places = |m: u64| (m + firsts).is_multiple_of(each);
            states += cut_again(&court, places, &platter.cut(left), &facts, &format!("first cut before call {n}, left {left:?}"));
            firsts += 1;
        }
        let Some(op) = op else { break };
        platter.play(op);
        if let Op::Note(note) = op {
            facts.learn(&day.notes[*note]);
        }
    }
    println!("{firsts} first cuts, {states} states after a second one restarted from, in {:?}", started.elapsed());
    assert!(firsts > 30 && states > firsts * 5);
}

/// Starts from these files, and cuts before the calls of that; says how many states were examined.
fn cut_again(court: &Court<'_>, places: impl Fn(u64) -> bool, files: &Files, known: &Facts, first: &str) -> u64 {
    let (log, notes) = recover(court.folder, court.plans, files, known, first);
    let (mut platter, mut facts, mut states) = (Platter::with(files), known.clone(), 0);
    for (m, op) in (0_u64..).zip(log.iter().map(Some).chain([None])) {
        let left = match op {
            None | Some(Op::Sync { .. } | Op::Note(_)) => Left::Synced,
            Some(_) if platter.is_settled() => Left::Synced,
            Some(_) if m % 3 == 0 => Left::All,
            Some(_) => Left::Sectors(m),
        };
        if places(m) {
            court.examine(platter.cut(left), &facts, m % 16 == 0, &format!("{first}; then before call {m}, left {left:?}"));
            states += 1;
        }
        let Some(op) = op else { break };
        platter.play(op);
        if let Op::Note(note) = op {
            facts.learn(&notes[*note]);
        }
    }
    states
}

/// A start, a payment, a stop.
fn recover(folder: &Path, plans: &[Arc<SpendPlan>], files: &Files, known: &Facts, first: &str) -> (Vec<Op>, Vec<Note>) {
    let mounted = Arc::new(Mounted::at(folder, Disk::with(files)));
    let notes = Notes::of(&mounted);
    let label = Label::noting(known.anchor.clone(), &notes);
    let ledger = Ledger::open(options(folder), label.anchor()).unwrap_or_else(|e| panic!("{first}: does not start: {e}"));
    let now = Uptime::from_millis(3_600_000);
    match ledger.charge(Arc::clone(plans.last().unwrap()), now) {
        Ok(charged) => notes.add(Note::Charged(plans.len() - 1, charged.increase_sat())),
        Err(refusal) => assert_eq!(refusal.code, RefusalCode::Frozen, "{first}: {refusal}"),
    }
    ledger.stop(now).unwrap();
    notes.finish()
}
