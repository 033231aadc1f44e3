//! `cargo xtask redteam`: everything that can be sent to the signer is sent, by a coordinator and a link that are lost, while its process
//! is killed, its disk put back, its token pulled out. The real daemon, a real token. What is worked out from the returned signatures
//! must be within the limits to the satoshi.
//!
//! What it does not do: step the clock by which buckets fill. No process can (CLOCK_MONOTONIC_RAW); a process that is stopped for a
//! while is as near as it gets. The wall clock is not asked for limits, only for a command's expiry.

mod account;
mod arena;
mod attacks;
mod conductor;
mod tally;

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use indicatif::ProgressBar;
use postern_testkit::{TempRun, Vault, VaultPlan, WalletPlan, program};
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;

use self::{
    account::{Account, Bound},
    arena::Arena,
    tally::{Kind, Row},
};
use crate::{cargo, child, say, setup};

/// What may leave at once.
const BURST_SAT: u64 = 5_000_000;
/// What comes back each second.
const RATE_SAT: u64 = 1_000_000;
/// One wallet's own.
const HOT_BURST_SAT: u64 = 3_000_000;
const HOT_RATE_SAT: u64 = 600_000;
/// Until the first command.
const TOTAL_SAT: u64 = 12_000_000;
/// Limits of so small a part of the real ones are passed, or the attack was none.
const CONTROL: u64 = 10;
/// Attackers at a time.
const ATTACKERS: u64 = 6;

/// How long to attack.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Redteam {
    #[command(flatten)]
    setup: setup::Setup,
    /// For how long; every kind of attack is tried at least once, however short that is.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Chooses the same attacks in the same order; what the machine does in between is never the same.
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the process, its disk and its token alone: to see how fast attacks are answered.
    #[arg(long)]
    calm: bool,
    /// The report for programs, on standard output.
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    seed: u64,
    seconds: u64,
    attempts: u64,
    attempts_per_second: u64,
    /// Without the honest payments.
    hostile_attempts: u64,
    signed: u64,
    honest_payments: u64,
    transactions_complete: usize,
    transactions_in_part: usize,
    largest_tangle: usize,
    outflow_sat: u64,
    gained_sat: u64,
    missed_by_sat: u64,
    over_a_tenth_sat: u64,
    attacks: Vec<Row>,
    complaints: Vec<String>,
}

pub(crate) fn run(arguments: &Redteam) -> Result<()> {
    setup::run(&arguments.setup)?;
    // Somebody who says where the programs are has built them.
    if std::env::var_os(program::BIN_DIR_VAR).is_none() {
        say::phase("build", || child::run_well(cargo::cargo(&["build", "--package", "postern-signer", "--bins", "--locked"])?))?;
    }
    let seed = arguments.seed.unwrap_or_else(|| rand::thread_rng().next_u64());
    let report = fight(Duration::from_secs_f64(arguments.minutes.max(0.0) * 60.0), seed, arguments.calm)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    report.judge()
}

/// Attacks for so long; through the socket alone when it is calm otherwise.
fn fight(duration: Duration, seed: u64, calm: bool) -> Result<Report> {
    say::heading(&format!("a lost coordinator against one signer, seed {seed}"));
    let run = TempRun::new("redteam")?;
    let mut vault = plan().start(&run)?;
    let arena = Arena::new(&vault)?;
    let mut rng = StdRng::seed_from_u64(seed);
    let seeds: Vec<u64> = (0..=ATTACKERS).map(|_| rng.next_u64()).collect();
    let bar = ProgressBar::new_spinner();
    let began = Instant::now();
    let fought = thread::scope(|scope| {
        let (arena, bar) = (&arena, &bar);
        let (payer, attackers) = seeds.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
        scope.spawn(move || attacks::pay(arena, payer));
        for seed in attackers {
            scope.spawn(move || attacks::attack(arena, *seed));
        }
        scope.spawn(move || {
            while !arena.over() {
                bar.set_message(format!(
                    "{} attempts in {}, {} signed",
                    arena.tally.total(),
                    say::seconds(began.elapsed()),
                    arena.tally.times("signed")
                ));
                thread::sleep(Duration::from_millis(200));
                bar.tick();
            }
        });
        let conduct = if calm { conductor::watch } else { conductor::conduct };
        let fought = conduct(&mut vault, arena, &mut rng, duration);
        arena.over.store(true, Ordering::Relaxed);
        fought
    });
    bar.finish_and_clear();
    let elapsed = began.elapsed();
    fought?;
    check_ledger(&mut vault)?;
    let own = arena.own();
    let account = arena.book.settle(&bounds(1), &own)?;
    // The same signatures against limits that they must be over.
    let control = arena.book.settle(&bounds(CONTROL), &own)?;
    Ok(Report::new(seed, elapsed, &arena, account, control.gained_sat, &kinds(calm)))
}

fn plan() -> VaultPlan {
    let (rate, burst, total) = (RATE_SAT, BURST_SAT, TOTAL_SAT);
    let limits = format!("rate = [{{ amount = \"{rate} sat\", per = \"1 s\", burst = \"{burst} sat\" }}]\ntotal = \"{total} sat\"");
    let own = format!("limits = {{ rate = [{{ amount = \"{HOT_RATE_SAT} sat\", per = \"1 s\", burst = \"{HOT_BURST_SAT} sat\" }}] }}");
    VaultPlan::default()
        .named("redteam")
        .limits(&limits)
        .wallet(WalletPlan::new("hot", "seed", "wpkh(@)").with(&own))
        .wallet(WalletPlan::new("tap", "seed", "tr(@)"))
        .wallet(WalletPlan::new("key", "hsm", "wpkh(@)"))
}

/// The limits, or a part of them.
fn bounds(part: u64) -> Vec<Bound> {
    let (burst_sat, amount_sat, per_ms) = (BURST_SAT / part, RATE_SAT / part, 1_000);
    let signer = Bound { scope: "signer".into(), wallet: None, burst_sat, amount_sat, per_ms, total_sat: Some(TOTAL_SAT / part) };
    let hot = Bound {
        scope: "wallet hot".into(),
        wallet: Some("hot".into()),
        burst_sat: HOT_BURST_SAT / part,
        amount_sat: HOT_RATE_SAT / part,
        total_sat: None,
        ..signer.clone()
    };
    vec![signer, hot]
}

/// After all that the ledger is whole.
fn check_ledger(vault: &mut Vault) -> Result<()> {
    vault.stop()?;
    vault.postern(&["ledger", "verify"]).map(drop)
}

fn kinds(calm: bool) -> Vec<Kind> {
    let through_the_socket = attacks::ATTACKS.iter().map(|(kind, ..)| *kind);
    let all = [attacks::PAY].into_iter().chain(through_the_socket);
    if calm { all.collect() } else { all.chain(conductor::kinds()).collect() }
}

impl Report {
    fn new(seed: u64, elapsed: Duration, arena: &Arena, account: Account, over_a_tenth_sat: u64, kinds: &[Kind]) -> Self {
        let mut complaints = arena.tally.complaints(kinds);
        complaints.extend(account.broken);
        if account.blank > 0 {
            complaints.push(format!("{} signatures leave something open to others", account.blank));
        }
        if account.wrong > 0 {
            complaints.push(format!("{} signatures are none", account.wrong));
        }
        if over_a_tenth_sat == 0 {
            complaints.push("the same signatures are not even over a tenth of the limits: nothing was really attacked".into());
        }
        let honest = |row: &Row| if row.kind == attacks::PAY.name { row.came_back.get("signed").copied() } else { None };
        let attacks = arena.tally.table();
        let honest_attempts: u64 = attacks.iter().filter(|row| row.kind == attacks::PAY.name).map(|row| row.tried).sum();
        Self {
            seed,
            seconds: elapsed.as_secs(),
            attempts: arena.tally.total(),
            attempts_per_second: arena.tally.total() / elapsed.as_secs().max(1),
            hostile_attempts: arena.tally.total() - honest_attempts,
            signed: arena.tally.times("signed"),
            honest_payments: attacks.iter().find_map(honest).unwrap_or(0),
            transactions_complete: account.complete,
            transactions_in_part: account.partial,
            largest_tangle: account.tangle,
            outflow_sat: account.outflow_sat,
            gained_sat: account.gained_sat,
            missed_by_sat: account.missed_by_sat,
            over_a_tenth_sat,
            attacks,
            complaints,
        }
    }

    fn print(&self) {
        for row in &self.attacks {
            let came_back: Vec<String> = row.came_back.iter().map(|(what, times)| format!("{what} {times}")).collect();
            println!("{:>7}  {:<48}  {}", row.tried, row.kind, came_back.join(", "));
        }
        println!(
            "\n{} attempts in {} s ({} a second), {} answered with signatures, {} honest payments among them, seed {}.",
            self.attempts, self.seconds, self.attempts_per_second, self.signed, self.honest_payments, self.seed
        );
        println!(
            "{} transactions can be sent, {} are signed in part; at most {} sat of them can confirm (tangles of up to {}).",
            self.transactions_complete, self.transactions_in_part, self.outflow_sat, self.largest_tangle
        );
        println!(
            "Gained over the limits: {} sat; over some stretch of time {} sat were missing to a rate's.",
            self.gained_sat, self.missed_by_sat
        );
        println!("Against limits of a tenth the same signatures would be {} sat over them.", self.over_a_tenth_sat);
    }

    /// Nothing gained, everything tried, and the honest still paid.
    fn judge(&self) -> Result<()> {
        for complaint in &self.complaints {
            say::problem(complaint);
        }
        ensure!(self.gained_sat == 0, "{} sat were gained over the limits (seed {})", self.gained_sat, self.seed);
        if !self.complaints.is_empty() {
            bail!("{} complaints (seed {})", self.complaints.len(), self.seed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_fight_with_everything_gains_nothing_over_the_limits() {
        let report = fight(Duration::from_secs(20), 7, false).unwrap();
        report.print();
        report.judge().unwrap();
        assert!(report.honest_payments > 0 && report.transactions_complete > 50);
    }
}
