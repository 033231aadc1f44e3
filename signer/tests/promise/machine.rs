//! Long random stories against the real analysis, policy and ledger on disk. After each step the answer must be the model's, and the
//! observer must find the promise kept.
//!
//! `POSTERN_PROMISE_CASES` is how many stories are told (default 64), `POSTERN_PROMISE_STEPS` how long they may be (default 80).

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use postern_protocol::{
    command::{Action, Challenge, Scope},
    refusal::{Refusal, RefusalCode},
};
use postern_signer::{
    analysis::SpendPlan,
    anchor::{Anchor, AnchorError, LabelAnchor, LabelStore, NoAnchor},
    clock::Uptime,
    ledger::{Charged, Ledger, LedgerOptions, VerifiedCommand, verify},
    policy::rules::{self, Destinations, PolicyRules, Raise, WalletPolicy},
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{
    model::{Limits, Model, Order, Published, Transaction, Verdict},
    observer::{Grant, Observer, Rate},
    site::{SITE, Spend, WALLETS},
    story::{Answer, Step, any_step, three_limits},
};

/// A label in memory: it stands for a token whose memory nobody can roll back.
#[derive(Debug, Clone, Default)]
struct Label(Arc<Mutex<Option<String>>>);

impl LabelStore for Label {
    fn read(&mut self) -> Result<Option<String>, AnchorError> {
        Ok(self.0.lock().unwrap().clone())
    }
    fn write(&mut self, label: &str) -> Result<(), AnchorError> {
        *self.0.lock().unwrap() = Some(label.into());
        Ok(())
    }
}

/// A folder in memory, where there is such a place.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

type Files = Vec<(String, Vec<u8>)>;

const LEASE_SAT: u64 = 700;

/// A command as it was made, with the re-base after which: the real one, and the model's.
#[derive(Debug, Clone)]
struct Ordered {
    serial: u64,
    base: (Option<Challenge>, Option<u64>),
    scope: usize,
    order: Order,
}

/// The real thing, the model, and who watches: the signer, and each wallet.
struct Machine {
    folder: TempDir,
    label: Option<Label>,
    ledger: Option<Ledger>,
    limits: Vec<Limits>,
    copies: Vec<(Files, Vec<Observer>, Vec<u64>)>,
    model: Model<Published>,
    watched: Vec<Observer>,
    /// Whether a command set a scope's rates: then what the configuration says is the model's business alone.
    commanded: Vec<bool>,
    asked: Vec<(usize, Spend)>,
    orders: Vec<Ordered>,
    rebases: Vec<VerifiedCommand>,
    /// Of the last command.
    serial: u64,
    /// Serials that the disk knows, and those that the latest disk knew.
    known: Vec<u64>,
    latest: Vec<u64>,
    /// Everything that was ever charged, by whatever disk: what honest managers know.
    charged_sat: u64,
    now_ms: u64,
    /// What all earlier runs saw pass.
    before_ms: u64,
}

impl Machine {
    fn new(limits: &[Limits], anchored: bool) -> Self {
        let folder = folder();
        Ledger::create(folder.path()).unwrap();
        let mut machine = Self {
            folder,
            label: anchored.then(Label::default),
            ledger: None,
            limits: limits.to_vec(),
            copies: vec![],
            model: Model::new(limits, anchored, LEASE_SAT),
            watched: limits.iter().map(|l| Observer::new(&l.rates, l.total_sat)).collect(),
            commanded: vec![false; limits.len()],
            asked: vec![],
            orders: vec![],
            rebases: vec![],
            serial: 0,
            known: vec![],
            latest: vec![],
            charged_sat: 0,
            now_ms: 0,
            before_ms: 0,
        };
        // Copies begin after the first start: an untouched one brings its first burst with it where there is no anchor, as the
        // documentation says, and is an alarm where there is one.
        machine.start();
        machine.copy();
        machine
    }

    fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap()
    }

    fn anchor(&self) -> Box<dyn Anchor> {
        match &self.label {
            Some(label) => Box::new(LabelAnchor::new(label.clone())),
            None => Box::new(NoAnchor),
        }
    }

    fn start(&mut self) {
        let options = LedgerOptions {
            folder: self.folder.path().into(),
            rules: policy(&self.limits),
            lease_sat: Some(LEASE_SAT),
            policy_hash: "00".into(),
        };
        self.ledger = Some(Ledger::open_or_hold(options, self.anchor()).unwrap());
        self.before_ms += self.model.seen_ms();
        self.now_ms = 0;
        self.model.start(&self.limits);
        assert_eq!(self.ledger().is_stale(), self.model.is_stale());
        // Judged without the model: no old copy passes for the latest where a command would be forgotten.
        assert!(self.label.is_none() || self.ledger().is_stale() || self.known == self.latest, "{:?} of {:?}", self.known, self.latest);
    }

    /// A command took effect.
    fn applied(&mut self, serial: u64) {
        self.known.push(serial);
        // What is ordered while nothing can be charged goes on from an old copy only once that is re-based.
        if !self.model.is_stale() {
            self.latest.clone_from(&self.known);
        }
    }

    fn copy(&mut self) {
        let files = fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap);
        let files = files.filter(|f| f.file_name().to_string_lossy().starts_with("ledger.db"));
        let files = files.map(|f| (f.file_name().into_string().unwrap(), fs::read(f.path()).unwrap())).collect();
        self.copies.push((files, self.watched.clone(), self.known.clone()));
        self.model.copy();
    }

    fn restore(&mut self, copy: usize) {
        for file in fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap) {
            fs::remove_file(file.path()).unwrap();
        }
        let (files, watched, known) = &self.copies[copy];
        self.known.clone_from(known);
        for (name, bytes) in files {
            fs::write(self.folder.path().join(name), bytes).unwrap();
        }
        let now_ms = self.before_ms + self.model.seen_ms();
        for (observer, copy) in self.watched.iter_mut().zip(watched) {
            observer.limits_of(copy, now_ms);
            if self.label.is_none() {
                // It has forgotten sums, and nobody can notice. The rates hold even so.
                observer.no_total();
            }
        }
        self.model.restore(copy);
    }

    fn play(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let earlier = |n: usize| (!self.asked.is_empty()).then(|| self.asked[n % self.asked.len()]);
        match step {
            Step::Ask(wallet, spend) => self.ask(*wallet, *spend, self.now_ms, 1)?,
            Step::Again(n) => {
                if let Some((wallet, spend)) = earlier(*n) {
                    self.ask(wallet, spend, self.now_ms, 1)?;
                }
            }
            Step::Across(n) => {
                if let Some((wallet, spend)) = earlier(*n) {
                    self.ask(1 - wallet, spend, self.now_ms, 1)?;
                }
            }
            Step::Bump(n, change) => {
                if let Some((wallet, spend)) = earlier(*n) {
                    self.ask(wallet, change.apply(spend, wallet), self.now_ms, 1)?;
                }
            }
            Step::Parallel(wallet, spend) => self.ask(*wallet, *spend, self.now_ms, 3)?,
            Step::Pass(ms) => self.now_ms += ms,
            Step::Late(ms) => {
                if let Some((wallet, spend)) = self.asked.last().copied() {
                    self.ask(wallet, spend, self.now_ms.saturating_sub(*ms), 1)?;
                }
            }
            Step::Copy => self.copy(),
            Step::Crash | Step::Stop | Step::Restore(_) | Step::Erase => {
                if let Step::Stop = step {
                    self.ledger().stop(Uptime::from_millis(self.now_ms)).unwrap();
                    self.model.stop(self.now_ms);
                }
                self.ledger = None;
                self.model.crash();
                if let Step::Stop = step {
                    self.copy();
                }
                if let Step::Restore(n) = step {
                    self.restore(n % self.copies.len());
                }
                if let Step::Erase = step
                    && let Some(label) = &self.label
                {
                    *label.0.lock().unwrap() = None;
                    self.model.erase_anchor();
                }
                self.start();
            }
            Step::Configure(scope, limits) => self.configure(*scope, limits),
            Step::Order(scope, order) => {
                let base = (self.ledger().base(), self.model.base());
                let ordered = Ordered { serial: self.next_serial(), base, scope: *scope, order: order.clone() };
                self.orders.push(ordered.clone());
                self.order(&ordered)?;
            }
            Step::Replay(n) => {
                if !self.orders.is_empty() {
                    self.order(&self.orders[n % self.orders.len()].clone())?;
                }
            }
            Step::Rebase(answer) => self.rebase(*answer)?,
        }
        Ok(())
    }

    /// Asks, by as many as are told, all at once.
    fn ask(&mut self, wallet: usize, spend: Spend, told_ms: u64, askers: usize) -> Result<(), TestCaseError> {
        if spend.own(wallet) == 0 {
            return Ok(());
        }
        self.asked.push((wallet, spend));
        let plan = match SITE.plan(&spend, wallet) {
            Ok(plan) => plan,
            // Outputs that would be worth more than the coins, or none at all.
            Err(refusal) => {
                let harmless = [RefusalCode::AmountNegativeFee, RefusalCode::TxNoOutputs, RefusalCode::FeeTooLow];
                prop_assert!(harmless.contains(&refusal.code), "{refusal} for {spend:?}");
                return Ok(());
            }
        };
        let transaction = SITE.transaction(&spend, wallet, &plan);
        let mut answers = charge(self.ledger(), &plan, told_ms, askers);
        // Who came first is the one that was charged.
        answers.sort_by_key(|answer| answer.as_ref().is_ok_and(Charged::is_repeat));
        for answer in answers {
            let answer = verdict(answer)?;
            let expected = self.model.ask(&transaction, told_ms);
            prop_assert_eq!(answer, expected, "{:?}", transaction);
            if let Verdict::Granted { increase_sat, .. } = answer {
                self.charged_sat += increase_sat;
                self.granted(&transaction)?;
            }
        }
        Ok(())
    }

    fn granted(&mut self, transaction: &Transaction) -> Result<(), TestCaseError> {
        let Transaction { id, wallet, own, foreign, outflow_sat, .. } = *transaction;
        let grant = Grant { transaction: id, wallet, spends: own | foreign, outflow_sat };
        let now_ms = self.before_ms + self.model.seen_ms();
        for scope in [0, wallet + 1] {
            self.watched[scope].granted(grant, now_ms).map_err(|broken| TestCaseError::fail(format!("scope {scope}: {broken}")))?;
        }
        Ok(())
    }

    fn configure(&mut self, scope: usize, limits: &Limits) {
        // It takes effect at the next start; a clean one here, so that the observer knows from when on it holds.
        self.ledger().stop(Uptime::from_millis(self.now_ms)).unwrap();
        self.model.stop(self.now_ms);
        self.ledger = None;
        let old = self.model.accepted_total_sat(scope);
        self.limits[scope] = limits.clone();
        self.start();
        // Before a re-base nothing is taken over.
        if !self.model.is_alarmed() {
            self.in_force(scope, old);
        }
    }

    /// What the configuration says of a scope is in force, where it is stricter. The accepted total was another one.
    fn in_force(&mut self, scope: usize, old: Option<u64>) {
        let (limits, now_ms) = (&self.limits[scope], self.before_ms + self.model.seen_ms());
        let observer = &mut self.watched[scope];
        if !self.commanded[scope] {
            observer.rates_hold(&limits.rates, now_ms);
        }
        if let Some(new) = limits.total_sat
            && old.is_none_or(|old| new < old)
        {
            observer.total_lowered(old, new);
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn rebase(&mut self, answer: Answer) -> Result<(), TestCaseError> {
        let shown = self.ledger().rebase_needed();
        let challenge = shown.as_ref().map_or([0; 16], |needed| hex::decode(&needed.challenge).unwrap().try_into().unwrap());
        let least_sat = self.model.least_sat();
        if let Some(needed) = &shown {
            prop_assert_eq!(needed.least_sat, least_sat);
        }
        let honest_sat = self.charged_sat.max(least_sat);
        let (mut serial, mut spent_sat, mut answered) = (self.next_serial(), Some(honest_sat), challenge);
        match answer {
            Answer::Honest(more) => spent_sat = Some(honest_sat + more),
            Answer::TooLittle(less) if less <= least_sat => spent_sat = Some(least_sat - less),
            Answer::UsedSerial(n) if !self.orders.is_empty() => serial = self.orders[n % self.orders.len()].serial,
            _ => (spent_sat, answered) = (None, [9; 16]),
        }
        let action = Action::Rebase { challenge: answered, spent_sat: spent_sat.unwrap_or(honest_sat) };
        let mut command = VerifiedCommand { serial, action, managers: vec!["cfo".into()], base: None };
        match answer {
            // Whatever it was: it was refused or is used, and each start asks anew.
            Answer::Replay(n) if !self.rebases.is_empty() => command = self.rebases[n % self.rebases.len()].clone(),
            _ => self.rebases.push(command.clone()),
        }
        let accepted: Vec<_> = (0..self.limits.len()).map(|scope| self.model.accepted_total_sat(scope)).collect();
        let was_alarmed = self.model.is_alarmed();
        let applied = self.ledger().apply(command, Uptime::from_millis(self.now_ms));
        let expected = self.model.rebase(serial, spent_sat, &self.limits, self.now_ms);
        prop_assert_eq!(applied.is_ok(), expected, "{:?} {:?}", answer, applied);
        if expected {
            self.applied(serial);
        }
        if expected && was_alarmed {
            (0..).zip(accepted).for_each(|(scope, old)| self.in_force(scope, old));
        }
        prop_assert_eq!(self.ledger().is_stale(), self.model.is_stale());
        Ok(())
    }

    fn order(&mut self, ordered: &Ordered) -> Result<(), TestCaseError> {
        let Ordered { serial, base, scope, order } = ordered;
        let (serial, scope) = (*serial, *scope);
        let of = if scope == 0 { Scope::Signer } else { Scope::Wallet(WALLETS[scope - 1].into()) };
        let action = match order {
            Order::AddTotal(sat) => Action::AddTotal(of, *sat),
            Order::SetTotal(sat) => Action::SetTotal(of, *sat),
            Order::SetRates(rates) => Action::SetRate(of, rates.iter().map(real_rate).collect()),
            Order::Freeze => Action::Freeze(of),
            Order::Unfreeze => Action::Unfreeze(of),
        };
        let command = VerifiedCommand { serial, action, managers: vec!["cfo".into()], base: base.0 };
        let applied = self.ledger().apply(command, Uptime::from_millis(self.now_ms));
        let expected = self.model.order(serial, base.1, scope, order, self.now_ms);
        prop_assert_eq!(applied.is_ok(), expected, "{:?} {:?}", order, applied);
        if applied.is_err() {
            return Ok(());
        }
        self.applied(serial);
        let now_ms = self.before_ms + self.model.seen_ms();
        let observer = &mut self.watched[scope];
        match order {
            Order::AddTotal(sat) => observer.total_added(*sat),
            Order::SetTotal(sat) => observer.total_set(*sat),
            Order::SetRates(rates) => {
                observer.rates_change(rates, now_ms);
                self.commanded[scope] = true;
            }
            Order::Freeze | Order::Unfreeze => {}
        }
        Ok(())
    }
}

fn charge(ledger: &Ledger, plan: &Arc<SpendPlan>, told_ms: u64, askers: usize) -> Vec<Result<Charged, Refusal>> {
    let ask = || ledger.charge(Arc::clone(plan), Uptime::from_millis(told_ms));
    if askers == 1 {
        return vec![ask()];
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..askers).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn verdict(answer: Result<Charged, Refusal>) -> Result<Verdict, TestCaseError> {
    let refusal = match answer {
        Ok(charged) => return Ok(Verdict::Granted { increase_sat: charged.increase_sat(), repeat: charged.is_repeat() }),
        Err(refusal) => refusal,
    };
    match refusal.code {
        RefusalCode::LedgerStale => Ok(Verdict::Stale),
        RefusalCode::Frozen => Ok(Verdict::Frozen),
        RefusalCode::RateBurst => Ok(Verdict::Burst),
        RefusalCode::TotalReached => Ok(Verdict::Total),
        RefusalCode::RateWait => Ok(Verdict::WaitMs(refusal.wait_ms.unwrap())),
        _ => Err(TestCaseError::fail(refusal.to_string())),
    }
}

fn real_rate(rate: &Rate) -> rules::Rate {
    rules::Rate { amount_sat: rate.amount_sat, per_ms: rate.per_ms, burst_sat: rate.burst_sat }
}

pub fn policy(limits: &[Limits]) -> PolicyRules {
    let real = |limits: &Limits| rules::Limits { rates: limits.rates.iter().map(real_rate).collect(), total_sat: limits.total_sat };
    let wallet = |limits: &Limits| WalletPolicy { limits: real(limits), destinations: Destinations::Any };
    let wallets = WALLETS.iter().zip(&limits[1..]).map(|(name, limits)| ((*name).to_owned(), wallet(limits)));
    PolicyRules { raise: Raise::Command, signer: real(&limits[0]), wallets: BTreeMap::from_iter(wallets) }
}

fn play(limits: &[Limits], anchored: bool, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut machine = Machine::new(limits, anchored);
    for step in steps {
        machine.play(step)?;
    }
    machine.ledger = None;
    verify(machine.folder.path()).unwrap();
    Ok(())
}

fn number(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn told() -> ProptestConfig {
    ProptestConfig {
        cases: number("POSTERN_PROMISE_CASES", 64),
        max_shrink_iters: 4_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn story() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 1..usize::try_from(number("POSTERN_PROMISE_STEPS", 80)).unwrap())
}

proptest! {
    #![proptest_config(told())]

    #[test]
    fn with_an_anchor_the_promise_holds_whatever_happens(limits in three_limits(), steps in story()) {
        play(&limits, true, &steps)?;
    }

    #[test]
    fn without_an_anchor_it_holds_but_for_the_total_once_an_old_ledger_was_put_back(limits in three_limits(), steps in story()) {
        play(&limits, false, &steps)?;
    }
}
