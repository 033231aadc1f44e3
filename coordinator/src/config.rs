//! `coordinator.toml`. Every key is documented at its field; `configs/coordinator.toml` shows all of them.

mod text;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use bitcoin::Network;
use postern_protocol::config_file::{self, ConfigError};
use serde::Deserialize;

use crate::{
    door::DoorTable,
    wallet::{Wallet, WalletError},
};
pub use text::{Amount, FeeRate, Span};

/// Longest wallet or signer name.
const NAME_MAX: usize = 64;

/// Shortest time of `[attestation]`.
const ATTESTATION_MIN_MS: i64 = 10_000;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this is.
    pub coordinator: CoordinatorTable,
    /// The customers' API.
    #[serde(default)]
    pub api: ApiTable,
    /// Where signers' links come in.
    pub door: DoorTable,
    /// The node.
    pub bitcoind: BitcoindTable,
    /// What signers booted.
    #[serde(default)]
    pub attestation: AttestationTable,
    /// Signers that are not as others, by name.
    #[serde(default)]
    pub signer: BTreeMap<String, SignerTable>,
    /// Wallets by name.
    #[serde(default)]
    pub wallet: BTreeMap<String, WalletTable>,
}

/// `[coordinator]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorTable {
    /// bitcoin, testnet4, signet or regtest.
    #[serde(deserialize_with = "text::network")]
    pub network: Network,
    /// The database is here; mode 0700.
    pub state: PathBuf,
    /// How long until a signer that said `needs` is asked again, when its report shows no change.
    #[serde(default = "needs_retry")]
    pub needs_retry: Span,
    /// How often components look for work.
    #[serde(default = "poll")]
    pub poll: Span,
}

fn needs_retry() -> Span {
    Span::from_ms(60_000)
}

fn poll() -> Span {
    Span::from_ms(500)
}

/// `[api]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiTable {
    /// `"127.0.0.1:8331"` or `"unix:/run/postern/api.sock"`.
    #[serde(default = "listen")]
    pub listen: String,
    /// Another address than loopback is allowed in `listen`, in clear text: anybody on the way reads the keys. Put a TLS proxy before it.
    #[serde(default)]
    pub listen_in_clear_text_beyond_this_machine: bool,
}

impl Default for ApiTable {
    fn default() -> Self {
        Self { listen: listen(), listen_in_clear_text_beyond_this_machine: false }
    }
}

fn listen() -> String {
    "127.0.0.1:8331".into()
}

/// Where the API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// `[bitcoind]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitcoindTable {
    /// `"http://127.0.0.1:8332"`.
    pub url: String,
    /// bitcoind's cookie file; or else `user` and `password`.
    pub cookie: Option<PathBuf>,
    /// RPC user.
    pub user: Option<String>,
    /// RPC password.
    pub password: Option<Secret>,
    /// First block that is followed. Without it, the newest at the first start: older deposits are not seen.
    pub start_height: Option<u32>,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// A file.
    File(PathBuf),
    /// A systemd credential.
    Credential(String),
}

impl Secret {
    /// The file it is in.
    ///
    /// # Errors
    /// When systemd gave no credentials.
    pub fn path(&self) -> Result<PathBuf, String> {
        match self {
            Self::File(path) => Ok(path.clone()),
            Self::Credential(name) => std::env::var_os("CREDENTIALS_DIRECTORY")
                .map(|folder| PathBuf::from(folder).join(name))
                .ok_or_else(|| format!("credential `{name}`: systemd gave none; add LoadCredential={name}:… to the unit")),
        }
    }
}

/// `[attestation]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttestationTable {
    /// How often each signer is asked what it booted.
    pub every: Span,
    /// How long an answer may be late. After that the signer gets no orders.
    pub patience: Span,
    /// How long until a signer is asked again that gave no good answer. A signer answers six times a minute.
    pub retry: Span,
}

impl Default for AttestationTable {
    fn default() -> Self {
        Self { every: Span::from_ms(24 * 3_600_000), patience: Span::from_ms(3_600_000), retry: Span::from_ms(60_000) }
    }
}

impl AttestationTable {
    /// How long a statement is believed whose nonce was given then.
    #[must_use]
    pub fn trusted_until(&self, asked_at: i64) -> i64 {
        asked_at.saturating_add(self.every.ms()).saturating_add(self.patience.ms())
    }
}

/// `[signer.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerTable {
    /// Whether it has a TPM that says what was booted.
    pub attestation: Attestation,
}

/// What says what a signer booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attestation {
    /// Its TPM. Without a statement it gets no orders.
    Tpm,
    /// Nothing: it has no TPM.
    None,
}

/// `[wallet.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalletTable {
    /// Names of paired signers, in the order in which they are asked. How many must sign is in the descriptor.
    pub signers: Vec<String>,
    /// The public descriptor, as `postern wallet export` prints it.
    pub descriptor: String,
    /// Addresses that are watched past the last used one; at most the signer's gap.
    #[serde(default = "gap")]
    pub gap: u32,
    /// Confirmations until a deposit may be spent.
    #[serde(default = "three")]
    pub deposit_confirmations: u32,
    /// Confirmations until a payment is final.
    #[serde(default = "six")]
    pub payment_confirmations: u32,
    /// Whether the change of a payment that is in no block yet may be spent. Such a payment's fee is not raised any more; the next one's is.
    #[serde(default = "yes")]
    pub spend_unconfirmed_change: bool,
    /// The approval rule. Without it every order is approved by a second person.
    #[serde(default)]
    pub approval: ApprovalTable,
    /// How orders are put together.
    #[serde(default)]
    pub batch: BatchTable,
    /// Fees.
    #[serde(default)]
    pub fee: FeeTable,
}

fn gap() -> u32 {
    100
}

fn yes() -> bool {
    true
}

fn three() -> u32 {
    3
}

fn six() -> u32 {
    6
}

/// `approval = { … }`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalTable {
    /// Orders up to this amount need nobody.
    #[serde(default)]
    pub automatic_up_to: Amount,
    /// As long as what needed nobody in the last 24 hours stays within this. Without it, any sum.
    pub automatic_per_day: Option<Amount>,
}

/// `batch = { … }`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchTable {
    /// Most orders in one transaction.
    pub max_orders: u32,
    /// Most money in one transaction; set it to the signer's burst or less. One order may be larger.
    pub max_amount: Option<Amount>,
    /// How long the first order of a batch waits for others.
    pub wait: Span,
}

impl Default for BatchTable {
    fn default() -> Self {
        Self { max_orders: 50, max_amount: None, wait: Span::from_ms(2_000) }
    }
}

/// `fee = { … }`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeeTable {
    /// Confirmation target in blocks, for the node's estimate.
    pub target: u16,
    /// Never less.
    pub min_rate: FeeRate,
    /// Never more.
    pub max_rate: FeeRate,
    /// When the node has no estimate.
    pub fallback_rate: FeeRate,
    /// Blocks after which a payment that is in none of them gets a higher fee.
    pub bump_after_blocks: u32,
    /// The same in time, for when blocks are slow.
    pub bump_after: Option<Span>,
}

impl Default for FeeTable {
    fn default() -> Self {
        Self {
            target: 6,
            min_rate: FeeRate::from_sat_per_kvb(1_000),
            max_rate: FeeRate::from_sat_per_kvb(100_000),
            fallback_rate: FeeRate::from_sat_per_kvb(10_000),
            bump_after_blocks: 6,
            bump_after: None,
        }
    }
}

/// Checks what the types cannot say.
///
/// # Errors
/// A text that names the table and what to do.
fn check(config: &Config) -> Result<(), String> {
    config.listen()?;
    crate::node::rpc::endpoint(&config.bitcoind.url)?;
    let credentials = (config.bitcoind.cookie.is_some(), config.bitcoind.user.is_some(), config.bitcoind.password.is_some());
    if !matches!(credentials, (true, false, false) | (false, true, true)) {
        return Err("[bitcoind] needs either `cookie`, or `user` and `password`".into());
    }
    for (key, span) in [("every", config.attestation.every), ("retry", config.attestation.retry), ("patience", config.attestation.patience)]
    {
        if span.ms() < ATTESTATION_MIN_MS {
            return Err(format!("[attestation] {key} is at least 10 s: a TPM is slow, and a signer answers six times a minute"));
        }
    }
    for name in config.signer.keys() {
        if !config.wallet.values().any(|table| table.signers.contains(name)) {
            return Err(format!("[signer.{name}] no wallet names this signer in `signers`; remove the table or mend the name"));
        }
    }
    config.door.validate().map_err(|e| e.to_string())?;
    for (name, table) in &config.wallet {
        check_wallet(config, name, table).map_err(|problem| format!("[wallet.{name}] {problem}"))?;
    }
    Ok(())
}

/// A problem begins with its table and mostly with the key: the line that says so is shown.
fn located(path: &Path, text: &str, problem: String) -> ConfigError {
    let place = || {
        let (table, rest) = problem.split_once("] ")?;
        let header = text.find(&format!("{table}]"))?;
        let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        let body = text.get(header..)?;
        let end = body.find("\n[").unwrap_or(body.len());
        let key = body.get(..end)?.match_indices('\n').map(|(at, _)| at.saturating_add(1)).find(|at| {
            let line = body.get(*at..).unwrap_or_default();
            !word.is_empty() && line.strip_prefix(word.as_str()).is_some_and(|after| after.trim_start().starts_with('='))
        });
        Some(header.saturating_add(key.unwrap_or(0)))
    };
    match place() {
        Some(offset) => ConfigError::at(path, text, offset, problem),
        None => ConfigError::Whole { path: path.into(), problem },
    }
}

fn check_wallet(config: &Config, name: &str, table: &WalletTable) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!("a name has 1 to {NAME_MAX} of a-z, 0-9, `-` and `_`"));
    }
    let wallet = config.wallet(name, table).map_err(|e| e.to_string())?;
    if table.signers.is_empty() {
        return Err("names no signers: signers = [\"…\"], as given to `postern-coordinator signer add`".into());
    }
    if let Some(wrong) = table.signers.iter().find(|s| !is_name(s)) {
        return Err(format!("`{wrong}` is no signer's name"));
    }
    if wallet.is_pool() && table.signers.len() != 1 {
        return Err("a pool's keys are one signer's: name exactly one".into());
    }
    if !(1..=10_000).contains(&table.gap) {
        return Err("gap is a number from 1 to 10000".into());
    }
    if table.deposit_confirmations == 0 || table.payment_confirmations == 0 {
        return Err("deposit_confirmations and payment_confirmations are at least 1".into());
    }
    if !(1..=500).contains(&table.batch.max_orders) {
        return Err("batch.max_orders is a number from 1 to 500".into());
    }
    let fee = &table.fee;
    if !(fee.min_rate <= fee.fallback_rate && fee.fallback_rate <= fee.max_rate) {
        return Err("fee: min_rate ≤ fallback_rate ≤ max_rate does not hold".into());
    }
    if fee.bump_after_blocks == 0 {
        return Err("fee.bump_after_blocks is at least 1".into());
    }
    Ok(())
}

/// Whether a text can name a wallet or a signer.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and nearest match.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &config_file::read_text(path)?)
    }

    /// The same for a text that is already here; `path` is for the message.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = config_file::parse(path, text)?;
        check(&config).map_err(|problem| located(path, text, problem))?;
        Ok(config)
    }

    /// One wallet's public half.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn wallet(&self, name: &str, table: &WalletTable) -> Result<Wallet, WalletError> {
        Wallet::new(name, self.coordinator.network, &table.descriptor)
    }

    /// Where the API listens.
    ///
    /// # Errors
    /// What is wrong with `[api] listen`.
    pub fn listen(&self) -> Result<Listen, String> {
        if let Some(path) = self.api.listen.strip_prefix("unix:") {
            return Ok(Listen::Unix(path.into()));
        }
        let address: SocketAddr = self
            .api
            .listen
            .parse()
            .map_err(|_| format!("[api] listen: `{}` is neither an address with port nor `unix:/path`", self.api.listen))?;
        if !address.ip().is_loopback() && !self.api.listen_in_clear_text_beyond_this_machine {
            return Err(format!(
                "[api] listen: {address} is reachable from outside, and the API speaks clear text: keep 127.0.0.1 behind a TLS proxy, or set \
                 listen_in_clear_text_beyond_this_machine = true"
            ));
        }
        Ok(Listen::Tcp(address))
    }

    /// Whether a signer must say what it booted before it gets orders.
    #[must_use]
    pub fn attests(&self, signer: &str) -> bool {
        self.signer.get(signer).is_none_or(|table| table.attestation == Attestation::Tpm)
    }

    /// The database's file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.coordinator.state.join("coordinator.sqlite")
    }
}

#[cfg(test)]
mod tests;
