//! `postern-coordinator`: arguments, and what each subcommand does.

mod attestation;
mod key;
mod signer;
mod summary;

use std::{io, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};
use postern_link::keyfile;

use crate::{
    app::App,
    config::Config,
    node::RpcNode,
    run::{self, Component},
    store::SqliteStore,
};

/// The main system: orders, chain monitor, transaction sender, and the door that signers dial.
#[derive(Debug, Parser)]
#[command(name = "postern-coordinator", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs all components.
    Run(ConfigArgument),
    /// Runs the customers' API and the signers' door.
    Api(ConfigArgument),
    /// Runs the chain monitor.
    Monitor(ConfigArgument),
    /// Runs approval and batching.
    Orders(ConfigArgument),
    /// Runs signing, broadcast and fee bumps.
    Sender(ConfigArgument),
    /// Loads a configuration and says what it means.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// API keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Paired signers.
    #[command(subcommand)]
    Signer(signer::SignerCommand),
    /// Wallets that stand still.
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Follows the chain again from a height, with all scripts known now.
    Rescan {
        #[command(flatten)]
        config: ConfigArgument,
        /// The first block.
        #[arg(long)]
        from: u32,
    },
    /// Prints the OpenAPI document.
    Openapi,
    /// Prints completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// `coordinator.toml`.
    #[arg(long, env = "POSTERN_COORDINATOR_CONFIG", default_value = "/etc/postern/coordinator.toml")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum WalletCommand {
    /// Says which wallets stand still, and why.
    List(ConfigArgument),
    /// Ends a stop, after somebody looked into it. What was asked is asked again.
    Resume {
        /// The wallet.
        name: String,
        #[command(flatten)]
        config: ConfigArgument,
    },
}

async fn open(config: &Config) -> Result<SqliteStore> {
    keyfile::private_folder(&config.coordinator.state)?;
    let path = config.database();
    SqliteStore::open(&path, config.coordinator.network).await.with_context(|| path.display().to_string())
}

async fn app(argument: &ConfigArgument) -> Result<Arc<App>> {
    let config = Config::load(&argument.config)?;
    let store = open(&config).await?;
    let node = RpcNode::new(&config.bitcoind).map_err(anyhow::Error::msg)?;
    Ok(Arc::new(App::new(config, Arc::new(store), Arc::new(node))?))
}

impl Cli {
    /// Does it.
    ///
    /// # Errors
    /// What to tell the operator.
    pub async fn run(self) -> Result<()> {
        match self.command {
            Command::Run(config) => run::run(app(&config).await?, &Component::ALL).await,
            Command::Api(config) => run::run(app(&config).await?, &[Component::Api]).await,
            Command::Monitor(config) => run::run(app(&config).await?, &[Component::Monitor]).await,
            Command::Orders(config) => run::run(app(&config).await?, &[Component::Orders]).await,
            Command::Sender(config) => run::run(app(&config).await?, &[Component::Sender]).await,
            Command::Check { file } => {
                let config = Config::load(&file)?;
                print!("{}", summary::text(&config)?);
                Ok(())
            }
            Command::Key(command) => command.run().await,
            Command::Signer(command) => command.run().await,
            Command::Wallet(command) => command.run().await,
            Command::Rescan { config, from } => rescan(&config, from).await,
            Command::Openapi => {
                println!("{}", crate::api::document().to_pretty_json()?);
                Ok(())
            }
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "postern-coordinator", &mut io::stdout());
                Ok(())
            }
        }
    }
}

async fn rescan(argument: &ConfigArgument, from: u32) -> Result<()> {
    let app = app(argument).await?;
    let before = from.checked_sub(1).context("block 0 pays nobody: begin with 1")?;
    let hash = app.node.hash_at(before).await?.with_context(|| format!("the chain has no block {before}"))?;
    app.store.start_at(crate::store::BlockRef { height: before, hash }).await?;
    println!("The monitor follows the chain again from block {from}.");
    Ok(())
}

impl WalletCommand {
    async fn run(self) -> Result<()> {
        match self {
            Self::List(argument) => {
                let config = Config::load(&argument.config)?;
                let store: Arc<dyn crate::store::Store> = Arc::new(open(&config).await?);
                let stops = store.stops().await?;
                for name in config.wallet.keys() {
                    match stops.iter().find(|s| s.wallet == *name) {
                        Some(stop) => println!("{name}: stopped, {}: {}", stop.code, stop.message),
                        None => println!("{name}: works"),
                    }
                }
            }
            Self::Resume { name, config } => {
                let config = Config::load(&config.config)?;
                let store: Arc<dyn crate::store::Store> = Arc::new(open(&config).await?);
                let was = store.resume_wallet(&name).await?;
                println!("{}", if was { format!("{name} works again.") } else { format!("{name} was not stopped.") });
            }
        }
        Ok(())
    }
}
