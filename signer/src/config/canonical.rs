//! The policy in one canonical form, for its hash: independent of the file's layout, of comments and of how this program words
//! things. Whatever changes what may be signed, with which keys or by whose order, is in it.

use postern_protocol::command::Rate;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{AnchorKind, Config, Disclose, KeystoreTable, OnForgery, WalletConfig, value::kind_name};
use crate::{
    keystore::BoundKeys,
    policy::rules::{Destinations, Limits, Raise},
};

/// Domain tag; another form gets another number.
const DOMAIN: &[u8] = b"postern/policy/1\0";

// Fields are written in this order and no other: serde_json keeps the order of a struct's fields.
#[derive(Serialize)]
struct Policy<'a> {
    signer: &'a str,
    network: &'a str,
    disclose_numbers: bool,
    gates: Vec<&'a str>,
    operators: Vec<&'a str>,
    raise_by_command: bool,
    limits: LimitsForm,
    anchor_keystore: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor_nv_index: Option<u32>,
    lease_sat: Option<u64>,
    keystores: Vec<KeystoreForm<'a>>,
    wallets: Vec<WalletForm<'a>>,
    quorum: usize,
    managers: Vec<(&'a str, String)>,
    lock_on_forgery: bool,
}

#[derive(Serialize)]
struct LimitsForm {
    /// Amount, period in milliseconds, burst.
    rates: Vec<(u64, u64, u64)>,
    total_sat: Option<u64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum KeystoreForm<'a> {
    Pkcs11 { name: &'a str, module: String, label: &'a str, serial: &'a str },
    Tpm { name: &'a str, tcti: String, pcrs: Vec<u8> },
}

#[derive(Serialize)]
struct WalletForm<'a> {
    name: &'a str,
    keystore: &'a str,
    kind: &'a str,
    descriptor: &'a str,
    own_keys: Vec<String>,
    gap: u32,
    pool_max: Option<u32>,
    limits: LimitsForm,
    /// Scripts in hex, sorted; none: anywhere.
    destinations: Option<Vec<String>>,
    fee_max_sat: Option<u64>,
    fee_max_rate_sat_per_kvb: Option<u64>,
    fee_max_share_ppm: Option<u32>,
    allow_op_return: bool,
    allow_foreign_inputs: bool,
    max_locktime_height: Option<u32>,
}

impl Config {
    /// SHA-256 of the policy in hex: it stands in every heartbeat and in the journal.
    #[must_use]
    pub fn policy_hash(&self) -> String {
        let form = Policy {
            signer: &self.name,
            network: self.network_name(),
            disclose_numbers: self.disclose == Disclose::Full,
            gates: users(&self.socket_terms.gates),
            operators: users(&self.socket_terms.operators),
            raise_by_command: self.raise == Raise::Command,
            limits: limits(&self.limits),
            anchor_keystore: match self.anchor.kind {
                AnchorKind::None => None,
                AnchorKind::Pkcs11 | AnchorKind::Tpm => self.anchor.keystore.as_deref(),
            },
            anchor_nv_index: self.anchor.nv_index,
            lease_sat: self.anchor.lease_sat,
            keystores: self.keystores.iter().map(|(name, table)| keystore(name, table)).collect(),
            wallets: self.wallets.iter().map(|(name, table)| wallet(name, table)).collect(),
            quorum: self.managers.quorum,
            managers: self.managers.managers.iter().map(|(name, key)| (name.as_str(), key.to_string())).collect(),
            lock_on_forgery: self.managers.on_forgery == OnForgery::Lock,
        };
        // Texts and numbers into memory: this cannot fail.
        let bytes = serde_json::to_vec(&form).unwrap_or_default();
        hex::encode(Sha256::new().chain_update(DOMAIN).chain_update(bytes).finalize())
    }
}

fn users(list: &[serde_spanned::Spanned<String>]) -> Vec<&str> {
    let mut names: Vec<&str> = list.iter().map(|name| name.get_ref().as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn limits(limits: &Limits) -> LimitsForm {
    let rates = limits.rates.iter().map(|Rate { amount_sat, per_ms, burst_sat }| (*amount_sat, *per_ms, *burst_sat));
    LimitsForm { rates: rates.collect(), total_sat: limits.total_sat }
}

fn keystore<'a>(name: &'a str, table: &'a KeystoreTable) -> KeystoreForm<'a> {
    match table {
        KeystoreTable::Pkcs11(table) => {
            let module = table.module.get_ref().to_string_lossy().into_owned();
            KeystoreForm::Pkcs11 { name, module, label: &table.token.label, serial: &table.token.serial }
        }
        KeystoreTable::Tpm(table) => KeystoreForm::Tpm { name, tcti: table.tcti.get_ref().to_string(), pcrs: table.pcrs.iter().collect() },
    }
}

fn wallet<'a>(name: &'a str, table: &'a WalletConfig) -> WalletForm<'a> {
    // The checksum of a descriptor says nothing new.
    let descriptor = table.descriptor.split('#').next().unwrap_or_default();
    let pool = matches!(table.keys, BoundKeys::Pool);
    let fee = table.rules.fee;
    WalletForm {
        name,
        keystore: &table.keystore,
        kind: kind_name(table.kind),
        descriptor,
        own_keys: match &table.keys {
            BoundKeys::Hsm { public_key } => vec![public_key.to_string()],
            BoundKeys::Seed { accounts } => accounts.iter().map(ToString::to_string).collect(),
            BoundKeys::Pool => vec![],
        },
        gap: table.gap,
        pool_max: pool.then_some(table.pool_max),
        limits: limits(&table.policy.limits),
        destinations: match &table.policy.destinations {
            Destinations::Any => None,
            Destinations::Scripts(scripts) => Some(scripts.iter().map(|script| script.to_hex_string()).collect()),
        },
        fee_max_sat: fee.max_sat,
        fee_max_rate_sat_per_kvb: fee.max_rate_sat_per_kvb,
        fee_max_share_ppm: fee.max_share_ppm,
        allow_op_return: table.rules.allow_op_return,
        allow_foreign_inputs: table.rules.allow_foreign_inputs,
        max_locktime_height: table.rules.max_locktime_height,
    }
}
