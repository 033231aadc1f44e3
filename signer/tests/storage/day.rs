//! A day of a signer, the same each time: charges, fee bumps, retries, signatures, commands, clean stops, a kill. It runs on a disk
//! that keeps a log, and everything that the signer promised meanwhile is noted in that log at the moment of the promise.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use postern_protocol::{
    command::{Action, Scope},
    refusal::RefusalCode,
};
use postern_signer::{
    analysis::SpendPlan,
    anchor::{Anchor, AnchorError, LabelAnchor, LabelStore},
    clock::Uptime,
    ledger::{Charged, Ledger, LedgerOptions},
    policy::rules::PolicyRules,
};

use crate::{
    disk::{Disk, Files, Op},
    plans::{HOT, Plans, command, rules, signature},
    vfs::Mounted,
};

pub(crate) const REQUESTS: usize = 200;
/// Charges of a day whose entries, with those of two signatures for every three, are more than may wait in memory.
const BUSY: u64 = 630;
/// After this request the process is killed. After another 20 it is stopped and started, and then it runs until its log is folded in.
const KILLED: usize = 19;
pub(crate) const TOTAL_SAT: u64 = 1_000_000;
const BURST_SAT: u64 = 3_000_000;
/// What each command of the day adds to the total.
const MORE_SAT: u64 = 5_000;

/// What happened outside the disk.
#[derive(Debug, Clone)]
pub(crate) enum Note {
    /// The anchor holds this from here on.
    Anchor(Option<String>),
    /// The signer said that the plan of this number is charged, and what that took.
    Charged(usize, u64),
    /// These signatures were handed over to be kept.
    Recorded(usize, usize),
    /// A command was sent.
    Ordered(u64, Action),
    /// The signer said that the command took effect.
    Applied,
}

/// A finished day.
pub(crate) struct Day {
    pub(crate) start: Files,
    pub(crate) log: Vec<Op>,
    pub(crate) notes: Vec<Note>,
    pub(crate) plans: Vec<Arc<SpendPlan>>,
}

/// Everything that the world knows at one moment of the day.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) anchor: Option<String>,
    /// Charged, by the signer's word, in this order.
    pub(crate) charged: Vec<usize>,
    pub(crate) charged_sat: u64,
    pub(crate) recorded: Vec<(usize, usize)>,
    pub(crate) ordered: Vec<(u64, Action)>,
    /// How many of these took effect by the signer's word.
    pub(crate) applied: usize,
}

impl Facts {
    pub(crate) fn learn(&mut self, note: &Note) {
        match note {
            Note::Anchor(label) => self.anchor.clone_from(label),
            Note::Charged(plan, increase_sat) => {
                if *increase_sat > 0 {
                    self.charged.push(*plan);
                }
                self.charged_sat += increase_sat;
            }
            Note::Recorded(plan, n) => self.recorded.push((*plan, *n)),
            Note::Ordered(serial, action) => self.ordered.push((*serial, action.clone())),
            Note::Applied => self.applied += 1,
        }
    }
}

/// The anchor's memory, which no cut of the disk's power harms; each change is noted.
#[derive(Clone)]
pub(crate) struct Label(Arc<Mutex<Option<String>>>, Option<Notes>);

impl Label {
    /// One that holds this and notes nothing.
    pub(crate) fn holding(label: Option<String>) -> Self {
        Self(Arc::new(Mutex::new(label)), None)
    }

    /// One that holds this; each change is noted in the log of this disk.
    pub(crate) fn noting(label: Option<String>, notes: &Notes) -> Self {
        Self(Arc::new(Mutex::new(label)), Some(notes.clone()))
    }

    pub(crate) fn held(&self) -> Option<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn anchor(&self) -> Box<dyn Anchor> {
        Box::new(LabelAnchor::new(self.clone()))
    }
}

impl LabelStore for Label {
    fn read(&mut self) -> Result<Option<String>, AnchorError> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn write(&mut self, label: &str) -> Result<(), AnchorError> {
        *self.0.lock().unwrap() = Some(label.into());
        if let Some(notes) = &self.1 {
            notes.add(Note::Anchor(Some(label.into())));
        }
        Ok(())
    }
}

/// What happened outside a disk, at its places in the disk's log.
#[derive(Clone)]
pub(crate) struct Notes {
    list: Arc<Mutex<Vec<Note>>>,
    mounted: Arc<Mounted>,
}

impl Notes {
    pub(crate) fn of(mounted: &Arc<Mounted>) -> Self {
        Self { list: Arc::default(), mounted: Arc::clone(mounted) }
    }

    /// Takes the disk away from whoever uses it: its log, and the notes in it.
    pub(crate) fn finish(&self) -> (Vec<Op>, Vec<Note>) {
        self.mounted.unmount();
        (self.mounted.disk(|disk| disk.log.clone()), self.list.lock().unwrap().clone())
    }

    pub(crate) fn add(&self, note: Note) {
        let mut list = self.list.lock().unwrap();
        self.mounted.disk(|disk| disk.note(list.len()));
        list.push(note);
    }
}

pub(crate) fn day_rules() -> PolicyRules {
    rules(TOTAL_SAT, BURST_SAT)
}

pub(crate) fn options(folder: &Path) -> LedgerOptions {
    LedgerOptions { folder: folder.into(), rules: day_rules(), lease_sat: None, policy_hash: "00".into() }
}

/// The files of a ledger that never ran, made in the folder. What stays behind keeps the place: the ledger looks whether its file
/// is there before SQLite does.
pub(crate) fn new_ledger(folder: &Path) -> Files {
    Ledger::create(folder).unwrap();
    let file = folder.join("ledger.db");
    let files = Files::from([("ledger.db".into(), std::fs::read(&file).unwrap())]);
    std::fs::write(file, "").unwrap();
    files
}

/// Runs the day.
pub(crate) fn run(folder: &Path) -> Day {
    let (start, mut signer) = Signer::new(folder);
    for n in 0..REQUESTS {
        signer.request(n);
        match n {
            KILLED => {
                signer.kill();
                signer.start();
            }
            39 => {
                signer.stop();
                signer.start();
            }
            _ => {}
        }
    }
    signer.stop();
    signer.end_of_day(start)
}

/// A day on which so much is charged that the ledger writes what waited in memory, and nothing else happens.
pub(crate) fn run_busy(folder: &Path) -> Day {
    let (start, mut signer) = Signer::new(folder);
    for coin in 0..BUSY {
        signer.at_ms += 10_000;
        signer.charge(usize::try_from(coin).unwrap(), coin, 1_000, 0);
    }
    signer.end_of_day(start)
}

struct Signer<'a> {
    folder: &'a Path,
    mounted: Arc<Mounted>,
    notes: Notes,
    label: Label,
    maker: Plans,
    plans: Vec<Arc<SpendPlan>>,
    /// Numbers of the plans that were charged.
    charged: Vec<usize>,
    ledger: Option<Ledger>,
    at_ms: u64,
}

impl<'a> Signer<'a> {
    /// One that runs, and the disk that it began with.
    fn new(folder: &'a Path) -> (Files, Self) {
        let start = new_ledger(folder);
        let mounted = Arc::new(Mounted::at(folder, Disk::with(&start)));
        let notes = Notes::of(&mounted);
        let label = Label::noting(None, &notes);
        let mut signer =
            Self { folder, mounted, notes, label, maker: Plans::new(), plans: vec![], charged: vec![], ledger: None, at_ms: 0 };
        signer.start();
        (start, signer)
    }

    fn end_of_day(self, start: Files) -> Day {
        // Whoever was killed still holds it.
        let (log, notes) = self.notes.finish();
        Day { start, log, notes, plans: self.plans }
    }

    fn start(&mut self) {
        // Long enough for what starts empty to hold something.
        self.at_ms = 600_000;
        self.ledger = Some(Ledger::open(options(self.folder), self.label.anchor()).unwrap());
    }

    fn stop(&mut self) {
        self.ledger.take().unwrap().stop(Uptime::from_millis(self.at_ms)).unwrap();
    }

    /// As the kernel ends a process: nothing is closed, all locks are gone.
    fn kill(&mut self) {
        std::mem::forget(self.ledger.take());
        std::fs::remove_file(self.folder.join("ledger.lock")).unwrap();
        self.mounted.kill();
    }

    fn request(&mut self, n: usize) {
        self.at_ms += 10_000;
        let serial = u64::try_from(n).unwrap();
        match n % 20 {
            7 => {
                // A fee bump of what was charged last.
                let coin = serial - 1;
                self.charge(n, coin, 1_100 + coin, 1);
            }
            11 => {
                let again = self.charged[n / 2 % self.charged.len()];
                let charged = self.ask(again).unwrap();
                assert!(charged.is_repeat());
            }
            13 => self.order(serial, Action::AddTotal(Scope::Signer, MORE_SAT)),
            15 => self.order(serial, Action::Freeze(Scope::Wallet(HOT.into()))),
            16 => {
                self.plans.push(self.maker.plan(serial, 1_000, 0));
                assert_eq!(self.ask(self.plans.len() - 1).unwrap_err(), RefusalCode::Frozen);
            }
            17 => self.order(serial, Action::Unfreeze(Scope::Wallet(HOT.into()))),
            _ => self.charge(n, serial, 1_000 + serial, 0),
        }
    }

    fn charge(&mut self, n: usize, coin: u64, outflow_sat: u64, salt: u8) {
        self.plans.push(self.maker.plan(coin, outflow_sat, salt));
        let plan = self.plans.len() - 1;
        let charged = self.ask(plan).unwrap();
        self.charged.push(plan);
        // Not of the last one before the kill: what waits to be written then would be written afterwards here.
        if !n.is_multiple_of(3) && n != KILLED {
            self.notes.add(Note::Recorded(plan, n));
            self.ledger.as_ref().unwrap().record(&charged, signature(n));
        }
    }

    fn ask(&self, plan: usize) -> Result<Charged, RefusalCode> {
        let ledger = self.ledger.as_ref().unwrap();
        let charged = ledger.charge(Arc::clone(&self.plans[plan]), Uptime::from_millis(self.at_ms)).map_err(|refusal| refusal.code)?;
        self.notes.add(Note::Charged(plan, charged.increase_sat()));
        Ok(charged)
    }

    fn order(&self, serial: u64, action: Action) {
        self.notes.add(Note::Ordered(serial, action.clone()));
        self.ledger.as_ref().unwrap().apply(command(serial, action), Uptime::from_millis(self.at_ms)).unwrap();
        self.notes.add(Note::Applied);
    }
}
