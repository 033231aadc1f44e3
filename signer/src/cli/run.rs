//! `postern-signer run`: the daemon.

use std::path::Path;

use anyhow::{Result, anyhow};

use super::{Ending, NeedsSomebody};
use crate::{
    config::Config,
    daemon::{self, logs},
};

pub(super) fn run(path: &Path) -> Result<Ending> {
    logs::start().map_err(|e| anyhow!(e))?;
    let config = Config::load(path).map_err(|e| NeedsSomebody(format!("{e:#}")))?;
    match daemon::run(&config) {
        Ok(()) => Ok(Ending::Done),
        // Their words hold the causes' already.
        Err(e) if e.needs_somebody() => Err(NeedsSomebody(e.to_string()).into()),
        Err(e) => Err(anyhow!("{e}")),
    }
}
