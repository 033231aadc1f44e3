//! `postern-coordinator signer`: pairing.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use postern_protocol::{
    config_file,
    pairing::{CoordinatorPublic, LinkPublic},
};

use super::{ConfigArgument, attestation, open};
use crate::{
    attestation::held,
    clock::now_ms,
    config::{Config, is_name},
    door,
    run::paired,
    store::{NewSigner, Store},
};

#[derive(Debug, Subcommand)]
pub(super) enum SignerCommand {
    /// Pairs a signer: reads what its link wrote, writes what its link needs.
    Add {
        /// Its name here, as [wallet] signers name it.
        name: String,
        /// The file that `postern-link init` wrote.
        #[arg(long)]
        from: PathBuf,
        /// Where to write the coordinator's public file; without it, to standard output.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Host and port of the direct way as the link sees it, when it is not [door] direct.
        #[arg(long)]
        direct: Option<String>,
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Lists paired signers.
    List(ConfigArgument),
    /// Says what a signer booted, what is pinned, and what differs.
    Attestation {
        /// Its name.
        name: String,
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Accepts what a signer booted: from then on this is what is expected. It is asked once more, and gets orders when it says the same.
    Accept {
        /// Its name.
        name: String,
        /// What is accepted, as `signer attestation NAME` shows it.
        #[arg(long, value_name = "DIGITS")]
        seen: String,
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Unpairs a signer: its link can no longer connect.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        config: ConfigArgument,
    },
}

impl SignerCommand {
    pub(super) async fn run(self) -> Result<()> {
        let (Self::Add { config, .. }
        | Self::List(config)
        | Self::Attestation { config, .. }
        | Self::Accept { config, .. }
        | Self::Remove { config, .. }) = &self;
        let config = Config::load(&config.config)?;
        let store: Arc<dyn Store> = Arc::new(open(&config).await?);
        match self {
            Self::Add { name, from, out, direct, .. } => add(&config, &*store, name, from, out, direct).await,
            Self::Attestation { name, .. } => attestation::show(&config, &*store, &name).await,
            Self::Accept { name, seen, .. } => attestation::accept(&*store, &name, &seen).await,
            Self::List(_) => {
                let rows = store.attestations().await?;
                for s in store.signers().await? {
                    let ago = |at: Option<i64>| {
                        at.map_or_else(|| "never".to_owned(), |at| format!("{} s ago", now_ms().saturating_sub(at).max(0) / 1_000))
                    };
                    let row = rows.iter().find(|row| row.signer == s.name);
                    let booted = match held(&config, &s.name, row, now_ms()) {
                        Some(blocked) => format!("no orders: {}", blocked.code),
                        None if config.attests(&s.name) => "booted what is pinned".into(),
                        None => "not asked what it booted".into(),
                    };
                    let (pulled, reported) = (ago(s.last_pull_at), ago(s.heartbeat_at));
                    println!("{}  {}  asked for work {pulled}, reported {reported}, {booted}", s.name, s.signer_key);
                }
                Ok(())
            }
            Self::Remove { name, .. } => {
                if !store.remove_signer(&name, now_ms()).await? {
                    bail!("no signer `{name}` is paired; `postern-coordinator signer list` shows them");
                }
                println!("Signer {name} is unpaired.");
                Ok(())
            }
        }
    }
}

async fn add(config: &Config, store: &dyn Store, name: String, from: PathBuf, out: Option<PathBuf>, direct: Option<String>) -> Result<()> {
    if !is_name(&name) {
        bail!("`{name}`: a name has 1 to 64 of a-z, 0-9, `-` and `_`");
    }
    let link: LinkPublic = config_file::read(&from)?;
    let new = NewSigner {
        name: name.clone(),
        tls_pin: link.tls_pin.clone(),
        client_auth: link.client_auth.clone(),
        signer_key: link.signer_key,
        at: now_ms(),
    };
    paired(&name, &link.tls_pin, &link.client_auth).with_context(|| from.display().to_string())?;
    let identity = door::identity(&config.door)?;
    if !store.add_signer(new).await? {
        bail!("`{name}`, or one of its keys, is paired already: `postern-coordinator signer remove` first");
    }
    let public = CoordinatorPublic {
        tls_pin: identity.tls_pin.to_string(),
        onion: identity.onion,
        direct: direct.or_else(|| config.door.direct.clone()),
    };
    let text = format!(
        "# The coordinator, for the link of signer {name}. Nothing in it is secret; that it is the right one matters.\n{}",
        toml::to_string(&public)?
    );
    match out {
        Some(path) => {
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            eprintln!("Signer {name} is paired. Take {} to its link.", path.display());
        }
        None => print!("{text}"),
    }
    if !config.wallet.values().any(|w| w.signers.contains(&name)) {
        eprintln!("No [wallet] names it in `signers` yet.");
    }
    if config.attests(&name) {
        eprintln!(
            "It gets orders when it has said what it booted. Where it has no TPM, write [signer.{name}] attestation = \"none\"; else compare \
             what it says with the machine: postern-coordinator signer attestation {name}"
        );
    }
    Ok(())
}
