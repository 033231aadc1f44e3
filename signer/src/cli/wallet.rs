//! `postern wallet …`: make wallets and show their public halves.

mod address;
mod export;
mod new;
mod reseal;
mod script;
mod show;

use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use super::{Ending, site::Site};
use crate::{
    config::{Config, WalletConfig},
    tpm::PcrSet,
};

/// `postern wallet …`
#[derive(Debug, Subcommand)]
pub(super) enum WalletCommand {
    /// Make a wallet's keys in the token and print the table for the configuration.
    New(new::NewWallet),
    /// Seal a wallet's seed to another boot as well: before an update, or after one.
    Reseal(reseal::Reseal),
    /// Show the configured wallets: kind, descriptor, first addresses.
    Show(show::ShowWallet),
    /// Print a wallet's descriptor for another program.
    Export(export::ExportWallet),
    /// Hand out addresses; the running signer remembers which.
    Address(address::Addresses),
}

impl WalletCommand {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        match self {
            Self::New(command) => command.run(site),
            Self::Reseal(command) => command.run(site),
            Self::Show(command) => command.run(site),
            Self::Export(command) => command.run(site),
            Self::Address(command) => command.run(site),
        }
    }
}

/// A PCR and its value as they are typed: `11=HEX`.
#[derive(Debug, Clone)]
pub(super) struct PcrValue(pub(super) u8, pub(super) [u8; 32]);

impl FromStr for PcrValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a PCR and its value, such as 11=… and 64 hex digits");
        let (index, value) = text.split_once('=').ok_or_else(wrong)?;
        let index: u8 = index.parse().map_err(|_| wrong())?;
        PcrSet::new([index]).ok_or_else(wrong)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(value, &mut bytes).map_err(|_| wrong())?;
        Ok(Self(index, bytes))
    }
}

/// A wallet of the configuration by its name.
fn configured<'c>(config: &'c Config, name: &str) -> Result<&'c WalletConfig> {
    let known = || config.wallets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match config.wallets.get(name) {
        Some(wallet) => Ok(wallet),
        None if config.wallets.is_empty() => bail!("no wallet is configured; `postern wallet new` makes one"),
        None => Err(anyhow::anyhow!("there is {}", known())).with_context(|| format!("no [wallet.{name}] in {}", config.path.display())),
    }
}
