//! An onion service of C Tor: what an operator may run instead of the coordinator's own.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::{TorNetwork, tor_command, torrc};
use crate::{
    process::Process,
    run::TempRun,
    wait::{PATIENCE, wait_for},
};

/// A running service.
#[derive(Debug)]
pub struct OnionService {
    process: Process,
    address: String,
    clients: PathBuf,
}

impl OnionService {
    pub(super) fn start(network: &TorNetwork, name: &str, target: &str, clients: &[String]) -> Result<Self> {
        let folder = network.run.folder(&format!("tor/{name}"))?;
        let command = network.namespace.enter(&tor_command(&folder)?)?;
        Self::configure(&network.folder, &folder, target, clients)?;
        Self::up(Process::start(&network.run, &format!("tor-{name}"), command)?, &folder)
    }

    /// From inside of the network's namespace.
    pub(super) fn start_inside(network: &Path, name: &str, target: &str, clients: &[String]) -> Result<Self> {
        let run = TempRun::new(name)?;
        let folder = run.folder("service")?;
        Self::configure(network, &folder, target, clients)?;
        Self::up(Process::start(&run, &format!("tor-{name}"), tor_command(&folder)?)?, &folder)
    }

    fn configure(network: &Path, folder: &Path, target: &str, clients: &[String]) -> Result<()> {
        let service = folder.join("hs");
        let authorized = service.join("authorized_clients");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&authorized)?;
        for (index, client) in clients.iter().enumerate() {
            fs::write(authorized.join(format!("client{index}.auth")), format!("{client}\n"))?;
        }
        let text = format!(
            "{}HiddenServiceDir {}\nHiddenServicePort 443 {target}\n{}",
            torrc::common(folder),
            service.display(),
            fs::read_to_string(network.join("authorities.torrc"))?
        );
        Ok(fs::write(folder.join("torrc"), text)?)
    }

    fn up(mut process: Process, folder: &Path) -> Result<Self> {
        let service = folder.join("hs");
        let address = wait_for("the onion address", PATIENCE, || {
            process.alive()?;
            Ok(fs::read_to_string(service.join("hostname")).ok().map(|text| text.trim().to_owned()).filter(|t| !t.is_empty()))
        })?;
        Ok(Self { process, address, clients: service.join("authorized_clients") })
    }

    /// `….onion`, without a port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The folder whose `.auth` files say who finds the service.
    #[must_use]
    pub fn authorized_clients(&self) -> &Path {
        &self.clients
    }

    /// Makes Tor read that folder again.
    ///
    /// # Errors
    /// When it has ended.
    pub fn reload(&mut self) -> Result<()> {
        self.process.signal(Signal::HUP).context("reloading tor")
    }
}
