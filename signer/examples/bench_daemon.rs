//! Signatures through the daemon's socket against bare C_Sign on the same SoftHSM token, in alternating rounds, each in a
//! process of its own so that the processor time of each is known.
//!
//! `bench_daemon beside OTHER` has this build and another one of itself sign in turns, and tells the processor time of each room:
//! for whoever wants to know what a change costs or saves on a machine that is not quiet.
#![allow(clippy::print_stdout)]

#[path = "bench_daemon/batches.rs"]
mod batches;
#[path = "bench_daemon/load.rs"]
mod load;
#[path = "bench_daemon/processor.rs"]
mod processor;
#[path = "bench_daemon/raw.rs"]
mod raw;
#[path = "bench_daemon/requests.rs"]
mod requests;
#[path = "bench_daemon/signer.rs"]
mod signer;

use std::{path::Path, time::Duration};

use anyhow::Result;
use postern_signer::{config::Config, daemon};
use postern_testkit::{TempRun, Token};

use self::{
    processor::{Rooms, median},
    requests::Requests,
    signer::Bench,
};

/// Of the keystore, and of the bare calls.
const SESSIONS: usize = 4;
const CLIENTS: usize = 16;
/// Many and short: what else the machine does then hits both sides, and the medians leave it out.
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(1);
/// More than a round can use up, for each client.
const REQUESTS: usize = 700;
/// Calls of one client alone in each round.
const SINGLE: usize = 300;
const COMMITS: usize = 150;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", config] => {
            daemon::logs::start().map_err(anyhow::Error::msg)?;
            Ok(daemon::run(&Config::load(Path::new(config))?)?)
        }
        ["raw", module, pin_file] => raw::measure(Path::new(module), Path::new(pin_file), SESSIONS, ROUND, SINGLE),
        ["prepare", module, label, serial, pin_file, state] => signer::prepare(module, label, serial, pin_file, Path::new(state)),
        ["beside", other] => beside(Path::new(other)),
        // Cargo passes flags of its own.
        _ => bench(),
    }
}

fn bench() -> Result<()> {
    let run = TempRun::new("bench_daemon")?;
    let token = Token::new(&run, "bench")?;
    let bench = Bench::start(&token, &std::env::current_exe()?)?;
    let mut requests = Requests::new(bench.hot())?;
    let (mut bare, mut ours, mut together, mut rooms) = (vec![], vec![], vec![], Rooms::default());
    let (mut bare_ms, mut commits_ms, mut single_ms) = (vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        let raw = bench.raw()?;
        let load = load::round(bench.socket(), requests.frames(CLIENTS, REQUESTS)?, ROUND, bench.pid())?;
        let outside_ms = load.rooms.total_ms() - raw.processor_ms();
        eprintln!(
            "  bare {:.0}/s, {:.3} ms each; daemon {:.0}/s, {outside_ms:.3} ms more each",
            raw.rate(),
            raw.processor_ms(),
            load.rate()
        );
        together.push((load.rate() / raw.rate(), outside_ms));
        bare.push((raw.rate(), raw.processor_ms()));
        ours.push(load.rate());
        rooms.add(&load.rooms);
        bare_ms.extend(raw.single_ms);
        single_ms.extend(load::one_by_one(bench.socket(), requests.take(SINGLE)?)?);
        commits_ms.extend(bench.durable_commits(COMMITS)?);
    }
    rooms.lines().iter().for_each(|line| eprintln!("{line}"));

    let of = |values: &[(f64, f64)], which: fn(&(f64, f64)) -> f64| median(&mut values.iter().map(which).collect::<Vec<_>>());
    let (ratio, outside_ms) = (of(&together, |t| t.0), of(&together, |t| t.1));
    report("daemon: bare C_Sign, 4 sessions", of(&bare, |b| b.0), "/s", None);
    report("daemon: signatures, 16 clients", median(&mut ours), "/s", Some((ratio, "at least 0.8 of bare C_Sign", ratio >= 0.8)));
    report("daemon: processor time per bare C_Sign", of(&bare, |b| b.1), "ms", None);
    report(
        "daemon: processor time per signature outside the module",
        outside_ms,
        "ms",
        Some((outside_ms / 0.1, "at most 0.1 ms", outside_ms <= 0.1)),
    );
    let verify_ms = processor::verification_ms();
    report("daemon: of that, verifying the signature", verify_ms, "ms", None);
    report("daemon: verifying, share of a signature's processor time", 100.0 * verify_ms / rooms.total_ms(), "%", None);
    let (single, bare_single, commit) = (median(&mut single_ms), median(&mut bare_ms), median(&mut commits_ms));
    report("daemon: bare C_Sign, median of one", bare_single, "ms", None);
    report("daemon: bare durable commit, median", commit, "ms", None);
    let allowed = bare_single + commit + 0.3;
    report(
        "daemon: one client, median",
        single,
        "ms",
        Some((single / allowed, "at most bare C_Sign + durable commit + 0.3 ms", single <= allowed)),
    );
    batches::measure(&bench)?;
    bench.stop()
}

/// This build and another one in turns, each with a token and a ledger of its own.
fn beside(other: &Path) -> Result<()> {
    let run = TempRun::new("bench_daemon_beside")?;
    let tokens = [Token::new(&run, "this")?, Token::new(&run, "other")?];
    let benches = [Bench::start(&tokens[0], &std::env::current_exe()?)?, Bench::start(&tokens[1], other)?];
    let mut requests = [Requests::new(benches[0].hot())?, Requests::new(benches[1].hot())?];
    let mut rooms = [Rooms::default(), Rooms::default()];
    let mut single_ms = [vec![], vec![]];
    let (mut rates, mut total_ms) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..ROUNDS {
        for (n, bench) in benches.iter().enumerate() {
            let load = load::round(bench.socket(), requests[n].frames(CLIENTS, REQUESTS)?, ROUND, bench.pid())?;
            rates[n].push(load.rate());
            total_ms[n].push(load.rooms.total_ms());
            rooms[n].add(&load.rooms);
            single_ms[n].extend(load::one_by_one(bench.socket(), requests[n].take(SINGLE)?)?);
        }
    }
    for (n, name) in ["this", "other"].into_iter().enumerate() {
        println!(
            "{name}: {:.4} ms a signature (median of the rounds {:.4}), {:.0}/s, one client {:.3} ms",
            rooms[n].total_ms(),
            median(&mut total_ms[n]),
            median(&mut rates[n]),
            median(&mut single_ms[n]),
        );
        rooms[n].lines().iter().for_each(|line| println!("{line}"));
    }
    benches.into_iter().try_for_each(Bench::stop)
}

pub(crate) fn report(name: &str, value: f64, unit: &str, goal: Option<(f64, &str, bool)>) {
    let mut line = serde_json::json!({ "name": name, "value": value, "unit": unit });
    if let (Some((ratio, goal, ok)), Some(line)) = (goal, line.as_object_mut()) {
        line.insert("ratio".into(), ratio.into());
        line.insert("goal".into(), goal.into());
        line.insert("ok".into(), ok.into());
    }
    println!("{line}");
}
