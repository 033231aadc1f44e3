//! A private Tor network: authorities and relays from the system's `tor`, on loopback, in a namespace of its own. Clients
//! and services of the project run inside that namespace and are told of the network by [`TorNetwork::private_network_file`].

mod consensus;
mod inside;
mod keys;
mod onion;
mod torrc;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

pub use inside::{Inside, in_private_network, in_private_network_of};
pub use onion::OnionService;

use crate::{namespace::Namespace, process::Process, program, run::TempRun, wait::wait_until};

/// How long a network may take until it works.
const READY_MAX: Duration = Duration::from_secs(300);

/// How many nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Directory authorities, which are relays too.
    pub authorities: usize,
    /// Other relays.
    pub relays: usize,
}

impl Shape {
    /// Enough for onion services: five nodes.
    pub const SMALL: Self = Self { authorities: 3, relays: 2 };
    /// Enough to lose a relay: of ten nodes most paths avoid the dead one, which authorities go on listing for three quarters of an hour.
    pub const SPARE: Self = Self { authorities: 3, relays: 7 };
}

/// A running network. Dropping it ends all of it.
#[derive(Debug)]
pub struct TorNetwork {
    // In this order: the nodes end before their namespace and folder do.
    nodes: Vec<Node>,
    namespace: Namespace,
    run: TempRun,
    folder: PathBuf,
}

/// One relay or authority.
#[derive(Debug)]
struct Node {
    name: String,
    folder: PathBuf,
    process: Option<Process>,
}

impl TorNetwork {
    /// Starts a network and waits until it works: every node knows a consensus in which all nodes have all flags.
    ///
    /// # Errors
    /// When `tor` is missing, a node ends, or the network does not come to work in time.
    pub fn start(run: &TempRun, shape: Shape) -> Result<Self> {
        let folder = run.folder("tor")?;
        let keys = keys::of_nodes(shape)?;
        let mut nodes = Vec::new();
        for key in &keys {
            let own = run.folder(&format!("tor/{}", key.name))?;
            key.copy_to(&own)?;
            std::fs::write(own.join("torrc"), torrc::node(key, &keys, &own))?;
            std::fs::write(own.join("bridge-line"), format!("{}:{} {}\n", key.address(), key.or_port(), key.rsa))?;
            nodes.push(Node { name: key.name.clone(), folder: own, process: None });
        }
        std::fs::write(folder.join("authorities.torrc"), torrc::authorities(&keys))?;
        std::fs::write(folder.join("private-network.toml"), torrc::private_network(&keys))?;
        let mut network = Self { nodes, namespace: Namespace::new()?, run: run.clone(), folder };
        for index in 0..network.nodes.len() {
            network.start_node(index)?;
        }
        network.wait_until_ready()?;
        Ok(network)
    }

    fn start_node(&mut self, index: usize) -> Result<()> {
        let node = self.nodes.get_mut(index).context("no such node")?;
        let command = tor_command(&node.folder)?;
        node.process = Some(Process::start(&self.run, &format!("tor-{}", node.name), self.namespace.enter(&command)?)?);
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let count = self.nodes.len();
        wait_until("the private Tor network to agree", READY_MAX, || {
            let mut ready = 0;
            for node in &mut self.nodes {
                if let Some(process) = &mut node.process {
                    process.alive()?;
                }
                ready += usize::from(consensus::is_complete(&node.folder, count));
            }
            Ok(ready == count)
        })
    }

    /// The namespace in which the network lives; its clients and services must run there.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// For `[tor] private_network`.
    #[must_use]
    pub fn private_network_file(&self) -> PathBuf {
        private_network_file(&self.folder)
    }

    /// Starts an onion service of C Tor that forwards port 443 to `target`: a loopback `address:port`, or `unix:/path`. Only `clients`
    /// (`descriptor:x25519:…`) find it; with none, everybody on this network does.
    ///
    /// # Errors
    /// When it does not start.
    pub fn onion_service(&self, name: &str, target: &str, clients: &[String]) -> Result<OnionService> {
        OnionService::start(self, name, target, clients)
    }

    /// Kills the relay of that number (authorities are not counted), as a power cut would.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_relay(&mut self, number: usize) -> Result<()> {
        let name = relay_name(number);
        let node = self.nodes.iter_mut().find(|n| n.name == name).with_context(|| format!("no {name}"))?;
        if let Some(mut process) = node.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Starts a relay again that was killed.
    ///
    /// # Errors
    /// When there is none, or it does not start.
    pub fn restart_relay(&mut self, number: usize) -> Result<()> {
        let name = relay_name(number);
        let index = self.nodes.iter().position(|n| n.name == name).with_context(|| format!("no {name}"))?;
        self.start_node(index)
    }
}

fn private_network_file(folder: &Path) -> PathBuf {
    folder.join("private-network.toml")
}

fn relay_name(number: usize) -> String {
    format!("relay{number}")
}

fn tor_command(folder: &Path) -> Result<Command> {
    let tor = program::on_path("tor").context("`tor` is missing; the package tor has it")?;
    let mut command = Command::new(tor);
    // It also looks by itself whether we are still there.
    command.arg("-f").arg(folder.join("torrc")).arg("--quiet").args(["--__OwningControllerProcess", &std::process::id().to_string()]);
    Ok(command)
}

/// Kills the node whose PidFile lies in this folder.
fn kill_by_pid_file(folder: &Path) -> Result<()> {
    let text = std::fs::read_to_string(folder.join("pid"))?;
    let pid = Pid::from_raw(text.trim().parse()?).context("not a process id")?;
    Ok(kill_process(pid, Signal::KILL)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_networks_with_the_same_ports_come_up_side_by_side_and_end_with_their_values() {
        let run = [TempRun::new("tor_a").unwrap(), TempRun::new("tor_b").unwrap()];
        let networks = std::thread::scope(|s| {
            let both = [0, 1].map(|i| {
                s.spawn({
                    let run = &run[i];
                    move || TorNetwork::start(run, Shape { authorities: 3, relays: 1 }).unwrap()
                })
            });
            both.map(|t| t.join().unwrap())
        });
        let pids: Vec<u32> = networks.iter().flat_map(|n| n.nodes.iter().filter_map(|n| n.process.as_ref().map(Process::id))).collect();
        assert_eq!(pids.len(), 8);
        for network in &networks {
            let text = std::fs::read_to_string(network.private_network_file()).unwrap();
            assert_eq!(text.matches("orport = \"127.").count(), 3);
        }
        drop(networks);
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} still runs");
        }
    }
}
