//! `cargo xtask demo`: the main job on real parts, told as it happens. Tokens are SoftHSM's, the chain is bitcoind's on regtest, the
//! network between signer and coordinator is a private Tor network in a namespace that has nothing but loopback.

mod stage;
mod story;
mod thief;

use std::{env, path::PathBuf, process::Command};

use anyhow::{Result, bail};
use postern_testkit::{
    TempRun, TorNetwork, program,
    run::{KEEP_VAR, LOG_DIR_VAR, RUN_DIR_VAR},
    tor::Shape,
};

use crate::{cargo, child, say, setup};

/// What to show.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    setup: setup::Setup,
    /// Leave everything running at the end and say how to play with it; Ctrl-C ends it.
    #[arg(long)]
    keep: bool,
    /// Use the programs of this folder instead of building them.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// The part that runs inside the private Tor network, given its file.
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Demo) -> Result<()> {
    if let Some(network) = &arguments.inside {
        return story::tell(network, arguments.keep);
    }
    setup::run(&arguments.setup)?;
    // Asked before the build, which may put another file of the same name in its place.
    let this = env::current_exe()?;
    let programs = match &arguments.programs {
        Some(folder) => folder.clone(),
        None => {
            say::phase("build", || child::run_well(cargo::cargo(&["build", "--workspace", "--bins", "--locked"])?))?;
            cargo::target()?.join("debug")
        }
    };

    let folder = TempRun::new("demo")?;
    let logs = cargo::target()?.join("demo-logs").join(std::process::id().to_string());
    let network = say::phase("a private Tor network of five relays, cut off from the world", || TorNetwork::start(&folder, Shape::SMALL))?;
    let mut command = Command::new(this);
    command.arg("demo").arg("--inside").arg(network.private_network_file());
    if arguments.keep {
        command.arg("--keep");
    }
    command.env(RUN_DIR_VAR, folder.path()).env(LOG_DIR_VAR, &logs).env_remove(KEEP_VAR);
    command.env(program::BIN_DIR_VAR, programs);
    let status = child::run(network.namespace().enter(&command)?)?;
    if status.success() {
        return Ok(());
    }
    bail!("the demo did not go as it should; logs are in {}", logs.display())
}
