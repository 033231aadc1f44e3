//! How fast the ledger charges: against bare SQLite transactions that write the same rows, as many to a sync as clients wait.
//!
//! The bare side has no clients, decides nothing and looks nothing up. Both run in turns on the same disk, so that what else the
//! machine does hits both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bitcoin::{
    Amount, Network, OutPoint, Psbt, PublicKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    absolute::LockTime,
    hashes::Hash as _,
    secp256k1::{Secp256k1, SecretKey},
    transaction::Version,
};
use postern_protocol::command::Rate;
use postern_signer::{
    analysis::{SpendPlan, analyze},
    anchor::NoAnchor,
    clock::Uptime,
    keystore::BoundKeys,
    ledger::{Ledger, LedgerOptions},
    policy::rules::{Limits, PolicyRules, SpendRules, WalletPolicy},
    wallet::Wallet,
};
use rusqlite::{Connection, params};
use tempfile::TempDir;

const ROUNDS: u32 = 10;
const FOR: Duration = Duration::from_millis(300);

fn main() {
    // Beside the program, so on a disk: a sync on tmpfs costs nothing, and nothing could be learnt from sharing one.
    let run = TempDir::new_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let folder = |name: String| {
        let folder = run.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    let mut plans = Plans::new();
    for clients in [1, 16, 64] {
        let ours = Ours::open(&folder(format!("ours-{clients}")));
        let mut bare = Bare::open(&folder(format!("bare-{clients}")));
        let (mut charges, mut commits) = (Count::default(), Count::default());
        for _ in 0..ROUNDS {
            commits.add(bare.commit(clients));
            charges.add(ours.charge(&mut plans, clients));
        }
        ours.ledger.stop(Uptime::default()).unwrap();
        let ratio = charges.per_second() / commits.per_second();
        say(&format!("ledger: bare SQLite, {clients} to a sync"), commits.per_second(), None);
        say(&format!("ledger: charges, {clients} clients"), charges.per_second(), Some(ratio));
    }
}

fn say(name: &str, value: f64, ratio: Option<f64>) {
    let value = value.round();
    match ratio {
        None => println!("{}", serde_json::json!({ "name": name, "value": value, "unit": "/s" })),
        Some(ratio) => {
            let goal = "at least 0.8 of bare SQLite commits";
            let ratio = (ratio * 100.0).round() / 100.0;
            println!(
                "{}",
                serde_json::json!({ "name": name, "value": value, "unit": "/s", "ratio": ratio, "goal": goal, "ok": ratio >= 0.8 })
            );
        }
    }
}

#[derive(Default)]
struct Count {
    charges: f64,
    seconds: f64,
}

impl Count {
    fn add(&mut self, (charges, time): (u64, Duration)) {
        self.charges += charges as f64;
        self.seconds += time.as_secs_f64();
    }

    fn per_second(&self) -> f64 {
        self.charges / self.seconds
    }
}

struct Ours {
    ledger: Ledger,
}

impl Ours {
    fn open(folder: &Path) -> Self {
        Ledger::create(folder).unwrap();
        let day = Rate { amount_sat: 100_000_000_000_000, per_ms: 86_400_000, burst_sat: 100_000_000_000_000 };
        let limits = Limits { rates: vec![day], total_sat: Some(2_000_000_000_000_000) };
        let wallet = WalletPolicy { limits: limits.clone(), ..WalletPolicy::default() };
        let rules = PolicyRules { signer: limits, wallets: BTreeMap::from([("hot".into(), wallet)]), ..PolicyRules::default() };
        let options = LedgerOptions { folder: folder.into(), rules, lease_sat: None, policy_hash: String::new() };
        Self { ledger: Ledger::open(options, Box::new(NoAnchor)).unwrap() }
    }

    /// Each client asks for the next charge when the last one is on disk.
    fn charge(&self, plans: &mut Plans, clients: u64) -> (u64, Duration) {
        // Made before the watch starts: what the analysis costs is measured elsewhere.
        let own: Vec<Vec<Arc<SpendPlan>>> = (0..clients).map(|_| plans.take(6_000 / clients.max(4))).collect();
        let started = Instant::now();
        let charged = thread::scope(|scope| {
            let clients: Vec<_> = own.into_iter().map(|plans| scope.spawn(move || self.client(plans, started))).collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        (charged, started.elapsed())
    }

    fn client(&self, plans: Vec<Arc<SpendPlan>>, started: Instant) -> u64 {
        let mut charged = 0;
        for plan in plans {
            if started.elapsed() > FOR {
                break;
            }
            assert!(!self.ledger.charge(plan, Uptime::default()).unwrap().is_repeat());
            charged += 1;
        }
        charged
    }
}

/// A ledger's file, written to without a ledger.
struct Bare {
    db: Connection,
    seq: i64,
}

impl Bare {
    fn open(folder: &Path) -> Self {
        Ledger::create(folder).unwrap();
        let db = Connection::open(folder.join("ledger.db")).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL").unwrap();
        Self { db, seq: 1 }
    }

    fn commit(&mut self, batch: u64) -> (u64, Duration) {
        let started = Instant::now();
        let first = self.seq;
        while started.elapsed() < FOR {
            self.run("BEGIN IMMEDIATE", params![]);
            for _ in 0..batch {
                self.seq += 1;
                // As random as a txid, and as long as a charge's row.
                let txid = Txid::hash(&self.seq.to_le_bytes()).to_byte_array();
                self.run(
                    "INSERT INTO journal VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![self.seq, [1_u8; 32], "charged", [2_u8; 116], [3_u8; 32]],
                );
                self.run("INSERT INTO charges VALUES (?1, ?2, ?3, ?4)", params![txid, "hot", self.seq, 21_000]);
                let outpoint = [&txid[..], &[0; 4]].concat();
                self.run("INSERT INTO families VALUES (?1, ?2, ?3, ?4, 1, ?3)", params![outpoint, "hot", self.seq, 21_000]);
            }
            for wallet in ["", "hot"] {
                self.run("INSERT OR REPLACE INTO scopes VALUES (?1, ?2)", params![wallet, [4_u8; 100]]);
            }
            self.run("INSERT OR REPLACE INTO state VALUES (0, ?1)", params![[5_u8; 50]]);
            self.run("COMMIT", params![]);
        }
        (u64::try_from(self.seq - first).unwrap(), started.elapsed())
    }

    fn run(&self, statement: &str, values: &[&dyn rusqlite::ToSql]) {
        self.db.prepare_cached(statement).unwrap().execute(values).unwrap();
    }
}

/// Plans that were never charged before: one p2wpkh input each.
struct Plans {
    wallet: Wallet,
    own: ScriptBuf,
    next: u64,
}

impl Plans {
    fn new() -> Self {
        let key = PublicKey::new(SecretKey::from_slice(&[7; 32]).unwrap().public_key(&Secp256k1::new()));
        let wallet = Wallet::new("hot", Network::Regtest, &format!("wpkh({key})"), 1, BoundKeys::Hsm { public_key: key }).unwrap();
        Self { wallet, own: ScriptBuf::new_p2wpkh(&key.wpubkey_hash().unwrap()), next: 1 }
    }

    fn take(&mut self, count: u64) -> Vec<Arc<SpendPlan>> {
        (0..count).map(|_| self.one()).collect()
    }

    fn one(&mut self) -> Arc<SpendPlan> {
        self.next += 1;
        let own = |sat| TxOut { value: Amount::from_sat(sat), script_pubkey: self.own.clone() };
        let from = OutPoint { txid: Txid::hash(&self.next.to_le_bytes()), vout: 0 };
        let coin = transaction(from, vec![own(1_000_000)]);
        let pay = TxOut { value: Amount::from_sat(20_000), script_pubkey: ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::all_zeros()) };
        let spend = transaction(OutPoint { txid: coin.compute_txid(), vout: 0 }, vec![pay, own(979_000)]);
        let mut psbt = Psbt::from_unsigned_tx(spend).unwrap();
        psbt.inputs[0].non_witness_utxo = Some(coin);
        Arc::new(analyze(&self.wallet, &SpendRules::default(), &psbt.serialize()).unwrap())
    }
}

fn transaction(previous_output: OutPoint, output: Vec<TxOut>) -> Transaction {
    let input = vec![TxIn { previous_output, sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, ..TxIn::default() }];
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}
