//! Bits flip on the disk, in every page of the database and of its log. Whatever the signer then says is true, or it says that the
//! ledger is damaged.

use std::{path::Path, sync::Arc};

use postern_protocol::refusal::RefusalCode;
use postern_signer::{
    clock::Uptime,
    ledger::{Ledger, LedgerError, Totals, show, verify},
};

use crate::{
    day::{Day, Facts, Label, options, run},
    disk::{Dice, Disk, Files, Left, Platter},
    plans::{Plans, command},
    power::folder,
    vfs::Mounted,
};

const PAGE: usize = 4096;

/// The day's files after so many of its calls, and what was promised until then.
fn after(day: &Day, calls: usize) -> (Files, Facts) {
    let (mut platter, mut facts) = (Platter::with(&day.start), Facts::default());
    for op in &day.log[..calls] {
        platter.play(op);
        if let crate::disk::Op::Note(note) = op {
            facts.learn(&day.notes[*note]);
        }
    }
    (platter.cut(Left::All), facts)
}

fn entries(folder: &Path) -> Result<Vec<[u8; 32]>, LedgerError> {
    let mut hashes = vec![];
    show(folder, 0, |line| {
        hashes.push(line.hash);
        true
    })?;
    Ok(hashes)
}

/// Opens a damaged copy. None: it is refused.
fn start(folder: &Path, files: &Files, facts: &Facts, what: &str) -> Option<(Mounted, Ledger)> {
    let mounted = Mounted::at(folder, Disk::with(files));
    match Ledger::open(options(folder), Label::holding(facts.anchor.clone()).anchor()) {
        Ok(ledger) => Some((mounted, ledger)),
        Err(error) => {
            let clear = matches!(error, LedgerError::Damaged { .. } | LedgerError::NotALedger { .. } | LedgerError::Schema { .. });
            assert!(clear, "{what}: {error:?}");
            assert!(error.to_string().contains("docs/ledger.md") || matches!(error, LedgerError::Schema { .. }), "{what}: {error}");
            None
        }
    }
}

#[test]
fn a_flipped_bit_in_any_page_of_the_database_is_found_or_harmless() {
    let folder = folder();
    let day = run(folder.path());
    let (files, facts) = after(&day, day.log.len());
    assert_eq!(files.len(), 1, "stopped in order: {:?}", files.keys());
    let (honest, totals): (Vec<_>, Totals) = {
        let _mounted = Mounted::at(folder.path(), Disk::with(&files));
        (entries(folder.path()).unwrap(), verify(folder.path()).unwrap().totals)
    };
    let pages = files["ledger.db"].len() / PAGE;
    let (mut found, mut harmless, mut unverified) = (0, 0, 0);
    let plans = Plans::new();
    for page in 0..pages {
        let mut dice = Dice(u64::try_from(page).unwrap());
        for round in 0..6 {
            let mut files = files.clone();
            // Where a page's structure is, and anywhere.
            let within = if round == 0 { dice.below(64) } else { dice.below(PAGE) };
            files.get_mut("ledger.db").unwrap()[page * PAGE + within] ^= 1 << dice.below(8);
            let what = format!("page {page}, byte {within}");
            match start(folder.path(), &files, &facts, &what) {
                None => found += 1,
                Some((_mounted, ledger)) => {
                    harmless += 1;
                    assert_eq!(ledger.totals(), totals, "{what}");
                    assert!(ledger.anchor().contains("latest"), "{what}: {}", ledger.anchor());
                    let now = entries(folder.path()).unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert_eq!(now[..honest.len()], honest, "{what}");
                    unverified += usize::from(verify(folder.path()).is_err());
                    use_it(&ledger, &day, &facts, &plans, &what);
                }
            }
        }
    }
    println!("{pages} pages: {found} flips found at the start, {harmless} harmless, {unverified} of them found by verify");
    assert!(found > harmless);
}

/// Nothing was forgotten that would let more out: a retry is free, charged again, or refused; so is a fee bump; a serial works once.
fn use_it(ledger: &Ledger, day: &Day, facts: &Facts, plans: &Plans, what: &str) {
    let now = Uptime::from_millis(3_600_000);
    let mut refused = 0;
    for (serial, action) in &facts.ordered {
        let again = ledger.apply(command(*serial, action.clone()), now).unwrap_err();
        assert_eq!(again.code, RefusalCode::CommandSerialUsed, "{what}");
    }
    for plan in facts.charged.iter().rev().step_by(9).chain(&facts.charged[..1]) {
        let plan = &day.plans[*plan];
        if let Err(refusal) = ledger.charge(Arc::clone(plan), now) {
            assert_eq!(refusal.code, RefusalCode::LedgerUnavailable, "{what}: {refusal}");
            refused += 1;
        }
    }
    // The coin of the first request, 10 sat more.
    match ledger.charge(plans.plan(0, 1_010, 5), now) {
        Ok(charged) => assert!(charged.increase_sat() >= 10, "{what}: {}", charged.increase_sat()),
        Err(refusal) => assert_eq!(refusal.code, RefusalCode::LedgerUnavailable, "{what}: {refusal}"),
    }
    assert!(refused <= 4, "{what}: {refused} retries refused");
}

#[test]
fn a_flipped_bit_in_the_log_after_a_crash_gives_nothing_away() {
    let folder = folder();
    let day = run(folder.path());
    let plans = Plans::new();
    // In the middle of the last session, when the log is long.
    let (files, facts) = after(&day, day.log.len() * 3 / 4);
    let log = files["ledger.db-wal"].len();
    let (mut found, mut cut) = (0, 0);
    let frame = PAGE + 24;
    for (n, at) in (0..log / frame).map(|n| (n, 32 + n * frame)).chain([(0, 0)]) {
        let mut dice = Dice(u64::try_from(n).unwrap());
        let mut files = files.clone();
        let within = dice.below(if at == 0 { 32 } else { frame });
        files.get_mut("ledger.db-wal").unwrap()[at + within] ^= 1 << dice.below(8);
        let what = format!("frame {n}, byte {within}");
        let Some((_mounted, ledger)) = start(folder.path(), &files, &facts, &what) else {
            found += 1;
            continue;
        };
        cut += 1;
        // It goes on from before, as an old copy would: what was charged meanwhile is below the anchor's bound.
        if n.is_multiple_of(8) {
            verify(folder.path()).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        assert!(ledger.totals().charged_sat >= facts.charged_sat, "{what}: {:?}", ledger.totals());
        let now = Uptime::from_millis(3_600_000);
        let last = Arc::clone(&day.plans[*facts.charged.last().unwrap()]);
        match ledger.charge(last, now) {
            Ok(_) => assert!(!ledger.is_stale()),
            Err(refusal) => assert!(matches!(refusal.code, RefusalCode::LedgerStale | RefusalCode::Frozen), "{what}: {refusal}"),
        }
        let allowed = crate::day::TOTAL_SAT + facts.ordered.iter().map(|(_, action)| more(action)).sum::<u64>();
        let breach = ledger.charge(plans.plan(7_777, allowed - facts.charged_sat + 1, 3), now);
        assert!(breach.is_err(), "{what}: more than is left was charged");
    }
    println!("{} frames: {found} flips found, {cut} cut the log short", log / frame);
    assert!(cut + found > 100);
}

fn more(action: &postern_protocol::command::Action) -> u64 {
    match action {
        postern_protocol::command::Action::AddTotal(_, sat) => *sat,
        _ => 0,
    }
}
