//! `postern-signer run`: the daemon.

use std::path::Path;

use anyhow::{Result, anyhow};

use super::Ending;
use crate::{
    config::Config,
    daemon::{self, logs},
};

pub(super) fn run(path: &Path) -> Result<Ending> {
    logs::start().map_err(|e| anyhow!(e))?;
    let config = Config::load(path)?;
    // Its words hold the cause's already.
    daemon::run(&config).map_err(|e| anyhow!("{e}"))?;
    Ok(Ending::Done)
}
