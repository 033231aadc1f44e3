//! `cargo xtask`: set a machine up, demo, test, bench. These are the project's only scripts; `.ci/run` and people call the same.

mod bench;
mod bitcoin_core;
mod cargo;
mod child;
mod demo;
mod measurement;
mod packages;
mod redteam;
mod say;
mod setup;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets a machine up, tests and measures Postern.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Installs what is missing with the system's package manager and builds bitcoind when none is on PATH.
    Setup(setup::Setup),
    /// Shows the main job on real parts, told as it happens.
    Demo(demo::Demo),
    /// Proves it all: formatting, lints, then every test on real parts.
    Test(test::Test),
    /// Attacks the signer with everything that a lost coordinator can send, and counts what is gained over the limits: nothing.
    Redteam(redteam::Redteam),
    /// Measures, prints a table and keeps it as JSON under target/bench.
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    child::watch_for_interrupts();
    let result = match &arguments.command {
        Task::Setup(arguments) => setup::run(arguments),
        Task::Demo(arguments) => demo::run(arguments),
        Task::Test(arguments) => test::run(arguments),
        Task::Redteam(arguments) => redteam::run(arguments),
        Task::Bench(arguments) => bench::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if child::interrupted() => {
            say::problem(&format!("stopped: {error:#}"));
            ExitCode::from(130)
        }
        // The runner's own last lines say enough.
        Err(error) if error.is::<test::SomeFailed>() => ExitCode::FAILURE,
        Err(error) => {
            say::problem(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
