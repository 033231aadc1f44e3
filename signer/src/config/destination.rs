//! Where a wallet's money may go: `"any"`, addresses, or a file of addresses.

use std::collections::BTreeSet;

use bitcoin::{Address, Network, ScriptBuf, address::NetworkUnchecked};
use postern_protocol::config_file::ConfigError;
use serde_spanned::Spanned;

use super::{file::DestinationsTable, source::Source, value::network_name};
use crate::policy::rules::Destinations;

/// Reads the table; a file's path is relative to the configuration's folder.
pub(super) fn read(source: &Source, table: Option<Spanned<DestinationsTable>>, network: Network) -> Result<Destinations, ConfigError> {
    let Some(table) = table else { return Ok(Destinations::Any) };
    let span = table.span();
    match table.into_inner() {
        DestinationsTable::Word(word) if word == "any" => Ok(Destinations::Any),
        DestinationsTable::Word(word) => {
            Err(source.at(span, format!("`{word}` is not \"any\"; for one address write a list: [\"{word}\"]")))
        }
        DestinationsTable::List(addresses) => {
            let scripts = addresses.iter().map(|text| script(text.get_ref(), network).map_err(|problem| source.at(text.span(), problem)));
            Ok(Destinations::Scripts(scripts.collect::<Result<BTreeSet<_>, _>>()?))
        }
        DestinationsTable::File(table) => read_file(&Source::read(&source.beside(&table.file))?, network),
    }
}

/// An address a line; `#` begins a comment.
fn read_file(list: &Source, network: Network) -> Result<Destinations, ConfigError> {
    let mut scripts = BTreeSet::new();
    let mut offset = 0_usize;
    for line in list.text().split_inclusive('\n') {
        let address = line.split('#').next().unwrap_or_default().trim();
        if !address.is_empty() {
            scripts.insert(script(address, network).map_err(|problem| list.at(offset..offset, problem))?);
        }
        offset = offset.saturating_add(line.len());
    }
    Ok(Destinations::Scripts(scripts))
}

fn script(text: &str, network: Network) -> Result<ScriptBuf, String> {
    let address: Address<NetworkUnchecked> = text.parse().map_err(|e| format!("`{text}` is no address: {e}"))?;
    let address = address
        .require_network(network)
        .map_err(|_| format!("`{text}` is an address of another network; [signer] network is {}", network_name(network)))?;
    Ok(address.script_pubkey())
}
