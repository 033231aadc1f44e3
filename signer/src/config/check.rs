//! What serde cannot see: values that are right alone and wrong together.

use std::{collections::BTreeSet, fmt::Display, ops::Range, path::Path};

use bitcoin::{Network, bip32::Fingerprint};
use postern_protocol::config_file::ConfigError;
use serde_spanned::Spanned;

use super::{
    Anchor, Config, Managers, WalletConfig, destination,
    file::{AnchorKind, AnchorTable, CommandsTable, File, LimitsTable, WalletTable},
};
use crate::{
    keystore::{AccountKey, BoundKeys},
    policy::rules::{FeeCaps, Limits, Rate, SpendRules, WalletPolicy},
    wallet::{Wallet, WalletKind},
};

/// Most managers: more would not fit a command of 700 bytes.
const MANAGERS_MAX: usize = 7;
/// Most token buckets in one scope.
const RATES_MAX: usize = 16;
/// Keys of one branch of a pool, unless configured.
const POOL_MAX_DEFAULT: u32 = 10_000;

/// A file that is being checked.
pub(super) struct Checker<'a> {
    pub(super) path: &'a Path,
    text: &'a str,
}

impl Checker<'_> {
    /// An error at a place of the text.
    pub(super) fn at(&self, span: Range<usize>, problem: impl Display) -> ConfigError {
        ConfigError::at(self.path, self.text, span.start, problem.to_string())
    }

    /// An error about something that is not there.
    fn whole(&self, problem: impl Display) -> ConfigError {
        ConfigError::Whole { path: self.path.into(), problem: problem.to_string() }
    }

    fn name(&self, name: &Spanned<String>) -> Result<String, ConfigError> {
        let text = name.get_ref();
        let fits = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits && text != "signer" {
            return Ok(text.clone());
        }
        let problem = if fits {
            "`signer` is a reserved name".into()
        } else {
            format!("`{text}` is no name: use 1 to 32 letters, digits, `-` and `_`")
        };
        Err(self.at(name.span(), problem))
    }

    fn limits(&self, table: &LimitsTable) -> Result<Limits, ConfigError> {
        if let Some(extra) = table.rate.get(RATES_MAX) {
            return Err(self.at(extra.span(), format!("more than {RATES_MAX} rates")));
        }
        let rates = table.rate.iter().map(|spanned| {
            let rate = spanned.get_ref();
            let burst_sat = rate.burst.unwrap_or(rate.amount).0;
            if rate.amount.0 == 0 {
                return Err(self
                    .at(spanned.span(), "a rate of nothing lets nothing out for ever; leave money out with a total of \"0 sat\" instead"));
            }
            if burst_sat < rate.amount.0 {
                return Err(self.at(
                    spanned.span(),
                    "`burst` is smaller than `amount`; it is the most that may leave at once, so make it at least as large",
                ));
            }
            Ok(Rate { amount_sat: rate.amount.0, per_ms: rate.per.0, burst_sat })
        });
        Ok(Limits { rates: rates.collect::<Result<_, _>>()?, total_sat: table.total.map(|total| total.0) })
    }

    fn anchor(&self, table: AnchorTable, keystores: &BTreeSet<&str>) -> Result<Anchor, ConfigError> {
        let AnchorTable { kind, keystore, lease } = table;
        match (kind, &keystore) {
            (AnchorKind::None, Some(name)) => {
                return Err(self.at(name.span(), "an anchor of kind \"none\" is in no keystore; remove this key or set kind = \"pkcs11\""));
            }
            (AnchorKind::Pkcs11, None) => return Err(self.whole("[anchor] of kind \"pkcs11\" needs `keystore = \"NAME\"`")),
            (AnchorKind::Pkcs11, Some(name)) => self.known_keystore(name, keystores)?,
            (AnchorKind::None, None) => {}
        }
        Ok(Anchor { kind, keystore: keystore.map(Spanned::into_inner), lease_sat: lease.map(|lease| lease.0) })
    }

    fn known_keystore(&self, name: &Spanned<String>, known: &BTreeSet<&str>) -> Result<(), ConfigError> {
        if known.contains(name.get_ref().as_str()) {
            return Ok(());
        }
        let listed: Vec<&str> = known.iter().copied().collect();
        let listed = if listed.is_empty() { "none is".into() } else { format!("there is {}", listed.join(", ")) };
        Err(self.at(name.span(), format!("no [keystore.{}] is configured; {listed}", name.get_ref())))
    }

    fn managers(&self, table: Option<CommandsTable>) -> Result<Managers, ConfigError> {
        let Some(CommandsTable { quorum, managers, on_forgery }) = table else { return Ok(Managers::default()) };
        if !(1..=managers.len()).contains(quorum.get_ref()) {
            let problem =
                format!("a quorum of {} of {} managers; write a number from 1 to {}", quorum.get_ref(), managers.len(), managers.len());
            return Err(self.at(quorum.span(), problem));
        }
        if let Some(extra) = managers.get(MANAGERS_MAX) {
            return Err(self.at(extra.span(), format!("more than {MANAGERS_MAX} managers; their signatures would not fit one command")));
        }
        let mut seen: Vec<(String, postern_protocol::key::PublicKey)> = vec![];
        for manager in managers {
            let (span, manager) = (manager.span(), manager.into_inner());
            if let Some((name, _)) = seen.iter().find(|(name, key)| *name == manager.name || *key == manager.key) {
                return Err(self.at(span, format!("the same name or key as manager `{name}`; each counts once")));
            }
            seen.push((manager.name, manager.key));
        }
        Ok(Managers { quorum: quorum.into_inner(), managers: seen, on_forgery })
    }

    /// What the table pins about our keys.
    fn keys(&self, table: &WalletTable, network: Network) -> Result<BoundKeys, ConfigError> {
        if let Some(public_key) = &table.public_key {
            return Ok(BoundKeys::Hsm { public_key: *public_key.get_ref() });
        }
        if table.kind == WalletKind::Pool {
            return Ok(BoundKeys::Pool);
        }
        let span = table.descriptor.span();
        let named = Wallet::account_keys(table.descriptor.get_ref()).map_err(|e| self.at(span.clone(), e))?;
        let fingerprints: BTreeSet<Fingerprint> = named.iter().map(|key| key.fingerprint).collect();
        let ours = match (&table.fingerprint, fingerprints.first()) {
            (Some(fingerprint), _) => *fingerprint.get_ref(),
            (None, Some(only)) if fingerprints.len() == 1 => *only,
            (None, None) => {
                let wanted = format!(
                    "no [fingerprint/path]xpub in it; a wallet of kind \"seed\" on {network} needs one, as `postern wallet new` prints it"
                );
                return Err(self.at(span, wanted));
            }
            (None, Some(_)) => return Err(self.at(span, "keys of several signers; say with `fingerprint = \"…\"` which are ours")),
        };
        let accounts: Vec<AccountKey> = named.into_iter().filter(|key| key.fingerprint == ours).collect();
        if accounts.is_empty() {
            return Err(self.at(span, format!("no key with our fingerprint {ours} is in the descriptor")));
        }
        Ok(BoundKeys::Seed { accounts })
    }

    fn wallet(&self, name: &Spanned<String>, table: WalletTable, file: &Config) -> Result<WalletConfig, ConfigError> {
        let keystores = file.keystores.keys().map(String::as_str).collect();
        self.known_keystore(&table.keystore, &keystores)?;
        match (table.kind, &table.public_key, &table.fingerprint, &table.pool_max) {
            (WalletKind::Hsm, None, ..) => {
                return Err(self.at(
                    name.span(),
                    "a wallet of kind \"hsm\" needs `public_key`, our key in the descriptor, as `postern wallet new` prints it",
                ));
            }
            (WalletKind::Seed | WalletKind::Pool, Some(key), ..) => {
                return Err(self.at(key.span(), "`public_key` is for wallets of kind \"hsm\""));
            }
            (WalletKind::Hsm | WalletKind::Pool, _, Some(fingerprint), _) => {
                return Err(self.at(fingerprint.span(), "`fingerprint` is for wallets of kind \"seed\""));
            }
            (WalletKind::Hsm | WalletKind::Seed, _, _, Some(max)) => {
                return Err(self.at(max.span(), "`pool_max` is for wallets of kind \"pool\""));
            }
            _ => {}
        }
        if table.limits.raise.is_some() {
            return Err(self.at(name.span(), "`raise` belongs in [limits]: it holds for all wallets"));
        }
        let keys = self.keys(&table, file.network)?;
        // A small gap: what is wanted here is the check, not the table of scripts.
        Wallet::new(name.get_ref(), file.network, table.descriptor.get_ref(), 1, keys.clone())
            .map_err(|e| self.at(table.descriptor.span(), e))?;
        let limits = self.limits(&table.limits)?;
        let destinations = destination::read(self, table.destinations, file.network)?;
        let wallet = WalletConfig {
            keystore: table.keystore.into_inner(),
            kind: table.kind,
            descriptor: table.descriptor.get_ref().clone(),
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
        };
        Ok(wallet)
    }
}

/// From tables to a configuration.
pub(super) fn check(path: &Path, text: &str, file: File) -> Result<Config, ConfigError> {
    let checker = Checker { path, text };
    let raise = file.limits.raise.unwrap_or_default();
    let mut keystores = std::collections::BTreeMap::new();
    for (name, table) in file.keystore {
        keystores.insert(checker.name(&name)?, table);
    }
    let anchor = checker.anchor(file.anchor, &keystores.keys().map(String::as_str).collect())?;
    let mut config = Config {
        path: path.into(),
        name: checker.name(&file.signer.name)?,
        network: file.signer.network,
        state: file.signer.state,
        socket: file.signer.socket,
        disclose: file.signer.disclose,
        socket_terms: file.socket,
        raise,
        limits: checker.limits(&file.limits)?,
        anchor,
        keystores,
        wallets: std::collections::BTreeMap::new(),
        managers: checker.managers(file.commands)?,
    };
    for (name, table) in file.wallet {
        let wallet = checker.wallet(&name, table, &config)?;
        config.wallets.insert(checker.name(&name)?, wallet);
    }
    Ok(config)
}
