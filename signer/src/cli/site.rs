//! Which signer a command is about: its configuration, and the socket that it says.

use std::path::PathBuf;

use anyhow::{Result, bail};
use postern_protocol::{refusal::Refusal, reply::ReplyBody, request::RequestBody};

use super::{
    Ending,
    paint::{BAD, DIM, paint},
};
use crate::{
    client::Client,
    config::{Config, ConfigError},
};

/// Options that every command understands.
#[derive(Debug, clap::Args)]
pub(super) struct Site {
    /// The signer's configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "POSTERN_CONFIG", default_value = "/etc/postern/signer.toml")]
    config: PathBuf,
    /// The signer's socket; without it, the one that the configuration names.
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// What the signer says to a request.
pub(super) enum Answer {
    /// What was asked for, perhaps.
    Reply(ReplyBody),
    /// A no.
    Refused(Refusal),
}

impl Site {
    pub(super) fn config_path(&self) -> &PathBuf {
        &self.config
    }

    pub(super) fn config(&self) -> Result<Config> {
        Config::load(&self.config).map_err(|e| match e {
            ConfigError::Unreadable { .. } => anyhow::Error::from(e).context("--config FILE says which configuration is meant"),
            e => e.into(),
        })
    }

    pub(super) fn client(&self) -> Result<Client> {
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => self.config()?.socket,
        };
        Ok(Client::connect(socket)?)
    }

    /// Asks the running signer.
    pub(super) fn ask(&self, body: RequestBody) -> Result<Answer> {
        match self.client()?.ask(body)? {
            ReplyBody::Refused(refusal) => Ok(Answer::Refused(refusal)),
            reply => Ok(Answer::Reply(reply)),
        }
    }
}

/// Says a refusal on standard error: code, reason, what mends it, and when.
pub(super) fn say_refusal(refusal: &Refusal) -> Ending {
    anstream::eprintln!("{} {}", paint(BAD, "Refused:"), refusal.code);
    anstream::eprintln!("  {}", refusal.message.as_deref().unwrap_or(refusal.code.meaning()));
    if refusal.message.is_some() {
        anstream::eprintln!("  {}", paint(DIM, refusal.code.meaning()));
    }
    if let Some(wait_ms) = refusal.wait_ms {
        anstream::eprintln!("  It will pass in {}.", super::status::about(wait_ms));
    }
    Ending::Refused
}

/// The signer answered something that was not asked.
pub(super) fn unexpected<T>() -> Result<T> {
    bail!("the signer answered something else than what was asked; are both of the same version?")
}
