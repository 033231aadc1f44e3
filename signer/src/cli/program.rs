//! `postern-signer`: the daemon's program.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use super::{Ending, Program, check, completions, run};

const EXAMPLES: &str = "\
Examples:
  postern-signer check /etc/postern/signer.toml      what the file allows, in plain English, and what is wrong with it
  postern-signer run --config /etc/postern/signer.toml
  postern-signer completions bash > /etc/bash_completion.d/postern-signer

`postern` is the program for operators and managers: postern --help";

/// Signs Bitcoin transactions with keys in hardware, within limits that it keeps itself.
///
/// It listens on no network: requests come over a Unix socket.
#[derive(Debug, Parser)]
#[command(name = "postern-signer", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct SignerCli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests until SIGTERM; exit code 78 when somebody has to mend something before another start.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
        config: PathBuf,
    },
    /// Say what a configuration allows; exit code 1, with the line and a hint, when it is wrong.
    Check(check::Check),
    /// Print the completions of a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
}

impl Program for SignerCli {
    fn run(self) -> anyhow::Result<Ending> {
        match self.command {
            Command::Run { config } => run::run(&config),
            Command::Check(check) => check.run(),
            Command::Completions { shell } => Ok(completions::<Self>(shell)),
        }
    }
}
