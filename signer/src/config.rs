//! `signer.toml`: a typed, checked configuration, or an error that names file, line and what to write instead.
//!
//! `file` holds the tables as they are written; [`Config::load`] checks what serde cannot see: addresses and keys of
//! the right network, quorums that can be met, wallets whose keystore exists. [`Config::policy_text`] says in plain English
//! what the signer will do, and [`Config::policy_hash`] is its fingerprint in heartbeats and in the journal.
//! [`Config::check_machine`] looks for what it names.

mod canonical;
mod check;
mod destination;
mod file;
mod keystore;
mod machine;
mod policy_text;
mod protections;
mod source;
mod value;
mod wallet;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bitcoin::Network;
pub use postern_protocol::config_file::ConfigError;
use postern_protocol::{config_file, key};

pub use self::{
    file::{AnchorKind, Disclose, OnForgery, OnMissing, SandboxTable, SocketTable},
    keystore::{KeystoreKind, KeystoreTable, Pkcs11Table, TokenTable, TpmTable},
    value::{FrameMax, Gap, InFlight, NvIndex, PoolMax, SecretTable, Sessions},
};
use crate::{
    daemon::logs,
    keystore::{BoundKeys, KeystoreConfig, PinSource, Pkcs11Config, TpmConfig},
    policy::rules::{Limits, PolicyRules, Raise, SpendRules, WalletPolicy},
    sandbox::{Allowances, softhsm},
    wallet::{Wallet, WalletError, WalletKind},
};

/// A configuration that passed every check.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it was read from.
    pub path: PathBuf,
    /// `[signer] name`
    pub name: String,
    /// `[signer] network`
    pub network: Network,
    /// `[signer] state`: the folder of ledger, identity key and encrypted keys.
    pub state: PathBuf,
    /// `[signer] socket`
    pub socket: PathBuf,
    /// `[signer] disclose`
    pub disclose: Disclose,
    /// `[socket]`
    pub socket_terms: SocketTable,
    /// `[limits] raise`
    pub raise: Raise,
    /// `[limits]`
    pub limits: Limits,
    /// `[anchor]`
    pub anchor: Anchor,
    /// `[sandbox]`
    pub sandbox: SandboxTable,
    /// `[keystore.NAME]`
    pub keystores: BTreeMap<String, KeystoreTable>,
    /// `[wallet.NAME]`
    pub wallets: BTreeMap<String, WalletConfig>,
    /// `[commands]`
    pub managers: Managers,
    /// The text, to say where something stands.
    source: source::Source,
}

/// `[anchor]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Anchor {
    /// Where it is.
    pub kind: AnchorKind,
    /// For `pkcs11` and `tpm`: the keystore whose token or TPM holds it.
    pub keystore: Option<String>,
    /// For `tpm`: the NV index.
    pub nv_index: Option<u32>,
    /// By how much the bound is raised at a time.
    pub lease_sat: Option<u64>,
}

/// `[wallet.NAME]`
#[derive(Debug, Clone)]
pub struct WalletConfig {
    /// The keystore's name.
    pub keystore: String,
    /// How its keys are kept.
    pub kind: WalletKind,
    /// Its public descriptor, parsed and sane on this network.
    pub descriptor: String,
    /// Our keys in it, pinned.
    pub keys: BoundKeys,
    /// Addresses are recognised this far past the last used one.
    pub gap: u32,
    /// For `pool`: most keys of one branch.
    pub pool_max: u32,
    /// What the analysis accepts.
    pub rules: SpendRules,
    /// Its own limits and destinations.
    pub policy: WalletPolicy,
}

/// `[commands]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managers {
    /// How many must sign what loosens.
    pub quorum: usize,
    /// Their names and keys; empty: there are no commands.
    pub managers: Vec<(String, key::PublicKey)>,
    /// What follows from a forged command.
    pub on_forgery: OnForgery,
}

impl Managers {
    /// The keys, in the configured order.
    #[must_use]
    pub fn keys(&self) -> Vec<key::PublicKey> {
        self.managers.iter().map(|(_, key)| *key).collect()
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`]: what is wrong, where, and what to write instead.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_source(source::Source::read(path)?)
    }

    /// The same for a text that is already here; `path` is for messages and for files named relative to it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::from_source(source::Source::new(path, text))
    }

    fn from_source(source: source::Source) -> Result<Self, ConfigError> {
        let file: file::File = config_file::parse(source.path(), source.text())?;
        check::check(source, file)
    }

    /// The limits and destinations as the ledger takes them.
    #[must_use]
    pub fn policy_rules(&self) -> PolicyRules {
        PolicyRules {
            raise: self.raise,
            signer: self.limits.clone(),
            wallets: self.wallets.iter().map(|(name, wallet)| (name.clone(), wallet.policy.clone())).collect(),
        }
    }

    /// A wallet's public half, with its table of scripts.
    ///
    /// # Errors
    /// [`WalletError`]; not for a configuration that was checked.
    pub fn wallet(&self, name: &str, table: &WalletConfig) -> Result<Wallet, WalletError> {
        Wallet::new(name, self.network, &table.descriptor, table.gap, table.keys.clone())
    }

    /// What a keystore is opened with.
    #[must_use]
    pub fn keystore(&self, name: &str) -> Option<KeystoreConfig> {
        let table = self.keystores.get(name)?;
        let secret = match table.secret().1.get_ref().source() {
            PinSource::File(path) => PinSource::File(self.source.beside(path)),
            PinSource::Credential(name) => PinSource::Credential(name.clone()),
        };
        let (name, state) = (name.to_owned(), self.state.clone());
        Some(match table {
            KeystoreTable::Pkcs11(table) => KeystoreConfig::Pkcs11(Pkcs11Config {
                name,
                module: table.module.get_ref().clone(),
                token_label: table.token.label.clone(),
                token_serial: table.token.serial.clone(),
                pin: secret,
                sessions: table.sessions.0,
                state,
            }),
            KeystoreTable::Tpm(table) => {
                KeystoreConfig::Tpm(TpmConfig { name, tcti: table.tcti.get_ref().clone(), pcrs: table.pcrs.clone(), auth: secret, state })
            }
        })
    }

    /// The keystore whose TPM says what was booted: the anchor's if that is a TPM, else the first by name.
    #[must_use]
    pub fn attesting(&self) -> Option<(&str, &TpmTable)> {
        let of = |name: &str| self.keystores.get_key_value(name).and_then(|(name, table)| Some((name.as_str(), table.tpm()?)));
        let anchor = self.anchor.keystore.as_deref().and_then(of);
        anchor.or_else(|| self.keystores.keys().find_map(|name| of(name)))
    }

    /// What the running signer can reach: its own folders, and what the token's module needs.
    #[must_use]
    pub fn allowances(&self) -> Allowances {
        let beside = |paths: &[PathBuf]| -> Vec<PathBuf> { paths.iter().map(|path| self.source.beside(path)).collect() };
        let mut read_write = beside(&self.sandbox.read_write);
        let mut read = beside(&self.sandbox.read);
        read_write.push(self.state.clone());
        read_write.extend(self.keystores.values().filter_map(|table| table.tpm()?.tcti.get_ref().device().map(Path::to_owned)));
        if self.keystores.values().any(KeystoreTable::is_softhsm)
            && let Some(places) = softhsm::places()
        {
            read_write.push(places.tokens);
            read.push(places.config);
        }
        if self.sandbox.dangerous_network {
            // What the C library turns names into addresses with.
            read.extend(["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"].map(PathBuf::from));
        }
        Allowances {
            read_write,
            read,
            // A bare name's folder is the one that we are in.
            socket_folder: self.socket.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).into(),
            local_services: self.sandbox.local_services,
            network: self.sandbox.dangerous_network,
            journal: logs::to_journal(),
        }
    }

    /// The network's name as it is written.
    #[must_use]
    pub fn network_name(&self) -> &'static str {
        value::network_name(self.network)
    }
}

#[cfg(test)]
mod tests;
