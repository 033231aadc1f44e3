//! How long the analysis of a large PSBT takes, and how much memory, against what rust-bitcoin needs only to read it.
//! One line of JSON for each measure (`cargo xtask bench analysis`).
#![allow(unsafe_code)] // An allocator that counts is unsafe by its trait.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    str::FromStr as _,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bitcoin::{
    Amount, Network, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute::LockTime,
    bip32::{DerivationPath, Xpriv, Xpub},
    hashes::{Hash as _, sha256, sha256d},
    secp256k1::Secp256k1,
    transaction::Version,
};
use postern_signer::{
    analysis::analyze,
    keystore::{AccountKey, BoundKeys},
    policy::rules::SpendRules,
    wallet::{KeyLocator, Position, SpendScript, Wallet},
};

const INPUTS: u32 = 500;
const OUTPUTS: u32 = 1_000;
const COIN_SAT: u64 = 10_000_000;
const ROUNDS: usize = 25;

/// Counts what is held, and the most that ever was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most that `work` held at once beyond what was held before, in bytes. What it returns counts.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = black_box(work());
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    drop(result);
    peak
}

/// The shortest of many times: what is longer was disturbed.
fn shortest(mut work: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

fn say(name: &str, value: f64, unit: &str, against: Option<(f64, f64, &str)>) {
    let rounded = |x: f64| (x * 1_000.0).round() / 1_000.0;
    let mut line = serde_json::json!({ "name": name, "value": rounded(value), "unit": unit });
    if let Some((ratio, most, goal)) = against {
        line["ratio"] = rounded(ratio).into();
        line["goal"] = goal.into();
        line["ok"] = (ratio <= most).into();
    }
    println!("{line}");
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn account(seed: &str) -> Result<AccountKey> {
    let secp = Secp256k1::new();
    let path = DerivationPath::from_str("84'/1'/0'")?;
    let master = Xpriv::new_master(Network::Regtest, sha256::Hash::hash(seed.as_bytes()).as_ref())?;
    let xpub = Xpub::from_priv(&secp, &master.derive_priv(&secp, &path)?);
    Ok(AccountKey { fingerprint: master.fingerprint(&secp), path, xpub })
}

/// A wallet; `KEY` stands for ours.
fn wallet(descriptor: &str) -> Result<Wallet> {
    let own = account("ours")?;
    let text = descriptor.replace("KEY", &format!("{own}/<0;1>/*")).replace("OTHER", &format!("{}/<0;1>/*", account("theirs")?));
    Ok(Wallet::new("bench", Network::Regtest, &text, 1_000, BoundKeys::Seed { accounts: vec![own] })?)
}

/// A transaction with a witness, two outputs or as many as are asked for, all of them ours.
fn funding(script: &ScriptBuf, salt: u32, outputs: usize) -> Transaction {
    let txid = Txid::from_raw_hash(sha256d::Hash::hash(&salt.to_le_bytes()));
    let ours = TxOut { value: Amount::from_sat(COIN_SAT), script_pubkey: script.clone() };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid, vout: 0 },
            witness: Witness::from_slice(&[vec![7u8; 72], vec![2u8; 33]]),
            ..TxIn::default()
        }],
        output: vec![ours; outputs],
    }
}

fn request(wallet: &Wallet, inputs: u32, outputs: u32, shared: bool) -> Result<Vec<u8>> {
    let fingerprint = account("ours")?.fingerprint;
    let position = |input: u32| Position { branch: 0, index: if shared { 0 } else { input } };
    let mut coins = Vec::new();
    let common = funding(&wallet.at(position(0))?.script_pubkey, 0, usize::try_from(INPUTS)?);
    for input in 0..inputs {
        let own = wallet.at(position(input))?;
        let transaction = if shared { common.clone() } else { funding(&own.script_pubkey, input, 2) };
        coins.push((own, transaction, if shared { input } else { 1 }));
    }
    let change = wallet.at(Position { branch: 1, index: 7 })?;
    let paid = (1..outputs).map(|n| {
        let hash = sha256::Hash::hash(&n.to_le_bytes());
        let script_pubkey = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::hash(hash.as_ref()));
        TxOut { value: Amount::from_sat(COIN_SAT / 4), script_pubkey }
    });
    let back = TxOut { value: Amount::from_sat(COIN_SAT / 2), script_pubkey: change.script_pubkey.clone() };
    let mut psbt = Psbt::from_unsigned_tx(Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins
            .iter()
            .map(|(_, transaction, vout)| TxIn {
                previous_output: OutPoint { txid: transaction.compute_txid(), vout: *vout },
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                ..TxIn::default()
            })
            .collect(),
        output: paid.chain([back]).collect(),
    })?;
    for (fields, (own, transaction, vout)) in psbt.inputs.iter_mut().zip(coins) {
        fields.witness_utxo = transaction.output.get(usize::try_from(vout)?).cloned().filter(|o| !o.script_pubkey.is_p2pkh());
        fields.non_witness_utxo = Some(transaction);
        if let SpendScript::P2wsh { witness_script } = &own.spend {
            fields.witness_script = Some(witness_script.clone());
        }
        for key in &own.keys {
            let KeyLocator::Seed(path) = &key.locator else { continue };
            match own.spend {
                SpendScript::Taproot { internal_key, .. } => {
                    fields.tap_internal_key = Some(internal_key);
                    fields.tap_key_origins.insert(internal_key, (vec![], (fingerprint, path.clone())));
                }
                _ => drop(fields.bip32_derivation.insert(key.public_key.inner, (fingerprint, path.clone()))),
            }
        }
    }
    Ok(psbt.serialize())
}

fn measure(what: &str, wallet: &Wallet, psbt: &[u8]) -> Result<()> {
    let rules = SpendRules::default();
    let plan = analyze(wallet, &rules, psbt)?;
    ensure!(!plan.tasks().is_empty(), "nothing to sign");
    let reading = shortest(|| {
        black_box(Psbt::deserialize(black_box(psbt))?);
        Ok(())
    })?;
    let analysis = shortest(|| {
        black_box(analyze(black_box(wallet), &rules, black_box(psbt))?);
        Ok(())
    })?;
    let ratio = analysis.as_secs_f64() / reading.as_secs_f64();
    say(&format!("analysis: {what}"), milliseconds(analysis), "ms", Some((ratio, 5.0, "at most 5 x Psbt::deserialize")));
    #[allow(clippy::cast_precision_loss)]
    let times = peak(|| analyze(wallet, &rules, psbt)) as f64 / psbt.len() as f64;
    #[allow(clippy::cast_precision_loss)]
    let kib = psbt.len() as f64 * times / 1024.0;
    say(&format!("analysis: {what}: peak memory"), kib, "KiB", Some((times, 5.0, "at most 5 x the PSBT's size")));
    Ok(())
}

fn main() -> Result<()> {
    let segwit = wallet("wpkh(KEY)")?;
    measure("500 inputs, 1,000 outputs, p2wpkh", &segwit, &request(&segwit, INPUTS, OUTPUTS, false)?)?;
    measure("500 inputs from one transaction, p2wpkh", &segwit, &request(&segwit, INPUTS, OUTPUTS, true)?)?;
    measure("1 input, 2 outputs, p2wpkh", &segwit, &request(&segwit, 1, 2, false)?)?;
    let multisig = wallet("wsh(sortedmulti(2,KEY,OTHER))")?;
    measure("500 inputs, 1,000 outputs, p2wsh 2-of-2", &multisig, &request(&multisig, INPUTS, OUTPUTS, false)?)?;
    let taproot = wallet("tr(KEY)")?;
    measure("500 inputs, 1,000 outputs, p2tr", &taproot, &request(&taproot, INPUTS, OUTPUTS, false)?)?;
    let legacy = wallet("pkh(KEY)")?;
    // The hashes of old inputs grow with their square; the cap on weight bounds them. This is near the worst there is.
    let (rules, psbt) = (SpendRules::default(), request(&legacy, 400, OUTPUTS, false)?);
    let worst = shortest(|| {
        black_box(analyze(&legacy, &rules, black_box(&psbt))?);
        Ok(())
    })?;
    say("analysis: 400 inputs, 1,000 outputs, p2pkh (hashed in square)", milliseconds(worst), "ms", None);

    let derive = shortest(|| {
        for index in 1_000..2_000 {
            black_box(segwit.at(Position { branch: 0, index })?);
        }
        Ok(())
    })?;
    let most = Duration::from_millis(300).as_secs_f64();
    say("wallet: 1,000 scripts derived", milliseconds(derive), "ms", Some((derive.as_secs_f64() / most, 1.0, "at most 300 ms")));
    let script = segwit.at(Position { branch: 1, index: 999 })?.script_pubkey.clone();
    let find = shortest(|| {
        for _ in 0..10_000 {
            black_box(segwit.find(black_box(&script)).context("not found")?);
        }
        Ok(())
    })?;
    say("wallet: a script found among 2,000", milliseconds(find) / 10.0, "us", None);
    Ok(())
}
