//! `postern wallet export`: a wallet's descriptor for programs that watch it.

use std::str::FromStr as _;

use anyhow::{Result, bail};
use clap::ValueEnum;
use miniscript::{Descriptor, DescriptorPublicKey, descriptor::checksum::desc_checksum};
use serde_json::json;

use super::configured;
use crate::{
    cli::{Ending, site::Site},
    wallet::WalletKind,
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExportWallet {
    /// Its name.
    name: String,
    /// What to print.
    #[arg(long, default_value = "descriptor")]
    format: Format,
}

/// What to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One descriptor with both branches (BIP 380, BIP 389) and checksum.
    Descriptor,
    /// The argument of Bitcoin Core's `importdescriptors`.
    Core,
}

impl ExportWallet {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        let config = site.config()?;
        let table = configured(&config, &self.name)?;
        if table.kind == WalletKind::Pool {
            bail!("a pool has no descriptor for all its keys; `postern wallet address {} --json` gives each key's own", self.name);
        }
        let text = config.wallet(&self.name, table)?.descriptor();
        match self.format {
            Format::Descriptor => say!("{text}"),
            Format::Core => say!("{}", serde_json::to_string_pretty(&for_core(&text, table.gap)?)?),
        }
        Ok(Ending::Done)
    }
}

/// One entry for each branch: Core takes descriptors with `<0;1>` only since version 29.
fn for_core(text: &str, gap: u32) -> Result<serde_json::Value> {
    let branches = Descriptor::<DescriptorPublicKey>::from_str(text)?.into_single_descriptors()?;
    let ranged = branches.len() > 1;
    let entries = branches.iter().zip([false, true]).map(|(branch, change)| {
        let mut entry = json!({ "desc": with_h(branch)?, "timestamp": "now" });
        if let (true, Some(fields)) = (ranged, entry.as_object_mut()) {
            fields.insert("active".into(), true.into());
            fields.insert("internal".into(), change.into());
            fields.insert("range".into(), json!([0, gap.saturating_sub(1)]));
        }
        Ok(entry)
    });
    entries.collect()
}

/// As [`crate::wallet::Wallet::descriptor`] writes it: `h` for hardened steps.
fn with_h(descriptor: &Descriptor<DescriptorPublicKey>) -> Result<String> {
    let text = format!("{descriptor:#}").replace('\'', "h");
    let checksum = desc_checksum(&text)?;
    Ok(format!("{text}#{checksum}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_gets_a_descriptor_for_each_branch_with_its_own_checksum() {
        let xpub = "[73c5da0a/84h/1h/0h]tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M";
        let core = for_core(&format!("wpkh({xpub}/<0;1>/*)"), 1_000).unwrap();
        let text = core.to_string();
        assert!(text.contains("/0/*)#") && text.contains("/1/*)#") && !text.contains("<0;1>") && !text.contains('\''), "{text}");
        assert_eq!(core[1]["internal"], true);
        assert_eq!(core[0]["range"], json!([0, 999]));
        let single = for_core("wpkh(0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798)", 1_000).unwrap();
        assert_eq!(single.as_array().unwrap().len(), 1);
        assert!(single[0].get("range").is_none());
    }
}
