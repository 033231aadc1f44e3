//! `postern-signer check`: what a configuration allows, before it does.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::{
    Ending,
    paint::{DIM, GOOD, HEAD, WARN, paint},
};
use crate::{config::Config, protection::Protection, sandbox::Sandbox};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The configuration file.
    file: PathBuf,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// Do not look for the secrets, users and modules that the file names: it is for another machine.
    #[arg(long)]
    elsewhere: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    file: &'a str,
    signer: &'a str,
    network: &'a str,
    policy_hash: String,
    policy: Vec<&'a str>,
    protections: Vec<Protection>,
    warnings: Vec<String>,
    wallets: BTreeMap<&'a str, &'a str>,
}

impl Check {
    pub(super) fn run(&self) -> Result<Ending> {
        let config = Config::load(&self.file)?;
        let mut warnings = config.warnings();
        let protections = if self.elsewhere {
            config.protections()
        } else {
            warnings.extend(config.check_machine()?);
            [config.protections_here(), Sandbox::try_out(config.allowances())].concat()
        };
        let policy = config.policy_text();
        if self.json {
            let report = Report {
                file: &self.file.to_string_lossy(),
                signer: &config.name,
                network: config.network_name(),
                policy_hash: config.policy_hash(),
                policy: policy.lines().collect(),
                protections,
                warnings,
                wallets: config.wallets.iter().map(|(name, wallet)| (name.as_str(), wallet.descriptor.as_str())).collect(),
            };
            say!("{}", serde_json::to_string_pretty(&report)?);
            return Ok(Ending::Done);
        }
        for line in policy.lines() {
            let style = if line.starts_with(' ') { anstyle::Style::new() } else { HEAD };
            say!("{}", paint(style, line));
        }
        say!("{}", paint(HEAD, "Protections:"));
        for Protection { name, on, words } in &protections {
            let (style, word) = if *on { (GOOD, " on") } else { (WARN, "off") };
            say!("  {} {name}: {words}", paint(style, word));
        }
        say!();
        for warning in &warnings {
            say!("{} {warning}", paint(WARN, "Warning:"));
        }
        say!("{} policy {}", paint(GOOD, "Good:"), config.policy_hash());
        say!("{}", paint(DIM, "The same policy has the same hash; it stands in the journal and in every heartbeat."));
        Ok(Ending::Done)
    }
}
