//! What people type: `postern-signer`, the daemon's program, and `postern`, the operators' and managers'.
//!
//! One file per command. A command says what it is about to do before it does it; what other programs read goes to standard
//! output and nothing else does. It ends with 0 when it did what was asked, 2 when the signer refuses, 1 for everything else; the daemon
//! with [`NEEDS_SOMEBODY`] when another start cannot help.

/// A line on standard output, in colours where there is a terminal.
macro_rules! say {
    () => { $crate::cli::paint::line(format_args!("")) };
    ($($words:tt)+) => { $crate::cli::paint::line(format_args!($($words)+)) };
}

mod attest;
mod check;
mod command;
mod init;
mod ledger;
mod operator;
mod paint;
mod program;
mod psbt_file;
mod run;
mod sign;
mod simulate;
mod site;
mod status;
mod wallet;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, Parser};
use clap_complete::Shell;

pub use self::{operator::OperatorCli, program::SignerCli};
use crate::sandbox::harden;

/// The daemon's exit code when a start without a change would end the same way, or do harm: a wrong PIN or auth value counts towards a
/// lockout each time. It is `EX_CONFIG` of sysexits.h; the unit names it in `RestartPreventExitStatus=`.
pub const NEEDS_SOMEBODY: u8 = 78;

/// The error behind it, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NeedsSomebody(String);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It did what was asked.
    Done,
    /// The signer refuses.
    Refused,
}

/// A program of ours.
pub trait Program: Parser {
    /// Does what was asked.
    ///
    /// # Errors
    /// In words for the person at the keyboard.
    fn run(self) -> anyhow::Result<Ending>;
}

/// Parses arguments, runs, and turns the outcome into words and an exit code.
#[must_use]
pub fn main<P: Program>(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let program = match P::try_parse_from(arguments) {
        Ok(program) => program,
        Err(said) => {
            // Help and version are no mistakes. Mistakes end with 1: 2 is for refusals.
            let _ = said.print();
            return if said.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS };
        }
    };
    match harden().map_err(Into::into).and_then(|()| program.run()) {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Refused) => ExitCode::from(2),
        Err(error) => {
            anstream::eprintln!("{}error:{} {error:#}", paint::BAD, paint::BAD.render_reset());
            ExitCode::from(if error.is::<NeedsSomebody>() { NEEDS_SOMEBODY } else { 1 })
        }
    }
}

/// Writes the completions of a shell to standard output.
fn completions<P: CommandFactory>(shell: Shell) -> Ending {
    let mut command = P::command();
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    say!("{}", String::from_utf8_lossy(&text).trim_end());
    Ending::Done
}
