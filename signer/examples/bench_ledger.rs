//! How fast the ledger charges: against bare SQLite transactions that write the same rows, as many to a sync as clients wait.
//!
//! The bare side has no clients, decides nothing and looks nothing up. Both run in turns on the same disk, so that what else the
//! machine does hits both. Then the same charges with each kind of anchor, in turns.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
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
    anchor::{Anchor, LabelAnchor, NV_INDEX_DEFAULT, NoAnchor, NvAnchor},
    clock::Uptime,
    keystore::{BoundKeys, PinSource, Pkcs11Config, Pkcs11Keystore},
    ledger::{Ledger, LedgerOptions},
    policy::rules::{Limits, PolicyRules, SpendRules, WalletPolicy},
    tpm::{AuthValue, Tcti, Tpm},
    wallet::Wallet,
};
use postern_testkit::{Swtpm, TempRun, Token};
use rusqlite::{Connection, params};
use tempfile::TempDir;

const ROUNDS: u32 = 10;
const FOR: Duration = Duration::from_millis(300);

/// Set for the process that does the work: SoftHSM, which holds one of the anchors, reads its configuration from the environment.
const INSIDE: &str = "POSTERN_BENCH_LEDGER";

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        let run = TempRun::new("bench_ledger").unwrap();
        let token = Token::new(&run, "bench").unwrap();
        let tpm = Swtpm::start(&run, "bench").unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .env(token.env().0, token.env().1)
            .env(INSIDE, token.pin_file())
            .env("BENCH_SERIAL", token.serial())
            .env("BENCH_MODULE", token.module())
            .env("BENCH_TPM", tpm.tcti())
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    // Beside the program, so on a disk: a sync on tmpfs costs nothing, and nothing could be learnt from sharing one.
    let run = TempDir::new_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let mut plans = Plans::new();
    for clients in [1, 16, 64] {
        against_bare(&run, &mut plans, clients);
    }
    with_anchors(&run, &mut plans, 16);
}

fn folder(run: &TempDir, name: &str) -> PathBuf {
    let folder = run.path().join(name);
    std::fs::create_dir(&folder).unwrap();
    folder
}

fn against_bare(run: &TempDir, plans: &mut Plans, clients: u64) {
    let ours = Ours::open(&folder(run, &format!("ours-{clients}")), Box::new(NoAnchor), None);
    let mut bare = Bare::open(&folder(run, &format!("bare-{clients}")));
    let (mut charges, mut commits, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        commits.push(bare.commit(clients));
        charges.push(ours.charge(plans, clients));
        ratios.push(charges[charges.len() - 1] / commits[commits.len() - 1]);
    }
    ours.ledger.stop(Uptime::default()).unwrap();
    let goal = Some(("at least 0.8 of bare SQLite commits", 0.8));
    say(&format!("ledger: bare SQLite, {clients} to a sync"), median(commits), None, None);
    say(&format!("ledger: charges, {clients} clients"), median(charges), Some(median(ratios)), goal);
}

/// The same charges with each kind of anchor, in turns.
fn with_anchors(run: &TempDir, plans: &mut Plans, clients: u64) {
    let keystore = Pkcs11Keystore::open(Pkcs11Config {
        name: "hsm".into(),
        module: std::env::var_os("BENCH_MODULE").unwrap().into(),
        token_label: "bench".into(),
        token_serial: std::env::var("BENCH_SERIAL").unwrap(),
        pin: PinSource::File(std::env::var_os(INSIDE).unwrap().into()),
        sessions: 1,
        state: folder(run, "keystore"),
    })
    .unwrap();
    keystore.wait_ready(Duration::from_secs(30)).unwrap();
    let label = |name: &str| Box::new(LabelAnchor::new(keystore.label(name)));
    let tcti: Tcti = std::env::var("BENCH_TPM").unwrap().parse().unwrap();
    let nv = |number: u32| {
        let auth = AuthValue::derive(b"bench", "anchor").unwrap();
        Box::new(NvAnchor::new(Tpm::new(tcti.clone()), auth, NV_INDEX_DEFAULT + number))
    };
    let open = |name: &str, anchor: Box<dyn Anchor>, lease_sat| Ours::open(&folder(run, name), anchor, lease_sat);
    // A charge is 21,000 sat, so a lease of 1 BTC, as for a total of 100 BTC, is used up by 4,762 of them. With one of 1 sat the
    // anchor is written at every sync: what a lease saves.
    let leased = Some(("at least 0.9 of none", 0.9));
    let mut all = [
        ("none", open("none", Box::new(NoAnchor), None), None),
        ("pkcs11-label, a lease of 1 BTC", open("label", label("leased"), Some(100_000_000)), leased),
        ("pkcs11-label, written at every sync", open("label-each", label("each"), Some(1)), None),
        ("tpm-nv, a lease of 1 BTC", open("tpm", nv(0), Some(100_000_000)), leased),
        ("tpm-nv, written at every sync", open("tpm-each", nv(1), Some(1)), None),
    ]
    .map(|(name, ours, goal)| (name, ours, goal, vec![], vec![]));
    for _ in 0..ROUNDS {
        let mut none = None;
        for (_, ours, _, rates, ratios) in &mut all {
            let rate = ours.charge(plans, clients);
            rates.push(rate);
            ratios.push(rate / *none.get_or_insert(rate));
        }
    }
    for (name, ours, goal, rates, ratios) in all {
        ours.ledger.stop(Uptime::default()).unwrap();
        say(&format!("ledger: charges, {clients} clients, anchor {name}"), median(rates), Some(median(ratios)), goal);
    }
}

/// The middle of the rounds: what else the machine did in one of them is left out.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One line for `cargo xtask bench`; the goal in words, and the least ratio that reaches it.
fn say(name: &str, value: f64, ratio: Option<f64>, goal: Option<(&str, f64)>) {
    let mut line = serde_json::json!({ "name": name, "value": value.round(), "unit": "/s" });
    if let Some(ratio) = ratio {
        line["ratio"] = ((ratio * 100.0).round() / 100.0).into();
        if let Some((goal, least)) = goal {
            line["goal"] = goal.into();
            line["ok"] = (ratio >= least).into();
        }
    }
    println!("{line}");
}

struct Ours {
    ledger: Ledger,
}

impl Ours {
    fn open(folder: &Path, anchor: Box<dyn Anchor>, lease_sat: Option<u64>) -> Self {
        Ledger::create(folder).unwrap();
        let day = Rate { amount_sat: 100_000_000_000_000, per_ms: 86_400_000, burst_sat: 100_000_000_000_000 };
        let limits = Limits { rates: vec![day], total_sat: Some(2_000_000_000_000_000) };
        let wallet = WalletPolicy { limits: limits.clone(), ..WalletPolicy::default() };
        let rules = PolicyRules { signer: limits, wallets: BTreeMap::from([("hot".into(), wallet)]), ..PolicyRules::default() };
        let options = LedgerOptions { folder: folder.into(), rules, lease_sat, policy_hash: String::new() };
        Self { ledger: Ledger::open(options, anchor).unwrap() }
    }

    /// Charges a second. Each client asks for the next charge when the last one is on disk.
    fn charge(&self, plans: &mut Plans, clients: u64) -> f64 {
        // Made before the watch starts: what the analysis costs is measured elsewhere.
        let own: Vec<Vec<Arc<SpendPlan>>> = (0..clients).map(|_| plans.take(6_000 / clients.max(4))).collect();
        let started = Instant::now();
        let charged: u64 = thread::scope(|scope| {
            let clients: Vec<_> = own.into_iter().map(|plans| scope.spawn(move || self.client(plans, started))).collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        charged as f64 / started.elapsed().as_secs_f64()
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
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4096; PRAGMA cache_size = -16384",
        )
        .unwrap();
        Self { db, seq: 1 }
    }

    fn commit(&mut self, batch: u64) -> f64 {
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
        (self.seq - first) as f64 / started.elapsed().as_secs_f64()
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
