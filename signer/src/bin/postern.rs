//! The operators' and managers' program; all of it is in the library.

use postern_signer::cli;

fn main() -> std::process::ExitCode {
    cli::main::<cli::OperatorCli>(std::env::args_os())
}
