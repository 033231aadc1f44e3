//! `postern-coordinator check`: the configuration in plain English.

use std::{collections::BTreeSet, fmt::Write as _};

use anyhow::Result;
use postern_protocol::units::{format_amount_sat, format_duration_ms};

use crate::config::{Config, FeeRate, Listen, Span, WalletTable};

fn rate(rate: FeeRate) -> String {
    format!("{}.{:03} sat/vB", rate.sat_per_kvb() / 1_000, rate.sat_per_kvb() % 1_000)
}

fn span(span: Span) -> String {
    format_duration_ms(u64::try_from(span.ms()).unwrap_or(u64::MAX))
}

pub(super) fn text(config: &Config) -> Result<String> {
    let mut out = String::new();
    writeln!(out, "Coordinator on {}, database {}.", config.coordinator.network, config.database().display())?;
    match config.listen().map_err(anyhow::Error::msg)? {
        Listen::Unix(path) => writeln!(out, "The API listens on the Unix socket {}.", path.display())?,
        Listen::Tcp(address) if address.ip().is_loopback() => writeln!(out, "The API listens on {address}, for this machine only.")?,
        Listen::Tcp(address) => writeln!(out, "WARNING: the API listens on {address} IN CLEAR TEXT, reachable from outside.")?,
    }
    writeln!(out, "Node: {}.", config.bitcoind.url)?;
    if config.bitcoind.start_height.is_none() {
        writeln!(out, "WARNING: no [bitcoind] start_height: at the first start, deposits in older blocks are not seen.")?;
    }
    let table = &config.attestation;
    writeln!(
        out,
        "Signers say what they booted at first contact, every {} and after a restart; one whose answer is later than {} gets no orders.",
        span(table.every),
        span(table.patience)
    )?;
    let names: BTreeSet<&String> = config.wallet.values().flat_map(|wallet| &wallet.signers).collect();
    for name in names.into_iter().filter(|name| !config.attests(name)) {
        writeln!(out, "WARNING: signer {name} has no TPM: nobody notices from here when it boots something else.")?;
    }
    if config.wallet.is_empty() {
        writeln!(out, "WARNING: no wallet is configured.")?;
    }
    for (name, table) in &config.wallet {
        wallet(&mut out, config, name, table)?;
    }
    Ok(out)
}

fn wallet(out: &mut String, config: &Config, name: &str, table: &WalletTable) -> Result<()> {
    let wallet = config.wallet(name, table)?;
    let kind = if wallet.is_pool() {
        "numbered keys of its signer"
    } else if wallet.is_single() {
        "one address"
    } else {
        "addresses from its descriptor"
    };
    let (quorum, signers) = (wallet.quorum(table.signers.len()), table.signers.join(", "));
    writeln!(out, "\nWallet {name}: {kind}; {quorum} of {} must sign ({signers}).", table.signers.len())?;
    writeln!(
        out,
        "  Deposits may be spent after {} confirmations, payments are final after {}.",
        table.deposit_confirmations, table.payment_confirmations
    )?;
    let approval = &table.approval;
    if approval.automatic_up_to.0 == 0 {
        writeln!(out, "  Every order is approved by a second person.")?;
    } else {
        let each = format_amount_sat(approval.automatic_up_to.0);
        match approval.automatic_per_day {
            Some(day) => writeln!(
                out,
                "  Orders up to {each} need no approval, up to {} a day; others a second person's.",
                format_amount_sat(day.0)
            )?,
            None => writeln!(out, "  Orders up to {each} need no approval, however many; others a second person's.")?,
        }
    }
    let batch = &table.batch;
    let most = batch.max_amount.map_or_else(String::new, |amount| format!(" and {}", format_amount_sat(amount.0)));
    writeln!(out, "  Up to {} orders{most} go into one transaction; the first waits {} for others.", batch.max_orders, span(batch.wait))?;
    let fee = &table.fee;
    let long = fee.bump_after.map_or_else(String::new, |after| format!(" or {}", span(after)));
    writeln!(
        out,
        "  Fees: for {} blocks, from {} to {}, {} without an estimate; raised after {} blocks{long}.",
        fee.target,
        rate(fee.min_rate),
        rate(fee.max_rate),
        rate(fee.fallback_rate),
        fee.bump_after_blocks
    )?;
    Ok(())
}
