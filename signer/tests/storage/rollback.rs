//! Every earlier copy of a day's state folder is put back, before anchors in real hardware's software: nothing is gained.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use postern_protocol::{
    command::{Action, Rate, Scope},
    refusal::RefusalCode,
};
use postern_signer::{
    anchor::{Anchor, AnchorError, AnchorState, LabelAnchor, NV_INDEX_DEFAULT, NvAnchor},
    clock::Uptime,
    keystore::{PinSource, Pkcs11Config, Pkcs11Keystore},
    ledger::{Ledger, LedgerOptions, VerifiedCommand},
    policy::rules::PolicyRules,
    tpm::{AuthValue, Tpm},
};
use postern_testkit::{Swtpm, TempRun, Token};

use crate::plans::{HOT, Plans, command, rules};

const TOTAL_SAT: u64 = 100_000;
const BURST_SAT: u64 = 200_000;
/// 1 % of the total, which is what holds when nothing is configured.
const LEASE_SAT: u64 = 1_000;
const REQUESTS: u64 = 60;

/// An anchor that counts how often the hardware is written.
struct Counted {
    anchor: Box<dyn Anchor>,
    writes: Arc<Mutex<u64>>,
}

impl Anchor for Counted {
    fn kind(&self) -> &'static str {
        self.anchor.kind()
    }
    fn read(&mut self) -> Result<Option<AnchorState>, AnchorError> {
        self.anchor.read()
    }
    fn write(&mut self, state: &AnchorState) -> Result<(), AnchorError> {
        *self.writes.lock().unwrap() += 1;
        self.anchor.write(state)
    }
}

type Copy = BTreeMap<String, Vec<u8>>;

fn copy(folder: &Path) -> Copy {
    let files = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path());
    let ledger = files.filter(|f| f.file_name().unwrap().to_string_lossy().starts_with("ledger.db"));
    ledger.map(|f| (f.file_name().unwrap().to_string_lossy().into_owned(), fs::read(f).unwrap())).collect()
}

fn restore(folder: &Path, copy: &Copy) {
    for file in self::copy(folder).keys() {
        fs::remove_file(folder.join(file)).unwrap();
    }
    for (name, bytes) in copy {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

fn limits() -> PolicyRules {
    let mut rules = rules(TOTAL_SAT, BURST_SAT);
    rules.wallets.get_mut(HOT).unwrap().limits.total_sat = Some(TOTAL_SAT);
    rules
}

fn options(folder: &Path) -> LedgerOptions {
    LedgerOptions { folder: folder.into(), rules: limits(), lease_sat: None, policy_hash: "00".into() }
}

fn hours(hours: u64) -> Uptime {
    Uptime(Duration::from_secs(hours * 3_600))
}

/// What the day leaves: copies with what was on the disk after each request, commands that were given, what may still leave.
struct Past {
    copies: Vec<(String, Copy)>,
    commands: Vec<VerifiedCommand>,
    /// By the gauges at the end of the day.
    left_sat: u64,
    charged_sat: u64,
    /// With what the crash burnt.
    counted_sat: u64,
    starts: u64,
    stops: u64,
}

fn day(folder: &Path, anchor: &dyn Fn() -> Box<dyn Anchor>, commands: bool) -> Past {
    let plans = Plans::new();
    let mut past = Past { copies: vec![], commands: vec![], left_sat: 0, charged_sat: 0, counted_sat: 0, starts: 1, stops: 0 };
    let mut ledger = Ledger::open(options(folder), anchor()).unwrap();
    for n in 0..REQUESTS {
        let hot = || Scope::Wallet(HOT.into());
        let slow = vec![Rate { amount_sat: 1, per_ms: 3_600_000, burst_sat: BURST_SAT }];
        let order = match n {
            _ if !commands => None,
            15 => Some(Action::AddTotal(Scope::Signer, 3_000)),
            25 => Some(Action::Freeze(hot())),
            26 => Some(Action::Unfreeze(hot())),
            45 => Some(Action::SetTotal(hot(), 20_000)),
            55 => Some(Action::SetRate(hot(), slow)),
            _ => None,
        };
        match order {
            Some(action) => {
                let order = command(n, action);
                ledger.apply(order.clone(), hours(1)).unwrap();
                past.commands.push(order);
            }
            None => {
                let charged = ledger.charge(plans.plan(n, 600 + n, 0), hours(1)).unwrap().increase_sat();
                past.charged_sat += charged;
            }
        }
        past.copies.push((format!("after request {n}"), copy(folder)));
        if n == 20 || n == 40 {
            // Once in order, once as a crash.
            if n == 20 {
                ledger.stop(hours(1)).unwrap();
                past.stops += 1;
                past.copies.push(("after the stop".into(), copy(folder)));
            }
            drop(ledger);
            ledger = Ledger::open(options(folder), anchor()).unwrap();
            past.starts += 1;
        }
    }
    past.left_sat = left(&ledger);
    past.counted_sat = ledger.totals().charged_sat;
    ledger.stop(hours(1)).unwrap();
    past.stops += 1;
    past
}

/// What both totals let out.
fn left(ledger: &Ledger) -> u64 {
    ledger.levels(hours(9)).iter().filter(|l| l.name == "total").map(|l| l.available_sat).min().unwrap()
}

/// `anchor` opens one of that number.
fn nothing_is_gained(state: &Path, anchor: &dyn Fn(u32) -> Box<dyn Anchor>) {
    for (number, commands) in [(0, true), (1, false)] {
        let folder = state.join(number.to_string());
        fs::create_dir(&folder).unwrap();
        nothing_is_gained_in(&folder, &|| anchor(number), commands);
    }
}

fn nothing_is_gained_in(folder: &Path, anchor: &dyn Fn() -> Box<dyn Anchor>, with_commands: bool) {
    Ledger::create(folder).unwrap();
    let untouched = copy(folder);
    let writes: Arc<Mutex<u64>> = Arc::default();
    let past = day(folder, &|| Box::new(Counted { anchor: anchor(), writes: Arc::clone(&writes) }), with_commands);
    let (writes, commands) = (*writes.lock().unwrap(), u64::try_from(past.commands.len()).unwrap());
    // The first start writes twice. What a crash burnt was leased as well.
    let most = past.counted_sat.div_ceil(LEASE_SAT) + past.starts + past.stops + commands + 1;
    println!("{} sat charged in {REQUESTS} requests: {writes} writes to the anchor, at most {most} are promised", past.charged_sat);
    assert!(writes <= most, "{writes} writes, {most} promised");

    let last = anchor().read().unwrap().unwrap();
    let plans = Plans::new();
    let (mut held, mut best) = (0, 0);
    let tried = past.copies.len() + 1;
    for (what, old) in std::iter::once(("the untouched one".to_owned(), untouched)).chain(past.copies) {
        restore(folder, &old);
        anchor().write(&last).unwrap();
        let ledger = Ledger::open_or_hold(options(folder), anchor()).unwrap();
        for used in &past.commands {
            if !matches!(used.action, Action::Freeze(_)) {
                let refusal = ledger.apply(used.clone(), hours(0)).unwrap_err();
                assert!(matches!(refusal.code, RefusalCode::CommandSerialUsed | RefusalCode::LedgerStale), "{what}: {refusal}");
            }
        }
        // Nothing at once: the buckets start empty.
        assert!(ledger.charge(plans.plan(9_000, 1_000, 1), hours(0)).is_err(), "{what}: a burst came back");
        if ledger.is_stale() {
            held += 1;
            let refusal = ledger.charge(plans.plan(9_000, 1_000, 1), hours(9)).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::LedgerStale, "{what}");
            continue;
        }
        let granted = left(&ledger);
        assert!(granted <= past.left_sat, "{what}: {granted} sat, and {} sat were left", past.left_sat);
        best = best.max(granted);
        if granted > 1_000 {
            let more = ledger.charge(plans.plan(9_001, granted + 1, 2), hours(9)).unwrap_err();
            assert!(matches!(more.code, RefusalCode::TotalReached | RefusalCode::RateWait), "{what}: {more}");
        }
    }
    println!("{tried} copies put back: {held} held, the best of the others may pay {best} sat of {} sat that were left", past.left_sat);
    // Where commands are missing nothing is granted at all; else just what is left.
    assert!(if with_commands { held > 50 } else { held == 1 && best > 0 }, "{held} held");
}

#[test]
fn no_old_copy_gains_anything_before_an_anchor_on_a_token() {
    const INSIDE: &str = "POSTERN_STORAGE_TEST";
    // SoftHSM reads its configuration from the environment: once more, in a process with a token of its own.
    if let Some(run) = env::var_os(INSIDE) {
        let get = |name: &str| env::var(format!("{INSIDE}_{name}")).unwrap();
        let run = PathBuf::from(run);
        let config = Pkcs11Config {
            name: "hsm".into(),
            module: get("MODULE").into(),
            token_label: get("LABEL"),
            token_serial: get("SERIAL"),
            pin: PinSource::File(get("PIN").into()),
            sessions: 1,
            state: run.join("state"),
        };
        let keystore = Pkcs11Keystore::open(config).unwrap();
        keystore.wait_ready(Duration::from_secs(20)).unwrap();
        nothing_is_gained(&run.join("state"), &|number| Box::new(LabelAnchor::new(keystore.label(&format!("anchor:vault{number}")))));
        return;
    }
    let run = TempRun::new("rollback_token").unwrap();
    let token = Token::new(&run, "vault").unwrap();
    run.folder("state").unwrap();
    let test = "rollback::no_old_copy_gains_anything_before_an_anchor_on_a_token";
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(token.env().0, token.env().1)
        .env(INSIDE, run.path())
        .env(format!("{INSIDE}_MODULE"), token.module())
        .env(format!("{INSIDE}_LABEL"), token.label())
        .env(format!("{INSIDE}_SERIAL"), token.serial())
        .env(format!("{INSIDE}_PIN"), token.pin_file())
        .output()
        .unwrap();
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    print!("{text}");
}

#[test]
fn no_old_copy_gains_anything_before_an_anchor_in_a_tpm() {
    let run = TempRun::new("rollback_tpm").unwrap();
    let swtpm = Swtpm::start(&run, "board").unwrap();
    let state = run.folder("state").unwrap();
    nothing_is_gained(&state, &|number| {
        let auth = AuthValue::derive(b"secret", "test").unwrap();
        Box::new(NvAnchor::new(Tpm::new(swtpm.tcti().parse().unwrap()), auth, NV_INDEX_DEFAULT + number))
    });
}
