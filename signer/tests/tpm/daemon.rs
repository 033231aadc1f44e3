//! A signer whose seed and anchor are in a TPM, set up and asked with the operators' own program.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use bitcoin::{Psbt, ScriptBuf};
use postern_signer::{
    anchor::{NV_INDEX_DEFAULT, NvAnchor},
    tpm::AuthValue,
};
use postern_testkit::{
    Process, TpmDevice,
    spend::{self, Coin, Output, Scripts},
    wait::{PATIENCE, wait_until},
};

use crate::board::Board;

const SECRET: &str = "correct horse";
const LEASE_SAT: u64 = 1_000_000;

pub(crate) struct Desk {
    pub(crate) board: Board,
}

/// Exit code, standard output and error.
pub(crate) type Said = (i32, String, String);

impl Desk {
    /// A signer with the wallet `hot`, not running.
    pub(crate) fn new(label: &str) -> Self {
        let board = Board::new(label);
        board.run.write("tpm.auth", SECRET).unwrap();
        let desk = Self { board };
        desk.configure("");
        desk.done(&["init"]);
        let table = desk.done(&["wallet", "new", "hot", "--keystore", "board", "--kind", "seed", "--script", "wpkh"]);
        desk.configure(&table);
        desk
    }

    fn configure(&self, tables: &str) {
        let text = format!(
            "[signer]\nname = \"vault\"\nnetwork = \"regtest\"\nstate = \"state\"\nsocket = \"signer.sock\"\n\n\
             [limits]\nrate = [{{ amount = \"1 BTC\", per = \"1 s\" }}]\ntotal = \"1 BTC\"\n\n\
             [anchor]\nkind = \"tpm\"\nkeystore = \"board\"\nlease = \"{LEASE_SAT} sat\"\n\n\
             [sandbox]\ndangerous_network = true\n\n\
             [keystore.board]\nkind = \"tpm\"\ntcti = \"{}\"\nauth = {{ file = \"tpm.auth\" }}\n{tables}",
            self.board.swtpm.tcti()
        );
        fs::write(self.config(), text).unwrap();
    }

    /// A new signer with a TPM that is a device, and without a network.
    pub(crate) fn move_to(&self, tcti: &str) {
        self.configure("");
        let text = fs::read_to_string(self.config()).unwrap();
        let text = text.replace(&self.board.swtpm.tcti(), tcti).replace("dangerous_network = true", "missing = \"refuse\"");
        fs::write(self.config(), &text).unwrap();
        fs::remove_dir_all(self.board.run.join("state")).unwrap();
        self.done(&["init"]);
        let table = self.done(&["wallet", "new", "hot", "--keystore", "board", "--kind", "seed", "--script", "wpkh"]);
        fs::write(self.config(), text + &table).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.board.run.join("signer.toml")
    }

    pub(crate) fn postern(&self, arguments: &[&str]) -> Said {
        self.run(Command::new(env!("CARGO_BIN_EXE_postern")).args(arguments).arg("--config").arg(self.config()))
    }

    fn check(&self) -> Said {
        self.run(Command::new(env!("CARGO_BIN_EXE_postern-signer")).arg("check").arg(self.config()))
    }

    fn run(&self, command: &mut Command) -> Said {
        let output = command.current_dir(self.board.run.path()).stdin(Stdio::null()).env_remove("TSS2_LOG").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.postern(arguments);
        assert_eq!(code, 0, "{out}{err}");
        assert!(!err.contains("tss2"), "the TPM's library writes of its own: {err}");
        out
    }

    pub(crate) fn start(&self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern-signer"));
        command.arg("run").arg("--config").arg(self.config()).env_remove("TSS2_LOG");
        let mut signer = Process::start(&self.board.run, "signer", command).unwrap();
        signer.wait_for_socket(&self.board.run.join("signer.sock")).unwrap();
        signer
    }

    /// Asks for a payment of this outflow from a coin that no chain knows.
    fn pay(&self, outflow_sat: u64, value_sat: u64) -> Said {
        let scripts = Scripts::new(self.done(&["wallet", "export", "hot"]).trim()).unwrap();
        let coins = Coin::imagine(&[scripts.at(0, 0).unwrap()], value_sat);
        let to = ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").unwrap();
        let change = Output::Own(Box::new(scripts.change(0).unwrap()), value_sat - outflow_sat);
        let psbt = spend::psbt(&coins, &[Output::Pay(to, outflow_sat - 1_000), change]).unwrap();
        fs::write(self.board.run.join("pay.psbt"), psbt.serialize()).unwrap();
        self.postern(&["sign", "pay.psbt", "-o", "paid.psbt"])
    }

    /// How often the anchor was written, as the TPM's memory says.
    fn writes(&self) -> u64 {
        let auth = AuthValue::derive(SECRET.as_bytes(), "postern/anchor").unwrap();
        NvAnchor::new(self.board.tpm(), auth, NV_INDEX_DEFAULT).writes().unwrap()
    }
}

#[test]
fn the_anchor_is_written_once_a_lease_and_not_once_a_payment() {
    let desk = Desk::new("leases");
    let (mut payments, mut charged, mut before) = (0, 0, desk.writes());
    for start in 0..2 {
        let mut signer = desk.start();
        for payment in 0..25 {
            // Each from a coin of its own, a quarter of a lease and a bit.
            let (code, out, err) = desk.pay(260_000, 10_000_000 + start * 100 + payment);
            assert_eq!(code, 0, "{out}{err}");
            payments += 1;
            charged += 260_000;
        }
        signer.stop().unwrap();
    }
    let writes = desk.writes();
    let leases = charged / LEASE_SAT + 1;
    // A start, the first charge after it (which clears the mark), and a stop.
    let most = before + leases + 2 * 3;
    before = writes - before;
    assert!(writes <= most, "{writes} writes, and at most {most} were promised for {payments} payments of {leases} leases");
    assert!(before >= leases, "{before} writes for {leases} leases: what is counted?");
    let psbt = Psbt::deserialize(&fs::read(desk.board.run.join("paid.psbt")).unwrap()).unwrap();
    assert_eq!(psbt.inputs[0].partial_sigs.len(), 1);
}

#[test]
fn a_signer_that_loses_its_tpm_signs_again_when_it_is_back() {
    let mut desk = Desk::new("loses");
    let mut signer = desk.start();
    assert_eq!(desk.pay(260_000, 10_000_000).0, 0);
    desk.board.swtpm.kill().unwrap();
    wait_until("the signer to notice", PATIENCE, || Ok(desk.postern(&["status"]).1.contains("does not answer"))).unwrap();
    let (code, out, err) = desk.pay(260_000, 10_000_001);
    assert_ne!(code, 0, "{out}{err}");
    desk.board.swtpm.start_again().unwrap();
    wait_until("a payment", PATIENCE, || Ok(desk.pay(260_000, 10_000_001).0 == 0)).unwrap();
    signer.alive().unwrap();
    signer.stop().unwrap();
    // The ledger is proven to be the latest all the same.
    let mut signer = desk.start();
    assert!(desk.done(&["status"]).contains("proved the ledger to be the latest"), "{}", desk.done(&["status"]));
    signer.stop().unwrap();
}

#[test]
fn an_old_ledger_put_back_is_noticed_by_the_tpm() {
    let desk = Desk::new("old_ledger");
    let state = desk.board.run.join("state");
    let old = desk.board.run.join("old");
    let copy = |from: &PathBuf, to: &PathBuf| {
        let _ = fs::remove_dir_all(to);
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    let mut signer = desk.start();
    assert_eq!(desk.pay(260_000, 10_000_000).0, 0);
    signer.stop().unwrap();
    copy(&state, &old);
    let mut signer = desk.start();
    assert_eq!(desk.pay(400_000, 10_000_001).0, 0);
    signer.stop().unwrap();
    copy(&old, &state);
    let mut signer = desk.start();
    let status = desk.done(&["status"]);
    assert!(!status.contains("proved the ledger to be the latest"), "{status}");
    // What was spent is what the TPM knows.
    let used: u64 = 660_000;
    let json: serde_json::Value = serde_json::from_str(&desk.done(&["status", "--json"])).unwrap();
    assert!(json.to_string().contains(&used.to_string()), "{json}");
    signer.stop().unwrap();
}

#[test]
fn a_signer_booted_otherwise_does_not_start_and_says_which_pcr_changed() {
    let desk = Desk::new("otherwise");
    desk.board.measure(11, 1);
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-signer"));
    let (code, _, err) = desk.run(command.arg("run").arg("--config").arg(desk.config()));
    assert_eq!(code, 78, "{err}");
    assert!(err.contains("PCR 11 (kernel image) holds") && err.contains("postern wallet reseal"), "{err}");
}

#[test]
fn an_update_is_prepared_with_a_command() {
    let desk = Desk::new("update");
    use sha2::{Digest as _, Sha256};
    let after = hex::encode(Sha256::new().chain_update([0; 32]).chain_update([4; 32]).finalize());
    let said = desk.done(&["wallet", "reseal", "hot", "--pcr", &format!("11={after}")]);
    assert!(said.contains(&format!("PCR 11 (kernel image) {after}  to come")), "{said}");
    let (code, _, err) = desk.postern(&["wallet", "reseal", "hot", "--pcr", &format!("12={after}")]);
    assert!(code == 1 && err.contains("PCR 12 is none of those"), "{err}");
    desk.board.measure(11, 4);
    let mut signer = desk.start();
    assert_eq!(desk.pay(260_000, 10_000_000).0, 0);
    signer.stop().unwrap();
}

#[test]
fn check_says_that_a_software_tpm_protects_from_nothing() {
    let mut desk = Desk::new("check");
    let (code, out, err) = desk.check();
    assert_eq!(code, 0, "{out}{err}");
    for wanted in ["IBM", "software", "off anchor-in-hardware: the anchor's TPM is software", "nothing was measured into PCR 7 and 11"] {
        assert!(out.contains(wanted), "{wanted}: {out}");
    }
    desk.board.swtpm.kill().unwrap();
    let (code, _, err) = desk.check();
    assert!(code == 1 && err.contains("does not answer") && err.contains("signer.toml:"), "{err}");
    desk.board.swtpm.start_again().unwrap();
}

#[test]
fn a_wrong_secret_costs_one_try_however_long_the_signer_runs() {
    let desk = Desk::new("wrong_secret");
    desk.board.run.write("tpm.auth", "incorrect horse").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-signer"));
    command.arg("run").arg("--config").arg(desk.config());
    let mut signer = Process::start(&desk.board.run, "signer", command).unwrap();
    // The anchor was never written, so nothing but the seed is asked for.
    signer.wait_for_log("refused the auth value").unwrap();
    let until = std::time::Instant::now();
    wait_until("several looks", PATIENCE, || Ok(until.elapsed() > Duration::from_secs(5))).unwrap();
    assert_eq!(desk.board.tpm().with(|tpm| tpm.lockout()).unwrap().failed, 1);
    signer.kill().unwrap();
}

#[test]
fn a_wrong_secret_for_a_written_anchor_costs_one_try_and_ends_with_the_code_that_no_unit_restarts() {
    let desk = Desk::new("closed_anchor");
    desk.start().stop().unwrap();
    desk.board.run.write("tpm.auth", "incorrect horse").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-signer"));
    command.arg("run").arg("--config").arg(desk.config());
    let mut signer = Process::start(&desk.board.run, "signer", command).unwrap();
    let ended = signer.wait_for_end(PATIENCE).unwrap();
    assert_eq!(ended.code(), Some(i32::from(postern_signer::cli::NEEDS_SOMEBODY)), "{}", signer.log());
    assert!(signer.log().contains("the anchor is closed") && signer.log().contains("refused the auth value"), "{}", signer.log());
    assert_eq!(desk.board.tpm().with(|tpm| tpm.lockout()).unwrap().failed, 1);
    desk.board.run.write("tpm.auth", SECRET).unwrap();
    desk.start().stop().unwrap();
}

#[test]
fn a_signer_reaches_a_tpm_device_from_within_its_sandbox_and_has_no_network() {
    let desk = Desk::new("device");
    let device = TpmDevice::start(&desk.board.run, "chip").unwrap();
    desk.move_to(&device.tcti());
    let mut signer = desk.start();
    assert!(signer.log().contains("network") && !signer.log().contains("dangerous_network"), "{}", signer.log());
    // The second payment comes after the doors are closed, and needs the anchor's bound raised.
    for value in [10_000_000, 10_000_001] {
        let (code, out, err) = desk.pay(LEASE_SAT, value);
        assert_eq!(code, 0, "{out}{err}");
    }
    signer.stop().unwrap();
    let mut signer = desk.start();
    assert!(desk.done(&["status"]).contains("proved the ledger to be the latest"));
    signer.stop().unwrap();
}

#[test]
fn a_signer_starts_from_a_configuration_named_without_its_folder() {
    let desk = Desk::new("bare_name");
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-signer"));
    command.args(["run", "--config", "signer.toml"]).current_dir(desk.board.run.path());
    let mut signer = Process::start(&desk.board.run, "signer", command).unwrap();
    signer.wait_for_socket(&desk.board.run.join("signer.sock")).unwrap();
    signer.stop().unwrap();
}

#[test]
fn a_new_seed_takes_rolls_of_a_die_and_refuses_what_is_none() {
    let desk = Desk::new("rolls");
    let typed = |name: &str, option: &str, text: &str| {
        fs::write(desk.board.run.join("typed"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command.args(["wallet", "new", name, "--keystore", "board", "--kind", "seed", "--script", "wpkh", option]);
        command.arg("--config").arg(desk.config()).stdin(fs::File::open(desk.board.run.join("typed")).unwrap());
        let output = command.current_dir(desk.board.run.path()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let rolls = "16253 45162 36514 23541 62435 16524 36152 43516 24351 62453 1635\n";
    let (code, table, said) = typed("rolled", "--dice", rolls);
    assert_eq!(code, 0, "{said}");
    assert!(table.contains("[wallet.rolled]") && said.contains("of the kernel, and what was typed"), "{table}{said}");
    assert!(!said.contains("16253") && !table.contains("16253"), "the rolls are shown");
    let text = "jk4 hjkfs9 34kjhsd f8934 lkjsdf 0934 kljsdf 8i34 kjlsdf 9843 kljsdf\n";
    assert_eq!(typed("typed", "--entropy", text).0, 0);
    for (option, text, why) in [
        ("--dice", "123456\n", "6 of at least 50 rolls"),
        ("--dice", "", "0 of at least 50 rolls"),
        ("--dice", &"7".repeat(60), "digits from 1 to 6"),
        ("--dice", &"6".repeat(60), "the same over and over"),
        ("--dice", &"1 ".repeat(8_192), "longer than"),
        ("--entropy", "too short\n", "9 characters were typed"),
    ] {
        let (code, _, said) = typed("none", option, text);
        assert!(code == 1 && said.contains(why), "{why}: {said}");
    }
    assert!(!desk.board.run.join("state/seed-none.sealed").exists(), "a seed was made of nothing");
}
