//! `cargo xtask test`: everything that must hold, in the order in which it fails fastest. The last thing that it prints is the
//! test runner's own summary.

use std::{fs, path::Path, process};

use anyhow::Result;
use postern_testkit::{
    TempRun, program,
    run::{self, KEEP_VAR, LOG_DIR_VAR, RUN_DIR_VAR},
};

use crate::{cargo, child, say, setup};

/// What to test.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Test {
    #[command(flatten)]
    setup: setup::Setup,
    /// Only tests whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Neither formatting nor lints.
    #[arg(long)]
    no_lint: bool,
    /// Leave the folders of the runs.
    #[arg(long)]
    keep: bool,
    /// More arguments for the runner (cargo-nextest where it is installed, else cargo test).
    #[arg(last = true)]
    runner: Vec<String>,
}

/// Tests kill the coordinator at each of its steps.
const FAILPOINTS: &str = "postern-coordinator/failpoints";

/// Tests failed; the runner said which.
#[derive(Debug)]
pub(crate) struct SomeFailed;

impl std::fmt::Display for SomeFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tests failed")
    }
}

impl std::error::Error for SomeFailed {}

pub(crate) fn run(arguments: &Test) -> Result<()> {
    setup::run(&arguments.setup)?;
    if !arguments.no_lint {
        say::phase("formatting", || child::run_well(cargo::cargo(&["fmt", "--all", "--check"])?))?;
        say::phase("lints", || {
            child::run_well(cargo::cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--features",
                FAILPOINTS,
                "--locked",
                "--",
                "-D",
                "warnings",
            ])?)
        })?;
        if program::on_path("cargo-deny").is_some() {
            // Advisories need the network; they are for `cargo deny check` by hand and on a schedule.
            say::phase("licences, bans, sources", || child::run_well(cargo::cargo(&["deny", "check", "bans", "licenses", "sources"])?))?;
        }
    }
    say::phase("build", || {
        child::run_well(cargo::cargo(&["build", "--workspace", "--lib", "--bins", "--tests", "--locked", "--features", FAILPOINTS])?)
    })?;

    let folder = TempRun::new("test")?;
    let logs = cargo::target()?.join("test-logs").join(process::id().to_string());
    say::heading("tests");
    say::note(&format!("logs of tests that fail go to {}", logs.display()));
    let nextest = program::on_path("cargo-nextest").is_some();
    let mut command = cargo::cargo(if nextest { &["nextest", "run"] } else { &["test", "--no-fail-fast"] })?;
    command.args(["--workspace", "--lib", "--bins", "--tests", "--locked", "--features", FAILPOINTS]);
    if nextest {
        command.args(["--no-fail-fast", "--final-status-level", "slow"]);
    }
    // The programs that were just built, also when Cargo was told another profile.
    command.env(program::BIN_DIR_VAR, cargo::target()?.join("debug"));
    command.env(RUN_DIR_VAR, folder.path()).env(LOG_DIR_VAR, &logs).args(&arguments.filter);
    if arguments.keep {
        command.env(KEEP_VAR, "1");
        folder.keep();
    }
    // libtest reads its arguments behind `--`, nextest its own before.
    if !nextest && !arguments.runner.is_empty() {
        command.arg("--");
    }
    command.args(&arguments.runner);
    let passed = child::run(command);
    if !matches!(&passed, Ok(status) if status.success()) {
        save_leftovers(folder.path(), &logs);
    }
    if passed?.success() { Ok(()) } else { Err(SomeFailed.into()) }
}

/// A test that was killed (by a time-out, by Ctrl-C) could not save its logs itself.
fn save_leftovers(folder: &Path, logs: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !entry.path().is_dir() {
            continue;
        }
        if let Err(error) = run::copy_logs(&entry.path(), &logs.join(&name)) {
            say::problem(&format!("the logs of {} could not be saved: {error}", name.to_string_lossy()));
        }
    }
}
