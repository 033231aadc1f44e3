//! Signatures through the daemon's socket against bare C_Sign on the same SoftHSM token, in alternating rounds, each in a
//! process of its own so that the processor time of each is known.
#![allow(clippy::print_stdout)]

#[path = "bench_daemon/raw.rs"]
mod raw;
#[path = "bench_daemon/requests.rs"]
mod requests;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use postern_protocol::{
    canonical, frame,
    reply::{Reply, ReplyBody},
};
use postern_signer::{
    client::Client,
    config::Config,
    daemon,
    identity::Identity,
    keystore::{PinSource, Pkcs11Config, Pkcs11Keystore},
    ledger::Ledger,
};
use postern_testkit::{TempRun, Token};

/// Of the keystore, and of the bare calls.
const SESSIONS: usize = 4;
const CLIENTS: usize = 16;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
/// More than a round can use up, for each client.
const REQUESTS: usize = 2_000;
const SINGLE: usize = 1_000;
const COMMITS: usize = 500;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", config] => {
            daemon::logs::start().map_err(anyhow::Error::msg)?;
            Ok(daemon::run(&Config::load(Path::new(config))?)?)
        }
        ["raw", module, pin_file] => raw::measure(Path::new(module), Path::new(pin_file), SESSIONS, ROUND, SINGLE),
        ["prepare", module, label, serial, pin_file, state] => prepare(module, label, serial, pin_file, Path::new(state)),
        // Cargo passes flags of its own.
        _ => bench(),
    }
}

fn bench() -> Result<()> {
    let run = TempRun::new("bench_daemon")?;
    let token = Token::new(&run, "bench")?;
    // On a disk that syncs, not in memory, where the token is.
    let beside = std::env::current_exe()?.parent().context("no folder")?.to_owned();
    let folder = tempfile::tempdir_in(beside)?;
    let state = folder.path().join("state");
    fs::create_dir(&state)?;

    let module = token.module().display().to_string();
    let pin_file = token.pin_file().display().to_string();
    let child = |arguments: &[&str]| {
        let mut command = Command::new(std::env::current_exe()?);
        let (name, conf) = token.env();
        command.args(arguments).env(name, conf).env("RUST_LOG", "warn");
        anyhow::Ok(command)
    };
    let prepare = ["prepare", &module, token.label(), token.serial(), &pin_file, &state.display().to_string()];
    let public_key = output(child(&prepare)?)?;
    let (config, socket) = write_config(folder.path(), &state, &token, &public_key)?;
    let mut signer = Signer(child(&["serve", &config.display().to_string()])?.stdin(Stdio::null()).spawn()?);
    wait_for(&socket, &mut signer.0)?;

    let mut requests = requests::Requests::new(&public_key)?;
    let mut bare = raw::Figures::default();
    let (mut signatures, mut seconds, mut processor_s) = (0usize, 0.0, 0.0);
    let (mut latencies, mut commits, mut by_thread) = (vec![], vec![], BTreeMap::new());
    for round in 0..ROUNDS {
        eprintln!("round {} of {ROUNDS}", round + 1);
        bare.add(serde_json::from_str(&output(child(&["raw", &module, &pin_file])?)?)?);
        let work: Vec<Vec<Vec<u8>>> = (0..CLIENTS).map(|_| requests.take(REQUESTS)).collect::<Result<_>>()?;
        let (before, threads) = (raw::processor_s(signer.0.id())?, raw::processor_by_thread_s(signer.0.id())?);
        let (done, took) = load(&socket, work, || {
            for (name, used_s) in raw::processor_by_thread_s(signer.0.id())? {
                *by_thread.entry(name.clone()).or_insert(0.0) += used_s - threads.get(&name).copied().unwrap_or_default();
            }
            Ok(())
        })?;
        processor_s += raw::processor_s(signer.0.id())? - before;
        signatures += done;
        seconds += took.as_secs_f64();
        latencies.extend(one_by_one(&socket, requests.take(SINGLE)?)?);
        commits.extend(durable_commits(folder.path())?);
    }
    signer.stop()?;
    for (name, used_s) in by_thread {
        eprintln!("{name:>16}: {:.4} ms a signature", used_s * 1e3 / signatures as f64);
    }

    let rate = signatures as f64 / seconds;
    let bare_rate = bare.rate();
    report("daemon: bare C_Sign, 4 sessions", bare_rate, "/s", None);
    report("daemon: signatures, 16 clients", rate, "/s", Some((rate / bare_rate, "at least 0.8 of bare C_Sign", rate / bare_rate >= 0.8)));
    let outside_ms = processor_s * 1e3 / signatures as f64 - bare.processor_ms();
    report("daemon: processor time per bare C_Sign", bare.processor_ms(), "ms", None);
    report(
        "daemon: processor time per signature outside the module",
        outside_ms,
        "ms",
        Some((outside_ms / 0.1, "at most 0.1 ms", outside_ms <= 0.1)),
    );
    let (single, bare_single, commit) = (raw::median(&mut latencies), bare.median_ms(), raw::median(&mut commits));
    report("daemon: bare C_Sign, median of one", bare_single, "ms", None);
    report("daemon: bare durable commit, median", commit, "ms", None);
    let allowed = bare_single + commit + 0.3;
    report(
        "daemon: one client, median",
        single,
        "ms",
        Some((single / allowed, "at most bare C_Sign + durable commit + 0.3 ms", single <= allowed)),
    );
    Ok(())
}

fn report(name: &str, value: f64, unit: &str, goal: Option<(f64, &str, bool)>) {
    let mut line = serde_json::json!({ "name": name, "value": value, "unit": unit });
    if let (Some((ratio, goal, ok)), Some(line)) = (goal, line.as_object_mut()) {
        line.insert("ratio".into(), ratio.into());
        line.insert("goal".into(), goal.into());
        line.insert("ok".into(), ok.into());
    }
    println!("{line}");
}

/// Keys, identity and ledger, as `postern init` and `postern wallet new` make them.
fn prepare(module: &str, label: &str, serial: &str, pin_file: &str, state: &Path) -> Result<()> {
    let keystore = Pkcs11Keystore::open(Pkcs11Config {
        name: "hsm".into(),
        module: module.into(),
        token_label: label.into(),
        token_serial: serial.into(),
        pin: PinSource::File(pin_file.into()),
        sessions: 1,
        state: state.into(),
    })?;
    keystore.wait_ready(Duration::from_secs(30))?;
    println!("{}", keystore.create_hsm_key("hot")?);
    Identity::create(state)?;
    Ledger::create(state)?;
    Ok(())
}

fn write_config(folder: &Path, state: &Path, token: &Token, public_key: &str) -> Result<(PathBuf, PathBuf)> {
    let (config, socket) = (folder.join("signer.toml"), folder.join("s"));
    let text = format!(
        "[signer]\nname = \"bench\"\nnetwork = \"regtest\"\nstate = {state:?}\nsocket = {socket:?}\n\
         [limits]\nrate = [{{ amount = \"1000000 BTC\", per = \"1 s\" }}]\ntotal = \"20000000 BTC\"\n\
         [keystore.hsm]\nkind = \"pkcs11\"\nmodule = {:?}\ntoken = {{ label = {:?}, serial = {:?} }}\npin = {{ file = {:?} }}\nsessions = {SESSIONS}\n\
         [wallet.hot]\nkeystore = \"hsm\"\nkind = \"hsm\"\ndescriptor = \"wpkh({public_key})\"\npublic_key = \"{public_key}\"\n",
        token.module(),
        token.label(),
        token.serial(),
        token.pin_file(),
    );
    fs::write(&config, text)?;
    Ok((config, socket))
}

/// All clients at once, each with one request under way; until the round is over.
/// `meanwhile` is called at the end, with the connections still open.
fn load(socket: &Path, work: Vec<Vec<Vec<u8>>>, meanwhile: impl FnOnce() -> Result<()>) -> Result<(usize, Duration)> {
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let started = Instant::now();
    let outcome = thread::scope(|scope| {
        let clients: Vec<_> = work
            .iter()
            .map(|frames| {
                let (over, done) = (&over, &done);
                scope.spawn(move || -> Result<()> {
                    let mut stream = UnixStream::connect(socket)?;
                    for frame in frames {
                        if over.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                        exchange(&mut stream, frame)?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    bail!("the requests ran out before the round was over")
                })
            })
            .collect();
        thread::sleep(ROUND);
        let counted = (done.load(Ordering::Relaxed), started.elapsed());
        meanwhile()?;
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        anyhow::Ok(counted)
    })?;
    Ok(outcome)
}

/// Milliseconds of each request of a single client.
fn one_by_one(socket: &Path, frames: Vec<Vec<u8>>) -> Result<Vec<f64>> {
    let mut stream = UnixStream::connect(socket)?;
    frames
        .iter()
        .map(|frame| {
            let started = Instant::now();
            exchange(&mut stream, frame)?;
            Ok(started.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}

fn exchange(stream: &mut UnixStream, frame: &[u8]) -> Result<()> {
    use std::io::Read as _;
    stream.write_all(frame)?;
    let mut buffer = [0; 1024];
    let mut have = 0;
    loop {
        have += stream.read(&mut buffer[have..])?;
        let length = match buffer[..have].first_chunk() {
            Some(prefix) => frame::body_length(*prefix, buffer.len() - frame::PREFIX)?,
            None => continue,
        };
        if have == frame::PREFIX + length {
            let reply: Reply = canonical::from_slice(&buffer[frame::PREFIX..have])?;
            ensure!(matches!(&reply.body, ReplyBody::Signed(signed) if signed.signatures.len() == 1), "{:?}", reply.body);
            return Ok(());
        }
    }
}

/// What one durable commit costs on this disk, in milliseconds each.
fn durable_commits(folder: &Path) -> Result<Vec<f64>> {
    let path = folder.join("bare.sqlite");
    let db = rusqlite::Connection::open(&path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.execute_batch("CREATE TABLE IF NOT EXISTS journal (seq INTEGER PRIMARY KEY, body BLOB)")?;
    let mut insert = db.prepare("INSERT INTO journal (body) VALUES (?1)")?;
    let mut commit = || {
        let started = Instant::now();
        insert.execute([&[7u8; 300][..]])?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    };
    // A log that has wrapped around does not grow any more, as a ledger's that has run for a while.
    db.pragma_update(None, "synchronous", "OFF")?;
    (0..3_000).try_for_each(|_| commit().map(drop))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    (0..COMMITS).map(|_| commit()).collect()
}

fn output(mut command: Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?} failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn wait_for(socket: &Path, signer: &mut Child) -> Result<()> {
    let started = Instant::now();
    while Client::connect(socket).is_err() {
        ensure!(signer.try_wait()?.is_none(), "the signer ended");
        ensure!(started.elapsed() < Duration::from_secs(60), "the signer does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The daemon's process; killed when the bench fails.
struct Signer(Child);

impl Signer {
    fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        ensure!(self.0.wait()?.success(), "the signer did not end in order");
        Ok(())
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
