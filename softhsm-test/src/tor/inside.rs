//! Tests whose own code must run inside the network: the test starts itself again there.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};

use super::{OnionService, Shape, TorNetwork, kill_by_pid_file, private_network_file, relay_name};
use crate::{process::start_bound, run::TempRun};

/// Set for the inner run: the network's folder.
const INSIDE_VAR: &str = "POSTERN_INSIDE_TOR";

/// The network as the code inside it sees it.
#[derive(Debug)]
pub struct Inside(PathBuf);

impl Inside {
    /// For `[tor] private_network`.
    #[must_use]
    pub fn private_network_file(&self) -> PathBuf {
        private_network_file(&self.0)
    }

    /// For `[tor] bridges`: the relay of that number, as a bridge into this network.
    ///
    /// # Errors
    /// When there is none.
    pub fn bridge_line(&self, number: usize) -> Result<String> {
        Ok(fs::read_to_string(self.0.join(relay_name(number)).join("bridge-line"))?.trim().to_owned())
    }

    /// As [`TorNetwork::onion_service`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn onion_service(&self, name: &str, target: &str, clients: &[String]) -> Result<OnionService> {
        OnionService::start_inside(&self.0, name, target, clients)
    }

    /// Kills a relay for good. Only for a network of one's own.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_relay(&self, number: usize) -> Result<()> {
        kill_by_pid_file(&self.0.join(relay_name(number)))
    }
}

/// The network that the tests of one program share. Nodes end with the process: a static is never dropped.
static SHARED: Mutex<Option<TorNetwork>> = Mutex::new(None);

/// Runs the body of a `#[test]` inside a private Tor network that the tests of one program share. To be called first, and once, in the
/// test's own thread.
///
/// # Panics
/// When the network does not start or the body fails: this is for tests.
#[allow(clippy::panic)]
pub fn in_private_network(body: impl FnOnce(&Inside)) {
    if let Some(inside) = inside() {
        return body(&inside);
    }
    let prepared = {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        start_shared(&mut shared).and_then(again)
    };
    finish(prepared);
}

/// The same in a network of one's own, to break.
///
/// # Panics
/// As [`in_private_network`].
pub fn in_private_network_of(shape: Shape, body: impl FnOnce(&Inside)) {
    if let Some(inside) = inside() {
        return body(&inside);
    }
    let started = TempRun::new("tor").and_then(|run| TorNetwork::start(&run, shape));
    match started {
        Ok(network) => finish(again(&network)),
        Err(error) => finish(Err(error)),
    }
}

fn inside() -> Option<Inside> {
    env::var_os(INSIDE_VAR).map(|folder| Inside(folder.into()))
}

fn start_shared(shared: &mut Option<TorNetwork>) -> Result<&TorNetwork> {
    match shared {
        Some(network) => Ok(network),
        None => Ok(shared.insert(TorNetwork::start(&TempRun::new("tor")?, Shape::SMALL)?)),
    }
}

/// This test again, inside.
fn again(network: &TorNetwork) -> Result<Command> {
    let name = thread::current().name().context("a test has a thread with its name")?.to_owned();
    let mut command = Command::new(env::current_exe()?);
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(INSIDE_VAR, Path::new(&network.folder));
    network.namespace.enter(&command)
}

#[allow(clippy::panic)]
fn finish(prepared: Result<Command>) {
    let outcome = prepared.and_then(|mut command| {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(start_bound(command)?.wait_with_output()?)
    });
    match outcome {
        Ok(output) => {
            print!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "the test failed inside the private Tor network ({})", output.status);
            // A name that matches nothing would pass without having run.
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the test did not run inside");
        }
        Err(error) => panic!("{error:#}"),
    }
}
