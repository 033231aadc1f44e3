//! The operators' and managers' program; all of it is in the library.

use postern_signer::{cli, tpm};

fn main() -> std::process::ExitCode {
    tpm::quieten_library();
    cli::main::<cli::OperatorCli>(std::env::args_os())
}
