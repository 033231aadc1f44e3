//! The policy in plain English, and what is worth a warning.

use std::fmt::Write as _;

use postern_protocol::{
    command::Rate,
    units::{format_amount_sat, format_duration_ms, format_fee_rate_sat_per_kvb, format_share_ppm},
};

use super::{AnchorKind, Config, KeystoreTable, OnForgery, WalletConfig, value::kind_name};
use crate::policy::rules::{Destinations, Limits, Raise};

/// Left off by choice, and listed by `check` all the same.
const CHOICES: [&str; 3] = ["anchor-in-hardware", "destinations", "forgery-lock"];

impl Config {
    /// What the signer will do, for people. The same policy gives the same text, whatever the file's layout and comments.
    #[must_use]
    pub fn policy_text(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = self.write_policy(&mut out);
        out
    }

    /// What is allowed and should be known.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let off = self.protections().into_iter().filter(|protection| !protection.on && !CHOICES.contains(&protection.name));
        let mut warnings: Vec<String> = off.map(|protection| protection.words).collect();
        for (name, wallet) in &self.wallets {
            if matches!(&wallet.policy.destinations, Destinations::Scripts(scripts) if scripts.is_empty()) {
                warnings.push(format!("[wallet.{name}] destinations is empty: nothing can be paid to anyone"));
            }
        }
        if self.sandbox.dangerous_network {
            warnings.push("[sandbox] dangerous_network: the token's module may dial out, and whoever takes the signer over with it".into());
        }
        warnings
    }

    fn write_policy(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "Signer `{}` on {}.", self.name, self.network_name())?;
        writeln!(out, "All wallets together:")?;
        write_limits(out, &self.limits)?;
        match self.raise {
            Raise::Command => writeln!(out, "  Limits are raised only by a managers' command; lowering them here holds at once.")?,
            Raise::Config => writeln!(out, "  Limits are raised by editing the configuration.")?,
        }
        match (self.anchor.kind, &self.anchor.keystore) {
            (AnchorKind::Pkcs11, Some(keystore)) => writeln!(out, "  The ledger is anchored on the token of keystore `{keystore}`.")?,
            (AnchorKind::Tpm, Some(keystore)) => {
                let index = self.anchor.nv_index.unwrap_or_default();
                writeln!(out, "  The ledger is anchored in the memory of the TPM of keystore `{keystore}`, NV index {index:#010x}.")?;
            }
            _ => writeln!(out, "  The ledger has no anchor: rates start empty at each start.")?,
        }
        if let Some(lease) = self.anchor.lease_sat {
            writeln!(out, "  The anchor is raised by {} at a time; a crash burns at most that.", format_amount_sat(lease))?;
        }
        for (name, table) in &self.keystores {
            match table {
                KeystoreTable::Pkcs11(table) => writeln!(
                    out,
                    "Keystore `{name}`: the token `{}` with the serial number {}, through {}.",
                    table.token.label,
                    table.token.serial,
                    table.module.get_ref().display()
                )?,
                KeystoreTable::Tpm(table) if table.pcrs.is_empty() => {
                    writeln!(out, "Keystore `{name}`: the TPM at {}, whatever was booted.", table.tcti.get_ref())?;
                }
                KeystoreTable::Tpm(table) => {
                    writeln!(out, "Keystore `{name}`: the TPM at {}; seeds are sealed to its PCRs {}.", table.tcti.get_ref(), table.pcrs)?;
                }
            }
        }
        write_people(out, "Gates, who may ask for signatures", &self.socket_terms.gates)?;
        write_people(out, "Operators, who may see everything", &self.socket_terms.operators)?;
        for (name, wallet) in &self.wallets {
            writeln!(out, "Wallet `{name}` ({} on keystore `{}`):", kind_name(wallet.kind), wallet.keystore)?;
            write_wallet(out, wallet, self)?;
        }
        if self.managers.managers.is_empty() {
            return writeln!(out, "No managers: no command is accepted.");
        }
        let names: Vec<String> = self.managers.managers.iter().map(|(name, key)| format!("{name} ({key})")).collect();
        writeln!(
            out,
            "Commands need {} of {} managers, a freeze any one of them: {}.",
            self.managers.quorum,
            names.len(),
            names.join(", ")
        )?;
        match self.managers.on_forgery {
            OnForgery::Lock => writeln!(out, "A forged command locks what it names, until a quorum unlocks it."),
            OnForgery::Refuse => writeln!(out, "A forged command raises an alarm and locks nothing."),
        }
    }
}

fn write_limits(out: &mut String, limits: &Limits) -> std::fmt::Result {
    for Rate { amount_sat, per_ms, burst_sat } in &limits.rates {
        let (amount, per, burst) = (format_amount_sat(*amount_sat), format_duration_ms(*per_ms), format_amount_sat(*burst_sat));
        writeln!(out, "  At most {burst} at once, and {amount} more in each {per}.")?;
    }
    match limits.total_sat {
        Some(total) => writeln!(out, "  At most {} in all, until a command lets more out.", format_amount_sat(total)),
        None if limits.rates.is_empty() => writeln!(out, "  No limits of its own."),
        None => writeln!(out, "  No total of its own."),
    }
}

fn write_people(out: &mut String, who: &str, names: &[serde_spanned::Spanned<String>]) -> std::fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = names.iter().map(|name| name.get_ref().as_str()).collect();
    writeln!(out, "{who}: {}.", names.join(", "))
}

fn write_wallet(out: &mut String, wallet: &WalletConfig, config: &Config) -> std::fmt::Result {
    writeln!(out, "  Descriptor {}", wallet.descriptor)?;
    writeln!(out, "  Its addresses are known up to {} past the last used one.", wallet.gap)?;
    write_limits(out, &wallet.policy.limits)?;
    match &wallet.policy.destinations {
        Destinations::Any => writeln!(out, "  Pays to anyone.")?,
        Destinations::Scripts(scripts) => {
            writeln!(out, "  Pays only to these {} addresses:", scripts.len())?;
            for script in scripts {
                match bitcoin::Address::from_script(script, config.network) {
                    Ok(address) => writeln!(out, "    {address}")?,
                    Err(_) => writeln!(out, "    script {}", script.to_hex_string())?,
                }
            }
        }
    }
    let fee = wallet.rules.fee;
    if let Some(max) = fee.max_sat {
        writeln!(out, "  A fee is at most {}.", format_amount_sat(max))?;
    }
    if let Some(rate) = fee.max_rate_sat_per_kvb {
        writeln!(out, "  A fee rate is at most {}.", format_fee_rate_sat_per_kvb(rate))?;
    }
    if let Some(ppm) = fee.max_share_ppm {
        writeln!(out, "  A fee is at most {} of what is paid.", format_share_ppm(ppm))?;
    }
    if wallet.rules.allow_op_return {
        writeln!(out, "  OP_RETURN outputs of value zero are allowed.")?;
    }
    if wallet.rules.allow_foreign_inputs {
        writeln!(out, "  Inputs of others are allowed.")?;
    }
    if let Some(height) = wallet.rules.max_locktime_height {
        writeln!(out, "  Lock times up to block {height}, none by time.")?;
    }
    Ok(())
}
