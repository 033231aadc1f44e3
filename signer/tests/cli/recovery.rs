//! The procedures of `docs/ledger.md`, as an operator and two managers carry them out.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use postern_testkit::{
    Process,
    wait::{PATIENCE, wait_until},
};

use crate::desk::{Desk, program, say};

const ANCHOR: &str = "[anchor]\nkind = \"pkcs11\"\nkeystore = \"hsm\"\n";

/// A signer with a wallet and two managers, both of whom it takes; and its tables.
fn open(label: &str) -> (Desk, Process, String) {
    let desk = Desk::new(label);
    let manager = |name: &str| {
        let arguments = ["command", "keygen", "--no-passphrase", "--name", name, "-o", &format!("{name}.key")];
        say(program("postern").args(arguments).current_dir(desk.run.path())).done().trim().to_owned()
    };
    let managers = [manager("cfo"), manager("cto")].join(", ");
    desk.postern(&["init"]).done();
    let wallet = desk.postern(&["wallet", "new", "hot", "--keystore", "hsm", "--kind", "seed", "--script", "wpkh"]).done();
    let tables = format!("{wallet}\n[commands]\nquorum = 2\nmanagers = [{managers}]\n");
    desk.configure(&format!("{tables}\n{ANCHOR}"));
    let signer = desk.start();
    (desk, signer, tables)
}

impl Desk {
    /// Writes a command, has both managers sign it, and applies it.
    fn order(&self, what: &[&str], file: &str) -> String {
        let said = self.postern(&[&["command", "new"], what, &["-o", file]].concat()).done();
        for key in ["cfo.key", "cto.key"] {
            self.postern(&["command", "sign", file, "--key", key, "--yes"]).done();
        }
        format!("{said}{}", self.postern(&["command", "apply", file]).done())
    }

    fn ledger_files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.run.join("state")).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("ledger.db")).collect()
    }

    fn ledger(&self) -> PathBuf {
        self.run.join("state").join("ledger.db")
    }
}

#[test]
fn an_old_copy_signs_nothing_until_the_managers_re_base_it() {
    let (desk, mut signer, _) = open("rebase");
    signer.stop().unwrap();
    assert_eq!(desk.ledger_files(), [desk.ledger()], "after a stop in order one file is the whole ledger");
    let old = fs::read(desk.ledger()).unwrap();
    let mut signer = desk.start();
    desk.order(&["add-total", "0.5 BTC"], "more.command");
    desk.payment("first.psbt", 300_000);
    desk.postern(&["sign", "first.psbt"]).done();
    signer.stop().unwrap();
    fs::write(desk.ledger(), old).unwrap();

    let mut signer = desk.start();
    let status = desk.postern(&["status"]).done();
    assert!(status.contains("the managers must re-base") && status.contains("commands that are missing here (1)"), "{status}");
    assert!(status.contains("spent      at least 0.003 BTC"), "{status}");
    desk.payment("second.psbt", 200_000);
    assert!(desk.postern(&["sign", "second.psbt"]).failed(2).contains("refused.ledger_stale"));
    assert!(desk.postern(&["command", "apply", "more.command"]).failed(2).contains("refused.ledger_stale"));
    let little = desk.postern(&["command", "new", "rebase", "--spent", "0.002 BTC", "-o", "little.command"]).failed(1);
    assert!(little.contains("ledger and anchor know of 0.003 BTC"), "{little}");
    let said = desk.order(&["rebase"], "rebase.command");
    assert!(said.contains("count 0.003 BTC as spent in all; void all commands made before"), "{said}");
    assert!(said.contains("0.003 BTC count as spent, 0.997 BTC are left"), "{said}");
    let status = desk.postern(&["status"]).done();
    assert!(status.contains("  re-based  ") && !status.contains("must re-base"), "{status}");
    // The forgotten one stays used; a new one names the re-base by itself.
    assert!(desk.postern(&["command", "apply", "more.command"]).failed(2).contains("refused.command_base"));
    desk.order(&["set-rate", "0.01 BTC per 1 s"], "rate.command");
    desk.order(&["add-total", "0.1 BTC"], "again.command");
    assert!(desk.postern(&["command", "new", "rebase", "-o", "needless.command"]).failed(1).contains("needs no re-base"));
    signer.wait_for_log("re-base").unwrap();
    signer.stop().unwrap();
    assert!(desk.postern(&["ledger", "verify"]).done().starts_with("Sound:"));
    let shown = desk.postern(&["ledger", "show"]).done();
    assert!(shown.contains("re-based by command") && shown.contains("of cfo, cto: 0.003 BTC count as spent"), "{shown}");
    let _signer = desk.start();
    assert!(desk.postern(&["status"]).done().contains("proved the ledger to be the latest"));
    // After a re-base the buckets start empty.
    wait_until("the bucket to hold enough", PATIENCE, || Ok(desk.postern(&["sign", "second.psbt"]).code == 0)).unwrap();
}

#[test]
fn an_anchor_that_is_gone_is_an_alarm_until_the_managers_say_that_it_is_meant() {
    let (desk, mut signer, tables) = open("anchor_gone");
    desk.payment("first.psbt", 300_000);
    desk.postern(&["sign", "first.psbt"]).done();
    signer.stop().unwrap();
    desk.configure(&tables);
    let mut signer = desk.start();
    signer.wait_for_log("ALARM: this ledger was anchored (pkcs11-label)").unwrap();
    desk.payment("second.psbt", 200_000);
    assert!(desk.postern(&["sign", "second.psbt"]).failed(2).contains("refused.ledger_stale"));
    assert!(desk.postern(&["status"]).done().contains("ALARM"));
    signer.stop().unwrap();
    // It was a mistake: with the anchor everything is as before.
    desk.configure(&format!("{tables}\n{ANCHOR}"));
    let mut signer = desk.start();
    assert!(desk.postern(&["status"]).done().contains("proved the ledger to be the latest"));
    signer.stop().unwrap();
    // It is meant.
    desk.configure(&tables);
    let mut signer = desk.start();
    desk.order(&["rebase", "--spent", "0.01 BTC"], "rebase.command");
    let status = desk.postern(&["status", "--json"]).json();
    let total = status["limits"].as_array().unwrap().iter().find(|limit| limit["name"] == "total").unwrap();
    assert_eq!(total["available_sat"].as_u64(), Some(99_000_000));
    signer.stop().unwrap();
    let _signer = desk.start();
    assert!(!desk.postern(&["status"]).done().contains("must re-base"));
}

#[test]
fn a_second_signer_on_a_state_folder_ends_and_names_the_first() {
    let (desk, signer, _) = open("second");
    let (name, conf) = desk.token.env();
    let second = say(program("postern-signer").arg("run").arg("--config").arg(desk.config()).env(name, conf));
    let error = second.failed(1);
    assert!(error.contains(&format!("pid {}", signer.id())), "{error}");
}

#[test]
fn a_full_disk_refuses_and_once_there_is_room_the_same_request_passes() {
    let (desk, mut signer, _) = open("full");
    signer.stop().unwrap();
    drop(signer);
    // A small disk of its own, nearly full, in a namespace of its own. The socket stays outside.
    let (state, mend) = (desk.run.join("state"), desk.run.join("mend"));
    let filler = state.join("filler");
    let script = format!(
        "set -e; cp -a {state} {state}.copy; mount -t tmpfs -o size=600k none {state}; chmod 700 {state}; cp -a {state}.copy/. {state}; \
         dd if=/dev/zero of={filler} bs=1k count=5000 2>/dev/null || true; truncate -s -120k {filler}; \
         (while [ ! -e {mend} ]; do sleep 0.05; done; rm {filler}; touch {mend}.done) & \
         exec {signer} run --config {config}",
        state = state.display(),
        filler = filler.display(),
        mend = mend.display(),
        signer = Path::new(env!("CARGO_BIN_EXE_postern-signer")).display(),
        config = desk.config().display(),
    );
    let (name, conf) = desk.token.env();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).env(name, conf);
    let mut signer = Process::start(&desk.run, "signer-full", command).unwrap();
    signer.wait_for_socket(&desk.run.join("signer.sock")).unwrap();
    let mut refused = None;
    for n in 0..60 {
        let file = format!("{n}.psbt");
        desk.payment(&file, 10_000 + n);
        let said = desk.postern(&["sign", &file]);
        if said.code != 0 {
            refused = Some((file, said.failed(2)));
            break;
        }
    }
    let (file, error) = refused.expect("the disk is never full");
    assert!(error.contains("refused.ledger_unavailable") && error.contains("nothing was charged"), "{error}");
    let charged = || desk.postern(&["status", "--json"]).json()["charged_sat"].as_u64().unwrap();
    let before = charged();
    fs::write(&mend, "").unwrap();
    wait_until("room on the disk", PATIENCE, || Ok(mend.with_extension("done").exists())).unwrap();
    desk.postern(&["sign", &file]).done();
    assert!(charged() > before);
    signer.stop().unwrap();
}
