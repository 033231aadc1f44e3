//! `postern-link`, see the library.

use clap::Parser as _;
use postern_link::cli::{Cli, start_log};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    start_log();
    let done = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(cli.run()));
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("postern-link: {e:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
