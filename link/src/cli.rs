//! `postern-link init | check | ping | run`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use postern_protocol::{key::PublicKey, reply::ReplyBody, request::RequestBody};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    config::{LinkConfig, Mode},
    daemon::{Link, coordinator_public},
    identity::LinkIdentity,
    signer::SignerSocket,
    tls,
};

/// The gate that dials out: carries requests from the coordinator to the signer, over Tor or directly. It opens no port.
#[derive(Debug, Parser)]
#[command(name = "postern-link", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
// Parsed once.
#[allow(clippy::large_enum_variant)]
enum Command {
    /// Make the link's keys and the public file for the coordinator; keys that exist are kept.
    Init {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The signer's identity key (`ed25519:…`, shown by `postern status`); without it the signer's socket is asked.
        #[arg(long, value_name = "KEY")]
        signer_key: Option<PublicKey>,
        /// Where to write the public file; standard output without it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Say what a configuration file means and what is missing; exit code 1 when it is wrong.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
    /// Dial once, prove both keys, and measure the round trip. Takes no request and works beside a running link.
    Ping {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// How many round trips.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        count: u32,
        /// Times in milliseconds as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Carry requests until SIGTERM.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// For people, at the top of the program.
    pub async fn run(self) -> Result<()> {
        tls::install_crypto_provider();
        match self.command {
            Command::Init { config, signer_key, out } => init(&LinkConfig::load(&config)?, signer_key, out.as_deref()).await,
            Command::Check { file } => check(&LinkConfig::load(&file)?),
            Command::Ping { config, count, json } => ping(LinkConfig::load(&config)?, count, json).await,
            Command::Run { config } => run(LinkConfig::load(&config)?).await,
        }
    }
}

async fn init(config: &LinkConfig, signer_key: Option<PublicKey>, out: Option<&Path>) -> Result<()> {
    let signer_key = match signer_key {
        Some(key) => key,
        None => ask_identity(config).await?,
    };
    let identity = LinkIdentity::load_or_create(&config.link.state)?;
    let public = toml::to_string(&identity.public(signer_key))?;
    match out {
        None => print!("{public}"),
        Some(path) => {
            std::fs::write(path, public).with_context(|| format!("{} cannot be written", path.display()))?;
            eprintln!("The link's keys are in {}. They never leave it.", config.link.state.display());
            eprintln!("Take {} to the coordinator: postern-coordinator signer add NAME --from {0}", path.display());
            eprintln!("It answers with its own public file; put that at {}.", config.link.coordinator.display());
        }
    }
    Ok(())
}

async fn ask_identity(config: &LinkConfig) -> Result<PublicKey> {
    let socket = SignerSocket::new(config.link.signer.clone());
    let wanted = "give the key with --signer-key (`postern status` shows it as identity)";
    let asked = tokio::time::timeout(Duration::from_secs(10), socket.ask(RequestBody::Status)).await;
    match asked.with_context(|| format!("the signer does not answer on {}; start it, or {wanted}", config.link.signer.display()))?? {
        ReplyBody::Status(status) => Ok(status.identity.parse()?),
        ReplyBody::Refused(refusal) => bail!("the signer tells its identity to operators only ({refusal}): {wanted}"),
        _ => bail!("the signer answered something else than its status: {wanted}"),
    }
}

fn check(config: &LinkConfig) -> Result<()> {
    let link = &config.link;
    println!("Requests go to the signer on {}, at most {} at one time.", link.signer.display(), link.max_in_flight.0);
    println!("The signer's report goes out every {} s.", link.heartbeat.as_secs_f32());
    match link.mode {
        Mode::Tor if config.tor.private_network.is_some() => {
            println!("The coordinator is reached over a private Tor network on this machine; nothing else is dialled.");
        }
        Mode::Tor if config.tor.bridges.is_empty() => println!("The coordinator is reached over the public Tor network."),
        Mode::Tor => println!("The coordinator is reached over Tor through {} bridges only.", config.tor.bridges.len()),
        Mode::Direct => println!("The coordinator is reached over TCP: whoever watches the network sees that they talk."),
    }
    let identity = LinkIdentity::load(&link.state).context("`postern-link init` makes the link's keys")?;
    println!("This link's TLS key is {}.", identity.tls.pin());
    let coordinator = coordinator_public(&link.coordinator).context("`postern-coordinator signer add` writes this file")?;
    println!("The coordinator's TLS key is {}.", coordinator.tls_pin);
    Link::new(config.clone())?;
    match std::os::unix::net::UnixStream::connect(&link.signer) {
        Ok(_) => println!("The signer's socket accepts connections."),
        Err(e) => println!("Warning: the signer's socket does not accept a connection now: {e}"),
    }
    Ok(())
}

async fn ping(mut config: LinkConfig, count: u32, json: bool) -> Result<()> {
    // Two Tor clients in one folder would be in each other's way.
    config.tor.state = Some(config.link.state.join("tor-ping"));
    let link = Link::new(config)?;
    let start = Instant::now();
    let mut api = link.dial().await?;
    let connected = start.elapsed();
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(api.round_trip().await?);
    }
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let at = |part: usize| times.get(times.len().saturating_sub(1) * part / 100).copied().map_or(f64::NAN, ms);
    if json {
        let report = serde_json::json!({
            "connect_ms": ms(connected), "count": count, "min_ms": at(0), "median_ms": at(50), "p95_ms": at(95), "max_ms": at(100)
        });
        println!("{report}");
    } else {
        println!("Both ends proved their keys; connected in {:.0} ms.", ms(connected));
        println!("{count} round trips: {:.1} ms median, {:.1} ms at least, {:.1} ms at most.", at(50), at(0), at(100));
    }
    Ok(())
}

async fn run(config: LinkConfig) -> Result<()> {
    let link = Link::new(config)?;
    let (stop, stopping) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        // Kept: a link whose stop is gone would serve on.
        std::future::pending::<()>().await;
    });
    link.run(stopping).await;
    Ok(())
}

/// Shows what happens on standard error: `RUST_LOG`, by default our own words and Tor's warnings.
pub fn start_log() {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,tor_netdir=error,tor_circmgr=error,postern_link=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
