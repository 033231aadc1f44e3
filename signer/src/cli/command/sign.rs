//! `postern command sign`: a manager reads a command, and signs it.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};

use anyhow::{Result, bail};

use super::{
    command_file,
    key_file::{self, PassphraseSource},
};
use crate::cli::{
    Ending,
    paint::{GOOD, HEAD, paint},
    site::Site,
    status::counted,
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SignCommand {
    /// The command.
    file: PathBuf,
    /// The manager's private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseSource,
    /// Where to write the signed command; without it, in place.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Do not ask whether to sign.
    #[arg(long)]
    yes: bool,
}

impl SignCommand {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        let mut command = command_file::read(&self.file)?;
        command_file::say(&command, &command_file::managers(site)?);
        if !self.yes && !confirmed()? {
            bail!("not signed");
        }
        let key = key_file::open(&self.key, &self.passphrase)?;
        command.sign(&key)?;
        let signatures = u64::try_from(command.signatures()).unwrap_or(u64::MAX);
        let output = self.output.as_ref().unwrap_or(&self.file);
        command_file::write(output, &command)?;
        say!("{} {} now has {}.", paint(GOOD, "Signed:"), output.display(), counted(signatures, "signature"));
        Ok(Ending::Done)
    }
}

fn confirmed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to say yes; --yes signs without asking");
    }
    anstream::print!("{} [y/N] ", paint(HEAD, "Sign this?"));
    anstream::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
