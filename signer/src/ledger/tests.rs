#![allow(clippy::unwrap_used)]

mod anchored;
mod charging;
mod commands;
mod documentation;
mod exhaustive;
mod rebasing;
mod restarting;
mod verifying;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, mpsc::sync_channel},
};

use bitcoin::{OutPoint, Txid, hashes::Hash as _};
use postern_protocol::{
    command::{Action, Rate, Scope},
    refusal::{Refusal, RefusalCode},
    reply::{Applied, InputSignature, SignaturePlace},
};
use tempfile::TempDir;

use super::inbox::Order;
use super::{writer::Writer, *};
use crate::{
    analysis::SpendPlan,
    anchor::{Anchor, AnchorError, LabelAnchor, LabelStore, NoAnchor},
    clock::Uptime,
    policy::rules::{Destinations, Limits, PolicyRules, Raise, WalletPolicy},
};

const HOT: &str = "hot";

fn rate(amount_sat: u64, per_ms: u64, burst_sat: u64) -> Rate {
    Rate { amount_sat, per_ms, burst_sat }
}

fn limits(rates: &[Rate], total_sat: Option<u64>) -> Limits {
    Limits { rates: rates.to_vec(), total_sat }
}

/// A signer with these limits and two wallets without limits of their own.
fn rules(signer: Limits) -> PolicyRules {
    let wallet = WalletPolicy { limits: Limits::default(), destinations: Destinations::Any };
    let wallets = BTreeMap::from([(HOT.into(), wallet.clone()), ("warm".into(), wallet)]);
    PolicyRules { raise: Raise::Command, signer, wallets }
}

fn coin(n: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([n; 32]), vout: u32::from(n) }
}

fn coins(numbers: &[u8]) -> Vec<OutPoint> {
    numbers.iter().copied().map(coin).collect()
}

/// Spends these coins of the hot wallet.
fn plan(numbers: &[u8], outflow_sat: u64, salt: u32) -> Arc<SpendPlan> {
    Arc::new(SpendPlan::for_tests(HOT, &coins(numbers), &[], outflow_sat, salt))
}

fn at(ms: u64) -> Uptime {
    Uptime::from_millis(ms)
}

/// A new ledger in a folder of its own, in memory where there is such a place.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
    Ledger::create(folder.path()).unwrap();
    folder
}

fn options(folder: &TempDir, rules: PolicyRules) -> LedgerOptions {
    LedgerOptions { folder: folder.path().into(), rules, lease_sat: None, policy_hash: "00".into() }
}

fn open(folder: &TempDir, rules: PolicyRules) -> Ledger {
    Ledger::open(options(folder, rules), Box::new(NoAnchor)).unwrap()
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> RefusalCode {
    outcome.unwrap_err().code
}

fn signature(n: u8) -> Vec<InputSignature> {
    vec![InputSignature { input: 0, public_key: vec![2; 33], signature: vec![n; 71], place: SignaturePlace::Partial }]
}

fn command(serial: u64, action: Action) -> VerifiedCommand {
    VerifiedCommand { serial, action, managers: vec!["cfo".into(), "cto".into()], base: None }
}

/// A label that lives as long as the test: stands in for the token's, in unit tests alone.
#[derive(Debug, Clone, Default)]
struct MemoryLabel(Arc<Mutex<MemoryLabelState>>);

#[derive(Debug, Clone, Default)]
struct MemoryLabelState {
    label: Option<String>,
    broken: bool,
    writes: u64,
}

impl LabelStore for MemoryLabel {
    fn read(&mut self) -> Result<Option<String>, AnchorError> {
        let state = self.0.lock().unwrap();
        if state.broken { Err(AnchorError::Unavailable("the token is gone".into())) } else { Ok(state.label.clone()) }
    }

    fn write(&mut self, label: &str) -> Result<(), AnchorError> {
        let mut state = self.0.lock().unwrap();
        if state.broken {
            return Err(AnchorError::Unavailable("the token is gone".into()));
        }
        state.label = Some(label.into());
        state.writes += 1;
        Ok(())
    }
}

impl MemoryLabel {
    fn anchor(&self) -> Box<dyn Anchor> {
        Box::new(LabelAnchor::new(self.clone()))
    }

    fn set_broken(&self, broken: bool) {
        self.0.lock().unwrap().broken = broken;
    }
}

impl Ledger {
    /// Runs `work` in the writer's thread and waits for it.
    fn in_writer(&self, work: impl FnOnce(&mut Writer) + Send + 'static) {
        let (done, wait) = sync_channel(1);
        let work = move |writer: &mut Writer| {
            work(writer);
            done.send(()).unwrap();
        };
        self.inbox.order(Order::Test(Box::new(work))).unwrap();
        wait.recv().unwrap();
    }

    /// What is left of the signer's limit with this number.
    fn left(&self, limit: usize, now_ms: u64) -> u64 {
        self.levels(at(now_ms))[limit].available_sat
    }
}

/// A copy of the ledger's file as a thief of the disk would make it, for [`restore`].
fn snapshot(folder: &TempDir) -> Vec<(String, Vec<u8>)> {
    files_of(folder.path())
}

fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap());
    let ledger = files.filter(|f| f.file_name().to_string_lossy().starts_with("ledger.db"));
    ledger.map(|f| (f.file_name().into_string().unwrap(), std::fs::read(f.path()).unwrap())).collect()
}

fn restore(folder: &TempDir, files: &[(String, Vec<u8>)]) {
    for (name, _) in snapshot(folder) {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
}
