//! `postern-coordinator key`.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Result, bail};
use clap::Subcommand;

use super::{ConfigArgument, open};
use crate::{
    clock::now_ms,
    config::Config,
    key::{ApiKey, Scope, scopes_text},
    store::{NewKey, Store},
};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Makes a key and prints it, this once.
    New {
        /// What it may do: create, approve, read. May be given several times, or as a list.
        #[arg(long, required = true, value_delimiter = ',')]
        scope: Vec<Scope>,
        /// Whose key it is. Nobody approves with any key what the same person made.
        #[arg(long)]
        person: String,
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Lists keys, without their secrets.
    List(ConfigArgument),
    /// Ends a key.
    Revoke {
        /// The key's id, as `key list` prints it.
        id: String,
        #[command(flatten)]
        config: ConfigArgument,
    },
}

impl KeyCommand {
    pub(super) async fn run(self) -> Result<()> {
        let (Self::New { config, .. } | Self::List(config) | Self::Revoke { config, .. }) = &self;
        let config = Config::load(&config.config)?;
        let store: Arc<dyn Store> = Arc::new(open(&config).await?);
        match self {
            Self::New { scope, person, .. } => {
                if person.trim().is_empty() || person.len() > 128 {
                    bail!("--person has 1 to 128 characters");
                }
                let scopes: BTreeSet<Scope> = scope.into_iter().collect();
                let key = ApiKey::generate();
                store.add_key(NewKey { id: key.id(), person, hash: key.hash(), scopes: scopes_text(&scopes), at: now_ms() }).await?;
                eprintln!("Key {} may {}. It is shown this once:", key.id(), scopes_text(&scopes));
                println!("{}", key.reveal());
            }
            Self::List(_) => {
                for key in store.keys().await? {
                    let state = if key.revoked_at.is_some() { "revoked" } else { "valid" };
                    println!("{}  {state:7}  {}  {}", key.id, key.scopes, key.person);
                }
            }
            Self::Revoke { id, .. } => {
                if !store.revoke_key(&id, now_ms()).await? {
                    bail!("there is no valid key `{id}`; `postern-coordinator key list` shows them");
                }
                println!("Key {id} is revoked.");
            }
        }
        Ok(())
    }
}
