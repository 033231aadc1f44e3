//! How many hostile requests a second the signer answers while it still pays: `xtask redteam` without its kills, old disks and pulled
//! tokens. Half of the machine's time is the attackers' own: on few cores this says more about changes than about the signer.
#![allow(clippy::print_stdout)]

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use postern_testkit::program;
use serde_json::{Value, json};

const MINUTES: &str = "0.5";

fn main() -> Result<()> {
    let mut redteam = Command::new(program::own("xtask")?);
    // Its spinner and its headings go to standard error.
    redteam.args(["redteam", "--calm", "--json", "--minutes", MINUTES, "--seed", "1"]);
    // The programs beside this one, built as it is.
    redteam.env(program::BIN_DIR_VAR, program::own("postern-signer")?.parent().context("programs stand in a folder")?);
    let report = program::output(&mut redteam)?;
    let report: Value = serde_json::from_str(report.get(report.find('{').context("no report")?..).unwrap_or_default())?;
    let number = |key: &str| report[key].as_f64().with_context(|| format!("no {key} in the report"));
    ensure!(number("gained_sat")? == 0.0, "gained: {report}");
    let seconds = number("seconds")?.max(1.0);
    say("red team: hostile requests answered", number("hostile_attempts")? / seconds);
    say("red team: signatures given among them", number("signed")? / seconds);
    say("red team: honest payments meanwhile", number("honest_payments")? / seconds);
    Ok(())
}

/// One line for `cargo xtask bench`.
fn say(name: &str, value: f64) {
    println!("{}", json!({ "name": name, "value": value, "unit": "/s" }));
}
