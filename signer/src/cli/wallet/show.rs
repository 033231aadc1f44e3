//! `postern wallet show`: the configured wallets. Needs no running signer.

use anyhow::Result;
use bitcoin::Address;
use serde_json::json;

use super::configured;
use crate::{
    cli::{
        Ending,
        paint::{DIM, HEAD, paint},
        site::Site,
    },
    config::{Config, WalletConfig},
    wallet::{Position, WalletKind},
};

/// Addresses shown of each branch.
const SHOWN: u32 = 3;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ShowWallet {
    /// Its name; all of them without it.
    name: Option<String>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

impl ShowWallet {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        let config = site.config()?;
        let chosen: Vec<(&str, &WalletConfig)> = match &self.name {
            Some(name) => vec![(name, configured(&config, name)?)],
            None => config.wallets.iter().map(|(name, wallet)| (name.as_str(), wallet)).collect(),
        };
        if self.json {
            let wallets = chosen.iter().map(|(name, table)| as_json(&config, name, table)).collect::<Result<Vec<_>>>()?;
            say!("{}", serde_json::to_string_pretty(&wallets)?);
            return Ok(Ending::Done);
        }
        if chosen.is_empty() {
            say!("No wallet is configured; `postern wallet new` makes one.");
        }
        for (name, table) in chosen {
            show(&config, name, table)?;
        }
        Ok(Ending::Done)
    }
}

fn show(config: &Config, name: &str, table: &WalletConfig) -> Result<()> {
    let wallet = config.wallet(name, table)?;
    say!("{}", paint(HEAD, format!("{name}: {} on keystore {}, {}", kind(table.kind), table.keystore, config.network_name())));
    say!("  {}", wallet.descriptor());
    let addresses = addresses(config, name, table)?;
    for (position, address) in &addresses {
        say!("  {:>5}  {address}", position.to_string());
    }
    if addresses.is_empty() {
        say!("  {}", paint(DIM, format!("its keys are numbered by the running signer: postern wallet address {name}")));
    }
    Ok(())
}

fn as_json(config: &Config, name: &str, table: &WalletConfig) -> Result<serde_json::Value> {
    let wallet = config.wallet(name, table)?;
    let addresses = addresses(config, name, table)?;
    let addresses: Vec<_> =
        addresses.iter().map(|(at, address)| json!({ "branch": at.branch, "index": at.index, "address": address.to_string() })).collect();
    Ok(json!({
        "name": name,
        "kind": kind(table.kind),
        "keystore": table.keystore,
        "network": config.network_name(),
        "descriptor": wallet.descriptor(),
        "gap": table.gap,
        "addresses": addresses,
    }))
}

/// The first ones of each branch, as far as they follow from the descriptor.
fn addresses(config: &Config, name: &str, table: &WalletConfig) -> Result<Vec<(Position, Address)>> {
    let wallet = config.wallet(name, table)?;
    let mut addresses = vec![];
    for branch in 0..wallet.branches() {
        for index in 0..wallet.end(branch).min(SHOWN) {
            let position = Position { branch, index };
            let script = wallet.at(position)?;
            addresses.push((position, Address::from_script(&script.script_pubkey, config.network)?));
        }
    }
    Ok(addresses)
}

fn kind(kind: WalletKind) -> &'static str {
    match kind {
        WalletKind::Hsm => "hsm",
        WalletKind::Seed => "seed",
        WalletKind::Pool => "pool",
    }
}
