//! `postern ledger …`: the journal, recomputed and read. Reads files only: it works while the signer runs, and on a copy.

use std::path::PathBuf;

use anyhow::Result;
use bitcoin::{Txid, hashes::Hash as _};
use clap::Subcommand;
use postern_protocol::units::format_amount_sat;
use serde_json::json;

use super::{
    Ending,
    command::words,
    paint::{DIM, GOOD, HEAD, paint},
    site::Site,
    status::counted,
};
use crate::ledger::{self, Entry, FamilyEntry, Line};

/// `postern ledger …`
#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// Recompute the hash chain and all that follows from it, and compare; exit code 1 when anything differs.
    Verify {
        /// The state folder, or a copy of the ledger's file; without it, the configuration's.
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Print the journal.
    Show {
        /// The state folder, or a copy of the ledger's file; without it, the configuration's.
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// The number of the first entry.
        #[arg(long, default_value_t = 0, value_name = "N")]
        from: u64,
        /// How many entries at most.
        #[arg(long, value_name = "N")]
        count: Option<usize>,
        /// For programs: one object a line.
        #[arg(long)]
        json: bool,
    },
}

impl LedgerCommand {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        let place = |file: &Option<PathBuf>| -> Result<PathBuf> {
            match file {
                Some(path) => Ok(path.clone()),
                None => Ok(site.config()?.state),
            }
        };
        match self {
            Self::Verify { file, json } => verify(&place(file)?, *json),
            Self::Show { file, from, count, json } => show(&place(file)?, *from, count.unwrap_or(usize::MAX), *json),
        }
    }
}

fn verify(path: &std::path::Path, json: bool) -> Result<Ending> {
    let report = ledger::verify(path)?;
    let (head, totals) = (hex::encode(report.head.hash), report.totals);
    if json {
        let report = json!({
            "entries": report.head.seq,
            "head": head,
            "charged_sat": totals.charged_sat,
            "transactions": totals.transactions,
            "commands": totals.commands,
        });
        say!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(Ending::Done);
    }
    say!("{} {} entries follow from each other, and everything else from them.", paint(GOOD, "Sound:"), report.head.seq);
    say!("  head      {head}");
    say!("  charged   {} in {}", format_amount_sat(totals.charged_sat), counted(totals.transactions, "transaction"));
    say!("  commands  {}", totals.commands);
    say!("{}", paint(DIM, "That it is the latest is shown by the anchor, or by the head in a heartbeat."));
    Ok(Ending::Done)
}

fn show(path: &std::path::Path, from: u64, count: usize, json: bool) -> Result<Ending> {
    let mut left = count;
    ledger::show(path, from, |line| {
        if left == 0 {
            return false;
        }
        left = left.saturating_sub(1);
        if json {
            say!("{}", as_json(&line));
        } else {
            say!("{} {}", paint(HEAD, format!("{:>6}", line.seq)), say(&line.entry));
        }
        left > 0
    })?;
    Ok(Ending::Done)
}

/// An entry in words.
fn say(entry: &Entry) -> String {
    match entry {
        Entry::Created(identity) => format!("created, ledger {}", hex::encode(identity)),
        Entry::Started(start) => {
            let proven = if start.proven { "proved it the latest" } else { "did not prove it the latest" };
            let burnt = if start.burnt_sat > 0 { format!(", {} burnt", format_amount_sat(start.burnt_sat)) } else { String::new() };
            let changed: Vec<String> = start.limits.iter().map(|limits| limits.scope.to_string()).collect();
            let changed = if changed.is_empty() { String::new() } else { format!(", limits set of {}", changed.join(", ")) };
            format!("started, anchor {} {proven}{burnt}{changed}, policy {}", start.anchor, start.policy_hash)
        }
        Entry::Stopped(at_ms) => format!("stopped cleanly after {}", super::status::about(*at_ms)),
        Entry::Charged(charge) => {
            let family = match charge.family {
                FamilyEntry::Founds(input) => format!("new family of input {input}"),
                FamilyEntry::Joins(number, input) => format!("family of charge {number}, input {input}"),
            };
            format!(
                "charged {} to {}: {} leave, {} of it fee; {family}; txid {}",
                format_amount_sat(charge.increase_sat),
                charge.wallet,
                format_amount_sat(charge.outflow_sat),
                format_amount_sat(charge.fee_sat),
                charge.unsigned_txid()
            )
        }
        Entry::Signed(number, signatures) => {
            format!("signed charge {number}: {}", counted(u64::try_from(signatures.len()).unwrap_or(u64::MAX), "signature"))
        }
        Entry::Commanded(serial, action, managers, _) => {
            format!("command {serial} of {}: {}", managers.join(", "), words::action(action))
        }
        Entry::Locked(scope, why) => format!("locked {scope}: {why}"),
        Entry::Rebased(rebase) => format!(
            "re-based by command {} of {}: {} count as spent, commands made before {} are void. {}",
            rebase.serial,
            rebase.managers.join(", "),
            format_amount_sat(rebase.spent_sat),
            hex::encode(rebase.base),
            rebase.why
        ),
    }
}

fn as_json(line: &Line) -> serde_json::Value {
    let mut object = json!({ "seq": line.seq, "hash": hex::encode(line.hash), "kind": line.entry.kind(), "text": say(&line.entry) });
    if let (Entry::Charged(charge), Some(fields)) = (&line.entry, object.as_object_mut()) {
        fields.insert("wallet".into(), charge.wallet.clone().into());
        fields.insert("unsigned_txid".into(), Txid::from_byte_array(charge.txid).to_string().into());
        fields.insert("outflow_sat".into(), charge.outflow_sat.into());
        fields.insert("fee_sat".into(), charge.fee_sat.into());
        fields.insert("increase_sat".into(), charge.increase_sat.into());
        fields.insert("outpoints".into(), charge.outpoints().map(|outpoint| outpoint.to_string()).collect());
    }
    object
}
