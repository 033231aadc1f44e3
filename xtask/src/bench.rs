//! `cargo xtask bench`: runs every bench (see [`crate::measurement`]), one after the other, in release.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Result, bail, ensure};
use postern_testkit::{
    TempRun, program,
    run::{LOG_DIR_VAR, RUN_DIR_VAR},
};
use serde::{Deserialize, Serialize};

use crate::{cargo, child, measurement::Measurement, say, setup};

const TESTKIT: &str = "postern-testkit";

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    setup: setup::Setup,
    /// Only benches whose name contains this (`ledger` for `bench_ledger`).
    #[arg(long)]
    filter: Option<String>,
}

/// What is kept of a run.
#[derive(Debug, Serialize)]
struct Report {
    /// Seconds since 1970.
    at: u64,
    /// `rustc --version`.
    rustc: String,
    cores: usize,
    measurements: Vec<Measurement>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

pub(crate) fn run(arguments: &Bench) -> Result<()> {
    setup::run(&arguments.setup)?;
    let benches = find(arguments.filter.as_deref().unwrap_or_default())?;
    ensure!(!benches.is_empty(), "no bench of that name");
    say::phase("build in release", || {
        let mut build = cargo::cargo(&["build", "--bins", "--release", "--locked"])?;
        build.args(benches.iter().flat_map(|(package, name)| ["--package", package, "--example", name]));
        // A bench of one crate runs that crate's programs; those of the testkit run everybody's.
        if benches.iter().any(|(package, _)| package == TESTKIT) {
            build.arg("--workspace");
        }
        child::run_well(build)
    })?;
    let folder = TempRun::new("bench")?;
    let release = cargo::target()?.join("release");
    let mut measurements = Vec::new();
    for (package, name) in &benches {
        say::phase(&format!("{name} ({package})"), || {
            let mut command = Command::new(release.join("examples").join(name));
            command.env(program::BIN_DIR_VAR, &release).env(RUN_DIR_VAR, folder.path());
            command.env(LOG_DIR_VAR, cargo::target()?.join("bench/logs"));
            let status = child::run_lines(command, |line| match serde_json::from_str::<Measurement>(line) {
                Ok(measurement) => measurements.push(measurement),
                Err(error) if line.starts_with('{') => {
                    say::problem(&format!("{name} wrote a line that is no measurement ({error}): {line}"))
                }
                Err(_) => say::note(line),
            })?;
            if status.success() { Ok(()) } else { bail!("{name} ended with {status}") }
        })?;
    }
    print(&measurements);
    let kept = keep(measurements.clone())?;
    say::note(&format!("kept as {}", kept.display()));
    let missed: Vec<&str> = measurements.iter().filter(|m| m.ok == Some(false)).map(|m| m.name.as_str()).collect();
    if missed.is_empty() { Ok(()) } else { bail!("goals missed: {}", missed.join(", ")) }
}

/// Package and name of every example that is a bench.
fn find(filter: &str) -> Result<Vec<(String, String)>> {
    let metadata = program::output(&mut cargo::cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked"])?)?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cargo metadata")?;
    let mut found: Vec<_> = metadata
        .packages
        .into_iter()
        .flat_map(|p| p.targets.into_iter().map(move |t| (p.name.clone(), t)))
        .filter(|(_, t)| t.kind.iter().any(|k| k == "example") && t.name.starts_with("bench_") && t.name.contains(filter))
        .map(|(package, target)| (package, target.name))
        .collect();
    found.sort();
    Ok(found)
}

fn print(measurements: &[Measurement]) {
    const GOOD: Style = AnsiColor::Green.on_default();
    const BAD: Style = AnsiColor::Red.on_default().bold();
    let width = measurements.iter().map(|m| m.name.chars().count()).max().unwrap_or(0);
    anstream::println!();
    for m in measurements {
        let ratio = m.ratio.map_or(String::new(), |r| format!("{r:.2}×"));
        let (style, mark) = match m.ok {
            Some(true) => (GOOD, "✓"),
            Some(false) => (BAD, "✗"),
            None => (Style::new(), " "),
        };
        let goal = m.goal.as_deref().unwrap_or_default();
        anstream::println!("{style}{mark}{style:#} {:width$}  {:>14} {:<8} {ratio:>9}  {goal}", m.name, number(m.value), m.unit);
    }
    anstream::println!();
}

/// Four digits that count, thousands apart.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 1_000.0 {
        let decimals = if magnitude >= 100.0 {
            0
        } else if magnitude >= 10.0 {
            1
        } else {
            3
        };
        return format!("{value:.decimals$}");
    }
    let digits = format!("{value:.0}");
    let start = digits.len() % 3;
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && n % 3 == start {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn keep(measurements: Vec<Measurement>) -> Result<PathBuf> {
    let folder = cargo::target()?.join("bench");
    fs::create_dir_all(&folder)?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let rustc = program::output(Command::new("rustc").arg("--version"))?.trim().to_owned();
    let report = Report { at, rustc, cores: std::thread::available_parallelism()?.get(), measurements };
    let path = folder.join(format!("{at}.json"));
    fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let shown = [0.4, 12.34, 812.6, 2_391.0, 38_500.2, 1_234_567.0].map(number);
        assert_eq!(shown, ["0.400", "12.3", "813", "2,391", "38,500", "1,234,567"]);
    }
}
