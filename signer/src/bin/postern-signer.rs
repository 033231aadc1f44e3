//! The daemon's program; all of it is in the library.

use postern_signer::cli;

fn main() -> std::process::ExitCode {
    cli::main::<cli::SignerCli>(std::env::args_os())
}
