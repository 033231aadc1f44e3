//! `postern-coordinator signer attestation` and `accept`: what a signer booted, and what an operator says to it.

use anyhow::{Context as _, Result, bail};
use postern_protocol::attest::{Statement, explain, pcr_meaning};

use crate::{
    attestation::{held, seen},
    clock::now_ms,
    config::Config,
    store::Store,
};

fn parse(json: Option<&String>) -> Result<Option<Statement>> {
    json.map(|json| Statement::parse(json.as_bytes())).transpose().context("in the database")
}

pub(super) async fn show(config: &Config, store: &dyn Store, name: &str) -> Result<()> {
    let rows = store.attestations().await?;
    let row = rows.iter().find(|row| row.signer == name);
    if !config.attests(name) {
        println!("Signer {name} is not asked what it booted: [signer.{name}] attestation = \"none\".");
        return Ok(());
    }
    match held(config, name, row, now_ms()) {
        Some(blocked) => println!("No orders, {}: {}", blocked.code, blocked.message.unwrap_or_default()),
        None => println!("It booted what is pinned, and gets orders."),
    }
    let statements = store.attestation_statements(name).await?;
    let (pinned, offered) = (parse(statements.pinned.as_ref())?, parse(statements.offered.as_ref())?);
    if let Some(pinned) = &pinned {
        println!("\nPinned:");
        describe(pinned, None);
    }
    if let Some(offered) = &offered {
        println!("\nNow:");
        describe(offered, pinned.as_ref());
        println!();
        explain(offered, pinned.as_ref()).iter().for_each(|line| println!("  {line}"));
        println!("\nTo accept this: postern-coordinator signer accept {name} --seen {}", seen(offered));
    }
    Ok(())
}

/// With a mark at what is not as in the other one.
fn describe(statement: &Statement, other: Option<&Statement>) {
    let mark = |same: bool| if same { "" } else { "   <- differs" };
    println!("  attestation key {}{}", statement.key, mark(other.is_none_or(|other| other.key == statement.key)));
    for (index, value) in &statement.pcrs.0 {
        let same = other.is_none_or(|other| other.pcrs.0.get(index) == Some(value));
        println!("  PCR {index} ({}) {}{}", pcr_meaning(*index), hex::encode(value), mark(same));
    }
    for index in other.into_iter().flat_map(|other| other.pcrs.0.keys()).filter(|index| !statement.pcrs.0.contains_key(*index)) {
        println!("  PCR {index} ({}) is missing{}", pcr_meaning(*index), mark(false));
    }
}

pub(super) async fn accept(store: &dyn Store, name: &str, wanted: &str) -> Result<()> {
    let statements = store.attestation_statements(name).await?;
    let Some(json) = &statements.offered else {
        bail!("signer {name} offers nothing to accept; `postern-coordinator signer attestation {name}` says where it stands");
    };
    let (pinned, offered) = (parse(statements.pinned.as_ref())?, Statement::parse(json.as_bytes()).context("in the database")?);
    let now = seen(&offered);
    if now != wanted.to_ascii_lowercase() {
        bail!("signer {name} says {now} now, and not {wanted}: look at it again with `postern-coordinator signer attestation {name}`");
    }
    if !store.accept_attestation(name, json, now_ms()).await? {
        bail!("signer {name} said something new just now: look at it again with `postern-coordinator signer attestation {name}`");
    }
    println!("Accepted, instead of what was pinned:");
    describe(&offered, pinned.as_ref());
    println!("Signer {name} is asked once more, and gets orders when it says the same.");
    Ok(())
}
