//! `postern command …`: managers' commands. All but `apply` work on any machine, without a signer: managers keep their keys
//! to themselves, and what travels is one small file.

mod apply;
mod command_file;
mod key_file;
mod keygen;
mod new;
mod show;
mod sign;
pub(super) mod words;

use anyhow::Result;
use clap::Subcommand;

use super::{Ending, site::Site};

/// `postern command …`
#[derive(Debug, Subcommand)]
pub(super) enum ManagerCommand {
    /// Make a manager's key and print the line for [commands] managers.
    Keygen(keygen::Keygen),
    /// Write a command that nobody signed yet.
    #[command(subcommand)]
    New(Box<new::NewCommand>),
    /// Read a command in words, and add a manager's signature.
    Sign(sign::SignCommand),
    /// Read a command in words.
    Show(show::ShowCommand),
    /// Bring a signed command to the running signer.
    Apply(apply::ApplyCommand),
}

impl ManagerCommand {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        match self {
            Self::Keygen(command) => command.run(),
            Self::New(command) => command.run(site),
            Self::Sign(command) => command.run(site),
            Self::Show(command) => command.run(site),
            Self::Apply(command) => command.run(site),
        }
    }
}
