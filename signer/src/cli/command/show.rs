//! `postern command show`: a command in words.

use std::path::PathBuf;

use anyhow::Result;

use super::command_file;
use crate::cli::{Ending, site::Site};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ShowCommand {
    /// The command.
    file: PathBuf,
}

impl ShowCommand {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        command_file::say(&command_file::read(&self.file)?, &command_file::managers(site)?);
        Ok(Ending::Done)
    }
}
