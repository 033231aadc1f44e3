//! `postern wallet address`: addresses from the running signer, which recognises them from then on.

use anyhow::{Result, bail};
use bitcoin::{Address, Network, PublicKey, ScriptBuf};
use postern_protocol::{
    reply::{self, ReplyBody},
    request::{AddressRequest, RequestBody},
};
use serde_json::json;

use super::configured;
use crate::{
    cli::{
        Ending,
        site::{Site, say_refusal, unexpected},
    },
    config::WalletConfig,
    wallet::WalletKind,
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Addresses {
    /// The wallet's name.
    name: String,
    /// 0 to receive, 1 for change.
    #[arg(long, default_value_t = 0)]
    branch: u32,
    /// The first index.
    #[arg(long, default_value_t = 0)]
    start: u32,
    /// How many.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// For programs, with each address's script, and for a pool its key and descriptor.
    #[arg(long)]
    json: bool,
}

impl Addresses {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        let config = site.config()?;
        let table = configured(&config, &self.name)?;
        let mut client = site.client()?;
        let mut given = vec![];
        // The signer hands out so many at once.
        let mut start = self.start;
        let mut left = self.count;
        while left > 0 {
            let count = left.min(reply::ADDRESSES_MAX);
            let request = AddressRequest { wallet: self.name.clone(), branch: self.branch, start, count };
            match client.ask(RequestBody::Addresses(request))? {
                ReplyBody::Addresses(addresses) => given.extend(addresses),
                ReplyBody::Refused(refusal) => return Ok(say_refusal(&refusal)),
                _ => return unexpected(),
            }
            left = left.saturating_sub(count);
            start = start.saturating_add(count);
        }
        if self.json {
            let all = given.iter().map(|address| as_json(address, table, config.network)).collect::<Result<Vec<_>>>()?;
            say!("{}", serde_json::to_string_pretty(&all)?);
            return Ok(Ending::Done);
        }
        for address in &given {
            say!("{}", readable(address, config.network)?);
        }
        Ok(Ending::Done)
    }
}

fn readable(address: &reply::Address, network: Network) -> Result<Address> {
    Ok(Address::from_script(&ScriptBuf::from_bytes(address.script_pubkey.clone()), network)?)
}

fn as_json(address: &reply::Address, table: &WalletConfig, network: Network) -> Result<serde_json::Value> {
    let mut entry = json!({
        "branch": address.branch,
        "index": address.index,
        "address": readable(address, network)?.to_string(),
        "script_pubkey": hex::encode(&address.script_pubkey),
    });
    if let (WalletKind::Pool, Some(fields)) = (table.kind, entry.as_object_mut()) {
        let key = PublicKey::from_slice(&address.public_key)?;
        let Some(template) = table.descriptor.split('#').next() else { bail!("the wallet has no descriptor") };
        fields.insert("public_key".into(), key.to_string().into());
        fields.insert("descriptor".into(), template.replace("pool", &key.to_string()).into());
    }
    Ok(entry)
}
