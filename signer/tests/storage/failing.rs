//! The disk fails at every single call, once or until somebody mends it: an error, no room, a sync that says no and forgets. What was
//! promised before and afterwards holds, also when the power is cut at the end.

use std::{path::Path, sync::Arc};

use postern_protocol::{
    command::{Action, Scope},
    refusal::{Refusal, RefusalCode},
};
use postern_signer::{
    analysis::SpendPlan,
    clock::Uptime,
    ledger::{Ledger, LedgerError},
};

use crate::{
    day::{Facts, Label, Note, new_ledger, options},
    disk::{Disk, Failing, Fault, Files, Left, Platter},
    plans::{HOT, Plans, command, signature},
    power::{Court, folder},
    vfs::Mounted,
};

/// What is asked for in a short life of a signer.
#[derive(Debug, Clone)]
enum Step {
    Start,
    Charge(usize),
    Order(u64, Action),
    Stop,
}

fn life() -> Vec<Step> {
    let hot = || Scope::Wallet(HOT.into());
    vec![
        Step::Start,
        Step::Charge(0),
        Step::Charge(1),
        Step::Order(1, Action::AddTotal(Scope::Signer, 5_000)),
        Step::Charge(2),
        Step::Stop,
        Step::Start,
        Step::Charge(3),
        Step::Order(2, Action::Freeze(hot())),
        Step::Order(3, Action::Unfreeze(hot())),
        Step::Charge(4),
        Step::Stop,
    ]
}

/// A life on a disk that fails.
struct Life<'a> {
    folder: &'a Path,
    mounted: Mounted,
    label: Label,
    plans: &'a [Arc<SpendPlan>],
    ledger: Option<Ledger>,
    facts: Facts,
    /// How often somebody had to mend the disk.
    mended: usize,
}

/// A no, and whether it is one that a failing disk may cause.
#[derive(Debug)]
enum No {
    Refused(Refusal),
    Ledger(LedgerError),
}

impl Life<'_> {
    fn step(&mut self, step: &Step) -> Result<(), No> {
        let now = Uptime::from_millis(3_600_000);
        match step {
            Step::Start => self.ledger = Some(Ledger::open(options(self.folder), self.label.anchor()).map_err(No::Ledger)?),
            Step::Charge(plan) => {
                let ledger = self.ledger.as_ref().unwrap();
                let charged = ledger.charge(Arc::clone(&self.plans[*plan]), now).map_err(No::Refused)?;
                self.facts.learn(&Note::Charged(*plan, charged.increase_sat()));
                self.facts.learn(&Note::Recorded(*plan, *plan));
                ledger.record(&charged, signature(*plan));
            }
            Step::Order(serial, action) => {
                if !self.facts.ordered.iter().any(|(known, _)| known == serial) {
                    self.facts.learn(&Note::Ordered(*serial, action.clone()));
                }
                match self.ledger.as_ref().unwrap().apply(command(*serial, action.clone()), now) {
                    Ok(_) => {}
                    // It came through although the answer was no.
                    Err(refusal) if refusal.code == RefusalCode::CommandSerialUsed => {}
                    Err(refusal) => return Err(No::Refused(refusal)),
                }
                self.facts.learn(&Note::Applied);
            }
            Step::Stop => {
                let stopped = self.ledger.take().unwrap().stop(now);
                stopped.map_err(No::Ledger)?;
            }
        }
        Ok(())
    }

    /// Does it, and when the disk fails, mends the disk and does it again.
    fn live(&mut self, what: &str) {
        for step in life() {
            let Err(no) = self.step(&step) else { continue };
            match &no {
                No::Refused(refusal) => assert_eq!(refusal.code, RefusalCode::LedgerUnavailable, "{what}: {step:?}: {refusal}"),
                No::Ledger(error) => assert!(matches!(error, LedgerError::Sqlite(_)), "{what}: {step:?}: {error}"),
            }
            self.mended += 1;
            self.mounted.disk(|disk| disk.failing = None);
            // A stop that failed is a crash, and that is all.
            if !matches!(step, Step::Stop) {
                self.step(&step).unwrap_or_else(|no| panic!("{what}: {step:?} on the mended disk: {no:?}"));
            }
        }
    }
}

#[test]
fn a_disk_that_fails_at_any_call_costs_no_charge_and_is_used_again_once_mended() {
    let folder = folder();
    let start = new_ledger(folder.path());
    let maker = Plans::new();
    let plans: Vec<_> = (0..5).map(|n| maker.plan(n, 1_000 + n, 0)).collect();
    let court = Court { folder: folder.path(), plans: &plans, maker };
    let (mut lives, mut mended, mut states) = (0, 0, 0);
    for (fault, calls) in [(Fault::Error, 1), (Fault::Error, 1_000), (Fault::Full, 1), (Fault::Full, 1_000)] {
        for from in 0.. {
            let what = format!("{fault:?} of {calls} calls from {from} on");
            let mounted = Mounted::at(folder.path(), Disk::with(&start));
            mounted.disk(|disk| disk.failing = Some(Failing { fault, from, calls }));
            let label = Label::holding(None);
            let facts = Facts::default();
            let mut life = Life { folder: folder.path(), mounted, label, plans: &plans, ledger: None, facts, mended: 0 };
            life.live(&what);
            let (log, made) = life.mounted.disk(|disk| (disk.log.clone(), disk.calls));
            life.facts.anchor = life.label.held();
            mended += life.mended;
            let facts = life.facts.clone();
            drop(life);
            if made <= from {
                break;
            }
            let seed = u64::try_from(from).unwrap();
            for left in [Left::Synced, Left::All, Left::Sectors(seed)] {
                court.examine(at_the_end(&start, &log, left), &facts, from % 8 == 0, &format!("{what}, then a power cut, left {left:?}"));
                states += 1;
            }
            lives += 1;
        }
    }
    println!("{lives} lives, {mended} times the disk was mended, {states} states restarted from");
    assert!(mended * 2 > lives, "most of the calls matter: {mended} of {lives}");
}

fn at_the_end(start: &Files, log: &[crate::disk::Op], left: Left) -> Files {
    let mut platter = Platter::with(start);
    log.iter().for_each(|op| platter.play(op));
    platter.cut(left)
}
