//! Where a wallet's money may go: `"any"`, addresses, or a file of addresses.

use std::{collections::BTreeSet, path::Path};

use bitcoin::{Address, Network, ScriptBuf, address::NetworkUnchecked};
use postern_protocol::config_file::{self, ConfigError};
use serde_spanned::Spanned;

use super::{check::Checker, file::DestinationsTable};
use crate::policy::rules::Destinations;

/// Reads the table; a file's path is relative to the configuration's folder.
pub(super) fn read(
    checker: &Checker<'_>,
    table: Option<Spanned<DestinationsTable>>,
    network: Network,
) -> Result<Destinations, ConfigError> {
    let Some(table) = table else { return Ok(Destinations::Any) };
    let span = table.span();
    match table.into_inner() {
        DestinationsTable::Word(word) if word == "any" => Ok(Destinations::Any),
        DestinationsTable::Word(word) => {
            Err(checker.at(span, format!("`{word}` is not \"any\"; for one address write a list: [\"{word}\"]")))
        }
        DestinationsTable::List(addresses) => {
            let scripts = addresses.iter().map(|text| script(text, network).map_err(|problem| checker.at(span.clone(), problem)));
            Ok(Destinations::Scripts(scripts.collect::<Result<BTreeSet<_>, _>>()?))
        }
        DestinationsTable::File(table) => {
            let folder = checker.path.parent().unwrap_or(Path::new("."));
            read_file(&folder.join(table.file), network)
        }
    }
}

/// An address a line; `#` begins a comment.
fn read_file(path: &Path, network: Network) -> Result<Destinations, ConfigError> {
    let text = config_file::read_text(path)?;
    let mut scripts = BTreeSet::new();
    let mut offset = 0_usize;
    for line in text.split_inclusive('\n') {
        let address = line.split('#').next().unwrap_or_default().trim();
        if !address.is_empty() {
            scripts.insert(script(address, network).map_err(|problem| ConfigError::at(path, &text, offset, problem))?);
        }
        offset = offset.saturating_add(line.len());
    }
    Ok(Destinations::Scripts(scripts))
}

fn script(text: &str, network: Network) -> Result<ScriptBuf, String> {
    let address: Address<NetworkUnchecked> = text.parse().map_err(|e| format!("`{text}` is no address: {e}"))?;
    let address = address.require_network(network).map_err(|_| format!("`{text}` is an address of another network than {network}"))?;
    Ok(address.script_pubkey())
}
