//! `postern command apply`: a signed command is brought to the running signer. Anybody may: only the signatures count.

use std::path::PathBuf;

use anyhow::Result;
use postern_protocol::{reply::ReplyBody, request::RequestBody};

use super::command_file;
use crate::cli::{
    Ending,
    paint::{GOOD, paint},
    site::{Answer, Site, say_refusal, unexpected},
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ApplyCommand {
    /// The command.
    file: PathBuf,
}

impl ApplyCommand {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        // As it is: what is wrong with it is the signer's to say.
        let bytes = command_file::read_bytes(&self.file)?;
        match site.ask(RequestBody::Command(bytes))? {
            Answer::Reply(ReplyBody::Applied(applied)) => {
                say!("{} command {}: {}", paint(GOOD, "Applied"), applied.serial, applied.effect);
                Ok(Ending::Done)
            }
            Answer::Refused(refusal) => Ok(say_refusal(&refusal)),
            Answer::Reply(_) => unexpected(),
        }
    }
}
