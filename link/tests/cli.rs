//! The program as an operator meets it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

use postern_link::{config::LinkConfig, identity::LinkIdentity};
use postern_protocol::{config_file, pairing::LinkPublic};

const SIGNER_KEY: &str = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn link() -> Command {
    Command::new(env!("CARGO_BIN_EXE_postern-link"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A configuration in a folder, and the coordinator's public file with this direct address.
fn configured(folder: &Path, direct: &str) -> std::path::PathBuf {
    let text = format!(
        "[link]\nstate = \"{f}/state\"\nsigner = \"{f}/signer.sock\"\ncoordinator = \"{f}/coordinator.toml\"\nmode = \"direct\"\n",
        f = folder.display()
    );
    let path = folder.join("link.toml");
    std::fs::write(&path, text).unwrap();
    let public = format!("tls_pin = \"sha256:{}\"\ndirect = \"{direct}\"\n", "ab".repeat(32));
    std::fs::write(folder.join("coordinator.toml"), public).unwrap();
    path
}

#[test]
fn init_makes_the_keys_once_and_writes_what_the_coordinator_must_know() {
    let folder = tempfile::tempdir().unwrap();
    let config = configured(folder.path(), "127.0.0.1:1");
    let out = folder.path().join("link-public.toml");
    let init = || link().args(["init", "--signer-key", SIGNER_KEY, "--config"]).arg(&config).arg("--out").arg(&out).output().unwrap();
    assert!(init().status.success());
    let first: LinkPublic = config_file::read(&out).unwrap();
    assert_eq!(first.signer_key.to_string(), SIGNER_KEY);
    assert!(init().status.success());
    assert_eq!(config_file::read::<LinkPublic>(&out).unwrap(), first, "a second init keeps the keys");
    let state = LinkConfig::load(&config).unwrap().link.state;
    assert_eq!(LinkIdentity::load(&state).unwrap().public(first.signer_key), first);
}

#[test]
fn init_without_a_signer_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = configured(folder.path(), "127.0.0.1:1");
    let output = link().arg("init").arg("--config").arg(&config).output().unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains("--signer-key"), "{}", said(&output));
    assert!(!folder.path().join("state").exists(), "nothing half-made is left");
}

#[test]
fn check_says_what_is_missing_and_what_the_file_means() {
    let folder = tempfile::tempdir().unwrap();
    let config = configured(folder.path(), "127.0.0.1:1");
    let check = || link().arg("check").arg(&config).output().unwrap();
    let before = check();
    assert_eq!(before.status.code(), Some(1));
    assert!(said(&before).contains("postern-link init"), "{}", said(&before));
    assert!(link().args(["init", "--signer-key", SIGNER_KEY, "--config"]).arg(&config).output().unwrap().status.success());
    let after = check();
    assert!(after.status.success(), "{}", said(&after));
    assert!(said(&after).contains("over TCP") && said(&after).contains("Warning: the signer's socket"), "{}", said(&after));
}

#[test]
fn check_names_the_line_of_a_wrong_key() {
    let folder = tempfile::tempdir().unwrap();
    let config = configured(folder.path(), "127.0.0.1:1");
    let text = std::fs::read_to_string(&config).unwrap().replace("signer =", "signr =");
    std::fs::write(&config, text).unwrap();
    let output = link().arg("check").arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("link.toml:3:1: unknown key `signr`; did you mean `signer`?"), "{}", said(&output));
}

#[test]
fn run_dials_keeps_dialling_and_ends_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    // Accepts and says nothing that is TLS.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = configured(folder.path(), &listener.local_addr().unwrap().to_string());
    assert!(link().args(["init", "--signer-key", SIGNER_KEY, "--config"]).arg(&config).output().unwrap().status.success());
    let mut running = link().arg("run").arg("--config").arg(&config).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..2 {
        drop(listener.accept().unwrap());
    }
    let mut log = BufReader::new(running.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("dialling again") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended instead of dialling again");
    }
    assert!(Command::new("kill").arg(running.id().to_string()).status().unwrap().success());
    assert!(running.wait().unwrap().success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("stopped"), "{rest}");
}
