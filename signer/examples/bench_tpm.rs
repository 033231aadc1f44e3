//! How long a seed takes that a TPM seals: bare TPM commands, and all that a start does until the wallet can sign. On swtpm: what the
//! software does around the chip shows, how slow a chip is does not (a real one takes some ten times as long for each command).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::{
    str::FromStr as _,
    time::{Duration, Instant},
};

use bitcoin::{Network, bip32::DerivationPath};
use postern_signer::{
    keystore::{BoundKeys, Keystore as _, PinSource, TpmConfig, TpmKeystore, WalletBinding},
    tpm::{AuthValue, PcrSet, Tpm, quieten_library},
};
use postern_testkit::{Swtpm, TempRun};

const TIMES: usize = 100;
const STARTS: usize = 30;
/// A seed as long as the keystore's.
const SECRET: [u8; 64] = [0x5e; 64];

fn main() {
    quieten_library();
    let run = TempRun::new("bench_tpm").unwrap();
    let swtpm = Swtpm::start(&run, "board").unwrap();
    let bare = bare(&swtpm);
    wallet(&run, &swtpm, bare);
}

fn pcrs() -> PcrSet {
    PcrSet::new([7, 11]).unwrap()
}

/// The time of one unsealing in milliseconds, on a connection of its own as everything here has it.
fn bare(swtpm: &Swtpm) -> f64 {
    let tpm = Tpm::new(swtpm.tcti().parse().unwrap());
    let auth = AuthValue::derive(b"correct horse", "bench").unwrap();
    let sealed = tpm
        .with(|tpm| {
            let now = tpm.pcrs(&pcrs())?;
            tpm.seal(&SECRET, &auth, &now)
        })
        .unwrap();
    let connect = median(TIMES, || {
        let _ = tpm.with(|tpm| tpm.lockout()).unwrap();
    });
    let unseal = median(TIMES, || {
        let opened = tpm.with_auth(|tpm| tpm.unseal(&sealed, &auth, &pcrs())).unwrap();
        assert_eq!(opened[..], SECRET);
    });
    say("TPM: a connection and one question, p50", connect, None);
    say("TPM: unseal 64 bytes by PCRs and auth value, p50", unseal, Some(unseal / connect));
    unseal
}

/// From a TPM that answers to a wallet that signs: the file is read, its seed unsealed, its account derived and compared.
fn wallet(run: &TempRun, swtpm: &Swtpm, bare: f64) {
    run.write("tpm.auth", "correct horse").unwrap();
    let config = TpmConfig {
        name: "tpm".into(),
        tcti: swtpm.tcti().parse().unwrap(),
        pcrs: pcrs(),
        auth: PinSource::File(run.join("tpm.auth")),
        state: run.folder("state").unwrap(),
    };
    let open = || {
        let keystore = TpmKeystore::open(config.clone()).unwrap();
        keystore.wait_ready(Duration::from_secs(20)).unwrap();
        keystore
    };
    let keystore = open();
    keystore.create_seed("hot", Network::Regtest, None).unwrap();
    let path = DerivationPath::from_str("m/84h/1h/0h").unwrap();
    let account = keystore.account_key("hot", Network::Regtest, &path).unwrap();
    drop(keystore);
    let binding =
        || WalletBinding { wallet: "hot".into(), network: Network::Regtest, keys: BoundKeys::Seed { accounts: vec![account.clone()] } };
    let mut opening = vec![];
    let mut binds = vec![];
    for _ in 0..STARTS {
        let started = Instant::now();
        let keystore = open();
        opening.push(started.elapsed());
        let started = Instant::now();
        keystore.bind(binding()).unwrap();
        binds.push(started.elapsed());
    }
    say("TPM: keystore opened and the TPM found, p50", middle(opening), None);
    let bind = middle(binds);
    say("TPM: sealed seed to a wallet that signs, p50", bind, Some(bind / bare));
}

fn median(times: usize, mut call: impl FnMut()) -> f64 {
    let mut once = || {
        let started = Instant::now();
        call();
        started.elapsed()
    };
    middle((0..times).map(|_| once()).collect())
}

/// In milliseconds.
fn middle(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1_000.0
}

/// One line for `cargo xtask bench`.
fn say(name: &str, ms: f64, ratio: Option<f64>) {
    let mut line = serde_json::json!({ "name": name, "value": ms, "unit": "ms" });
    if let Some(ratio) = ratio {
        line["ratio"] = ratio.into();
    }
    println!("{line}");
}
