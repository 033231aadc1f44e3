//! `[wallet.NAME]`: a wallet whose descriptor, keys and network fit together, and no coin under two policies.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{Network, ScriptBuf, bip32::Fingerprint};
use postern_protocol::config_file::ConfigError;
use serde_spanned::Spanned;

use super::{
    Config, KeystoreTable, WalletConfig,
    check::{known_keystore, limits},
    destination,
    file::WalletTable,
    source::Source,
    value::network_name,
};
use crate::{
    keystore::{AccountKey, BoundKeys},
    policy::rules::{FeeCaps, SpendRules, WalletPolicy},
    wallet::{Position, Wallet, WalletKind},
};

/// Keys of one branch of a pool, unless configured.
const POOL_MAX_DEFAULT: u32 = 10_000;

/// Knows the wallets that it has seen.
#[derive(Debug, Default)]
pub(super) struct WalletChecker {
    first_scripts: BTreeMap<ScriptBuf, String>,
}

impl WalletChecker {
    pub(super) fn check(&mut self, config: &Config, name: &Spanned<String>, table: WalletTable) -> Result<WalletConfig, ConfigError> {
        let source = &config.source;
        known_keystore(source, &table.keystore, &config.keystores.keys().map(String::as_str).collect())?;
        if let Some(KeystoreTable::Tpm(_)) = config.keystores.get(table.keystore.get_ref())
            && table.kind != WalletKind::Seed
        {
            let problem = "a TPM has no secp256k1 and keeps seeds only; write kind = \"seed\", or name a keystore of kind \"pkcs11\"";
            return Err(source.at(table.keystore.span(), problem));
        }
        check_fitting_keys(source, name, &table)?;
        if let Some(raise) = &table.limits.raise {
            return Err(source.at(raise.span(), "`raise` belongs in [limits]: it holds for all wallets"));
        }
        let keys = own_keys(source, &table, config.network)?;
        // A small gap: what is wanted here is the check, not the table of scripts.
        let wallet = Wallet::new(name.get_ref(), config.network, table.descriptor.get_ref(), 1, keys.clone())
            .map_err(|e| source.at(table.descriptor.span(), e))?;
        self.check_apart(source, name, &table, &wallet)?;
        let limits = limits(source, &table.limits)?;
        let destinations = destination::read(source, table.destinations, config.network)?;
        Ok(WalletConfig {
            keystore: table.keystore.into_inner(),
            kind: table.kind,
            descriptor: table.descriptor.into_inner(),
            keys,
            gap: table.gap.0,
            pool_max: table.pool_max.map_or(POOL_MAX_DEFAULT, |max| max.into_inner().0),
            rules: SpendRules {
                fee: FeeCaps {
                    max_sat: table.fee.max.map(|max| max.0),
                    max_rate_sat_per_kvb: table.fee.max_rate.map(|rate| rate.0),
                    max_share_ppm: table.fee.max_share.map(|share| share.0),
                },
                allow_op_return: table.allow_op_return,
                allow_foreign_inputs: table.allow_foreign_inputs,
                max_locktime_height: table.max_locktime_height,
            },
            policy: WalletPolicy { limits, destinations },
        })
    }

    /// The same coins in two wallets would be under the looser of two policies.
    fn check_apart(&mut self, source: &Source, name: &Spanned<String>, table: &WalletTable, wallet: &Wallet) -> Result<(), ConfigError> {
        for branch in 0..wallet.branches() {
            // A pool has no script before it has a key; its keys are its own.
            let Ok(first) = wallet.at(Position { branch, index: 0 }) else { continue };
            match self.first_scripts.insert(first.script_pubkey.clone(), name.get_ref().clone()) {
                Some(other) if other != *name.get_ref() => {
                    let problem =
                        format!("[wallet.{other}] has the same addresses; a coin must be under one policy, so remove one of the two");
                    return Err(source.at(table.descriptor.span(), problem));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Keys of the table that go with its kind.
fn check_fitting_keys(source: &Source, name: &Spanned<String>, table: &WalletTable) -> Result<(), ConfigError> {
    let (span, problem) = match (table.kind, &table.public_key, &table.fingerprint, &table.pool_max) {
        (WalletKind::Hsm, None, ..) => (
            name.span(),
            "a wallet of kind \"hsm\" needs public_key = \"02…\", our key in the descriptor, as `postern wallet new` prints it",
        ),
        (WalletKind::Seed | WalletKind::Pool, Some(key), ..) => (key.span(), "`public_key` is for wallets of kind \"hsm\"; remove it"),
        (WalletKind::Hsm | WalletKind::Pool, _, Some(fingerprint), _) => {
            (fingerprint.span(), "`fingerprint` is for wallets of kind \"seed\"; remove it")
        }
        (WalletKind::Hsm | WalletKind::Seed, _, _, Some(max)) => (max.span(), "`pool_max` is for wallets of kind \"pool\"; remove it"),
        _ => return Ok(()),
    };
    Err(source.at(span, problem))
}

/// What the table pins about our keys.
fn own_keys(source: &Source, table: &WalletTable, network: Network) -> Result<BoundKeys, ConfigError> {
    if let Some(public_key) = &table.public_key {
        return Ok(BoundKeys::Hsm { public_key: public_key.get_ref().0 });
    }
    if table.kind == WalletKind::Pool {
        return Ok(BoundKeys::Pool);
    }
    let span = table.descriptor.span();
    let named = Wallet::account_keys(table.descriptor.get_ref()).map_err(|e| source.at(span.clone(), e))?;
    let fingerprints: BTreeSet<Fingerprint> = named.iter().map(|key| key.fingerprint).collect();
    let ours = match (&table.fingerprint, fingerprints.first()) {
        (Some(fingerprint), _) => fingerprint.get_ref().0,
        (None, Some(only)) if fingerprints.len() == 1 => *only,
        (None, None) => {
            let network = network_name(network);
            let wanted = format!(
                "no [fingerprint/path]xpub in it; a wallet of kind \"seed\" on {network} needs one, as `postern wallet new` prints it"
            );
            return Err(source.at(span, wanted));
        }
        (None, Some(_)) => {
            return Err(source.at(span, "it names the keys of several signers; say with fingerprint = \"…\" which are ours"));
        }
    };
    let accounts: Vec<AccountKey> = named.into_iter().filter(|key| key.fingerprint == ours).collect();
    if accounts.is_empty() {
        let place = table.fingerprint.as_ref().map_or(span, Spanned::span);
        return Err(source.at(place, format!("no key of the descriptor has the fingerprint {ours}")));
    }
    Ok(BoundKeys::Seed { accounts })
}
