//! How fast the keystore signs: against bare `C_Sign` on the same token with as many sessions, in one run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(unsafe_code)] // The bare calls that the keystore is measured against.

use std::{
    env,
    path::PathBuf,
    process::Command,
    ptr, thread,
    time::{Duration, Instant},
};

use bitcoin::{
    Network, PublicKey,
    bip32::{ChildNumber, DerivationPath},
    secp256k1::Secp256k1,
};
use cryptoki::{
    context::Pkcs11,
    object::{Attribute, ObjectClass},
};
use cryptoki_sys as sys;
use postern_signer::{
    analysis::{SIGHASH_ALL, Scheme, SigningTask},
    keystore::{BoundKeys, Keystore as _, PinSource, Pkcs11Config, Pkcs11Keystore, WalletBinding},
    wallet::{KeyLocator, KeyRef, Position},
};
use postern_testkit::{TempRun, Token};

const INSIDE: &str = "POSTERN_BENCH_KEYSTORE";
const SESSIONS: usize = 4;
const CLIENTS: usize = 16;
const FOR: Duration = Duration::from_millis(500);

fn main() {
    // SoftHSM reads its configuration from the environment of its process.
    if env::var_os(INSIDE).is_none() {
        let run = TempRun::new("bench_keystore").unwrap();
        let token = Token::new(&run, "bench").unwrap();
        let status = Command::new(env::current_exe().unwrap())
            .env(token.env().0, token.env().1)
            .env(INSIDE, run.folder("state").unwrap())
            .env("BENCH_PIN", token.pin_file())
            .env("BENCH_SERIAL", token.serial())
            .env("BENCH_MODULE", token.module())
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let config = Pkcs11Config {
        name: "hsm".into(),
        module: path("BENCH_MODULE"),
        token_label: "bench".into(),
        token_serial: env::var("BENCH_SERIAL").unwrap(),
        pin: PinSource::File(path("BENCH_PIN")),
        sessions: SESSIONS,
        state: path(INSIDE),
    };
    let keystore = Pkcs11Keystore::open(config).unwrap();
    keystore.wait_ready(Duration::from_secs(20)).unwrap();
    hsm(&keystore);
    seed(&keystore);
    pool(&keystore);
}

fn path(name: &str) -> PathBuf {
    env::var_os(name).unwrap().into()
}

fn hsm(keystore: &Pkcs11Keystore) {
    let key = keystore.create_hsm_key("one").unwrap();
    keystore.bind(WalletBinding { wallet: "one".into(), network: Network::Regtest, keys: BoundKeys::Hsm { public_key: key } }).unwrap();
    let task = |input| task(input, KeyLocator::Hsm, key, Scheme::Ecdsa);
    let one = || drop(keystore.sign_tasks("one", &[task(0)]).unwrap());

    // Alternating, so that what else the machine does hits both.
    let (mut bare, mut ours) = (Rate::default(), Rate::default());
    for _ in 0..10 {
        bare.add((0..SESSIONS).map(|_| bare_sign()).collect());
        ours.add((0..CLIENTS).map(|_| one).collect());
    }
    say("keystore: bare C_Sign, 4 sessions", bare.per_second(), "/s", None, None);
    let ratio = ours.per_second() / bare.per_second();
    say("keystore: hsm, 16 clients, 4 sessions", ours.per_second(), "/s", Some(ratio), Some(("at least 0.8 of bare C_Sign", ratio >= 0.8)));
    let outside = (ours.cpu_ms() - bare.cpu_ms()).max(0.0);
    say("keystore: hsm, CPU per signature outside the module", outside, "ms", None, Some(("at most 0.1 ms", outside <= 0.1)));
    let batch: Vec<SigningTask> = (0..500).map(task).collect();
    let started = Instant::now();
    keystore.sign_tasks("one", &batch).unwrap();
    say("keystore: hsm, 500 inputs in one call", 500.0 / started.elapsed().as_secs_f64(), "/s", None, None);

    let bare = median(500, bare_sign());
    let ours = median(500, one);
    say("keystore: bare C_Sign, p50", bare, "ms", None, None);
    let more = ("at most 0.3 ms more than bare C_Sign", ours - bare <= 0.3);
    say("keystore: hsm, one client, p50", ours, "ms", Some(ours / bare), Some(more));
}

fn seed(keystore: &Pkcs11Keystore) {
    keystore.create_seed("tree", Network::Regtest, None).unwrap();
    let account: DerivationPath = "m/84h/1h/0h".parse().unwrap();
    let account = keystore.account_key("tree", Network::Regtest, &account).unwrap();
    let keys = BoundKeys::Seed { accounts: vec![account.clone()] };
    keystore.bind(WalletBinding { wallet: "tree".into(), network: Network::Regtest, keys }).unwrap();
    let curve = Secp256k1::new();
    for (name, scheme) in [("ECDSA", Scheme::Ecdsa), ("BIP 340", Scheme::SchnorrKeyPath { merkle_root: None })] {
        let tasks: Vec<SigningTask> = (0..500)
            .map(|input| {
                let steps = [ChildNumber::from_normal_idx(0).unwrap(), ChildNumber::from_normal_idx(input).unwrap()];
                let public = account.xpub.derive_pub(&curve, &steps).unwrap().public_key;
                task(input, KeyLocator::Seed(account.path.extend(steps)), PublicKey::new(public), scheme)
            })
            .collect();
        let before = cpu();
        let mut signed = 0.0;
        let started = Instant::now();
        while started.elapsed() < FOR {
            signed += keystore.sign_tasks("tree", &tasks).unwrap().len() as f64;
        }
        let rate = signed / (cpu() - before).as_secs_f64();
        let goal = ("at least 4,000 inputs per second and core", rate >= 4_000.0);
        say(&format!("keystore: seed, 500 inputs, {name}, verified, per core"), rate, "/s", None, Some(goal));
    }
}

fn pool(keystore: &Pkcs11Keystore) {
    keystore.create_pool("many", Network::Regtest).unwrap();
    keystore.bind(WalletBinding { wallet: "many".into(), network: Network::Regtest, keys: BoundKeys::Pool }).unwrap();
    let started = Instant::now();
    keystore.extend_pool("many", 0, 1_000).unwrap();
    say("keystore: pool, 1,000 new keys", started.elapsed().as_secs_f64(), "s", None, None);
    let keys = keystore.pool_keys("many", 0, 0, 1_000).unwrap();
    let tasks: Vec<SigningTask> =
        (0..).zip(keys).map(|(index, key)| task(index, KeyLocator::Pool(Position { branch: 0, index }), key, Scheme::Ecdsa)).collect();
    let started = Instant::now();
    keystore.sign_tasks("many", &tasks).unwrap();
    say("keystore: pool, unwrap and sign, 4 sessions", 1_000.0 / started.elapsed().as_secs_f64(), "/s", None, None);
}

fn task(input: u32, locator: KeyLocator, public_key: PublicKey, scheme: Scheme) -> SigningTask {
    let mut digest = [0x42; 32];
    digest[..4].copy_from_slice(&input.to_be_bytes());
    let sighash_byte = matches!(scheme, Scheme::Ecdsa).then_some(SIGHASH_ALL);
    SigningTask { input, key: KeyRef { locator, public_key }, digest, scheme, sighash_byte }
}

/// One line for `cargo xtask bench`.
fn say(name: &str, value: f64, unit: &str, ratio: Option<f64>, goal: Option<(&str, bool)>) {
    let mut line = serde_json::json!({ "name": name, "value": value, "unit": unit });
    if let Some(ratio) = ratio {
        line["ratio"] = ratio.into();
    }
    if let Some((goal, ok)) = goal {
        line["goal"] = goal.into();
        line["ok"] = ok.into();
    }
    println!("{line}");
}

#[derive(Default)]
struct Rate {
    count: u32,
    wall: Duration,
    cpu: Duration,
}

impl Rate {
    /// Each call again and again on a thread of its own, for a while.
    fn add(&mut self, calls: Vec<impl FnMut() + Send>) {
        let (started, before) = (Instant::now(), cpu());
        thread::scope(|scope| {
            let threads: Vec<_> = calls
                .into_iter()
                .map(|mut call| {
                    scope.spawn(move || {
                        let mut count = 0;
                        while started.elapsed() < FOR {
                            call();
                            count += 1;
                        }
                        count
                    })
                })
                .collect();
            self.count += threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>();
        });
        self.wall += started.elapsed();
        self.cpu += cpu() - before;
    }
    fn per_second(&self) -> f64 {
        f64::from(self.count) / self.wall.as_secs_f64()
    }
    fn cpu_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1_000.0 / f64::from(self.count)
    }
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap())
}

fn median(calls: usize, mut call: impl FnMut()) -> f64 {
    let mut times: Vec<Duration> = (0..calls)
        .map(|_| {
            let started = Instant::now();
            call();
            started.elapsed()
        })
        .collect();
    times.sort();
    times[calls / 2].as_secs_f64() * 1_000.0
}

/// C_SignInit and C_Sign, nothing else, on a session of its own. The keystore of this process is logged in.
fn bare_sign() -> impl FnMut() + Send {
    let module = path("BENCH_MODULE");
    let context = Pkcs11::new(&module).unwrap();
    let slot = context.get_slots_with_initialized_token().unwrap()[0];
    let session = context.open_ro_session(slot).unwrap();
    let key = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap()[0];
    // SAFETY: loads the library that is loaded already.
    let library = unsafe { sys::Pkcs11::new(&module) }.unwrap();
    let (init, sign) = (*library.C_SignInit.as_ref().unwrap(), *library.C_Sign.as_ref().unwrap());
    move || {
        let _loaded = &library;
        let mut mechanism = sys::CK_MECHANISM { mechanism: sys::CKM_ECDSA, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        let (mut digest, mut signature, mut len) = ([0x42; 32], [0; 64], 64);
        // SAFETY: a live session and key; every buffer lives on this frame and has the length given.
        let rv = unsafe {
            assert_eq!(init(session.handle(), &mut mechanism, key.handle()), sys::CKR_OK);
            sign(session.handle(), digest.as_mut_ptr(), 32, signature.as_mut_ptr(), &mut len)
        };
        assert_eq!((rv, len), (sys::CKR_OK, 64));
    }
}
