//! The daemon's exit codes: what a restart may mend, and what it would only repeat.

use std::{fs, path::Path};

use postern_signer::cli::NEEDS_SOMEBODY;
use postern_testkit::{Process, wait::PATIENCE};

use crate::desk::{Desk, program};

const ANCHOR: &str = "[anchor]\nkind = \"pkcs11\"\nkeystore = \"hsm\"\n";

/// Starts a signer that is expected to end: its exit code, and what it said.
fn end(desk: &Desk) -> (i32, String) {
    let mut command = program("postern-signer");
    let (name, conf) = desk.token.env();
    command.arg("run").arg("--config").arg(desk.config()).env(name, conf);
    let mut signer = Process::start(&desk.run, "ending", command).unwrap();
    let code = signer.wait_for_end(PATIENCE).unwrap().code().unwrap();
    (code, signer.log())
}

#[track_caller]
fn ends(desk: &Desk, code: u8, why: &str) {
    let (found, said) = end(desk);
    assert!(found == i32::from(code) && said.contains(why), "{found}: {said}");
}

#[test]
fn a_refused_pin_a_wrong_configuration_and_a_missing_ledger_end_with_the_code_that_no_unit_restarts() {
    let desk = Desk::new("needs_somebody");
    ends(&desk, NEEDS_SOMEBODY, "`postern init` makes one");
    desk.postern(&["init"]).done();
    desk.configure(&format!("{ANCHOR}colour = \"red\"\n"));
    ends(&desk, NEEDS_SOMEBODY, "colour");
    desk.configure(ANCHOR);
    let pin = fs::read(desk.token.pin_file()).unwrap();
    fs::write(desk.token.pin_file(), "wrong-pin-1").unwrap();
    ends(&desk, NEEDS_SOMEBODY, "refused the PIN");
    fs::write(desk.token.pin_file(), pin).unwrap();
    let elsewhere = desk.run.join("elsewhere");
    fs::rename(desk.token.pin_file(), &elsewhere).unwrap();
    ends(&desk, NEEDS_SOMEBODY, "PIN for keystore `hsm`");
    fs::rename(&elsewhere, desk.token.pin_file()).unwrap();
    // All is well again.
    desk.start().stop().unwrap();
    fs::remove_file(desk.run.join("state/ledger.db")).unwrap();
    ends(&desk, NEEDS_SOMEBODY, "there is no ledger");
}

#[test]
fn what_passes_by_itself_ends_with_the_code_that_a_unit_restarts() {
    let desk = Desk::new("passes");
    desk.postern(&["init"]).done();
    desk.configure(ANCHOR);
    desk.start().stop().unwrap();
    desk.token.pull_out().unwrap();
    ends(&desk, 1, "the anchor does not answer");
    desk.token.put_back().unwrap();
    let mut first = desk.start();
    ends(&desk, 1, "another process uses");
    first.stop().unwrap();
}

#[test]
fn the_unit_does_not_restart_what_needs_somebody() {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/postern-signer.service")).unwrap();
    assert!(unit.lines().any(|line| line == format!("RestartPreventExitStatus={NEEDS_SOMEBODY}")), "{unit}");
    let configuration = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/signer.toml")).unwrap();
    for (line, named) in
        [("RuntimeDirectory=postern", "/run/postern/"), ("StateDirectory=postern", "\"/var/lib/postern\""), ("hsm-pin:", "hsm-pin")]
    {
        assert!(unit.contains(line) && configuration.contains(named), "{line}");
    }
}
