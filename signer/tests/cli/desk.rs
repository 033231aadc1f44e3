//! An operator's desk: a token, a configuration, and the programs.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use postern_testkit::{
    Process, TempRun, Token,
    spend::{self, Coin, Output, Scripts},
};

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Its standard output, when it did what was asked.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// Its standard error, when it ended with this code.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self.err
    }

    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.done()).unwrap()
    }
}

/// Runs one of the two programs.
pub(crate) fn program(name: &str) -> Command {
    let path = match name {
        "postern" => env!("CARGO_BIN_EXE_postern"),
        _ => env!("CARGO_BIN_EXE_postern-signer"),
    };
    let mut command = Command::new(path);
    command.env_remove("POSTERN_CONFIG").env_remove("CREDENTIALS_DIRECTORY").stdin(Stdio::null());
    command
}

pub(crate) fn say(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

pub(crate) struct Desk {
    pub(crate) run: TempRun,
    pub(crate) token: Token,
}

impl Desk {
    /// A token and a configuration without wallets.
    pub(crate) fn new(label: &str) -> Self {
        let run = TempRun::new(label).unwrap();
        let token = Token::new(&run, "vault").unwrap();
        let desk = Self { run, token };
        desk.configure("");
        desk
    }

    /// With a wallet `hot` of a seed, and a running signer.
    pub(crate) fn open(label: &str, more: &str) -> (Self, Process) {
        let desk = Self::new(label);
        desk.postern(&["init"]).done();
        let table = desk.postern(&["wallet", "new", "hot", "--keystore", "hsm", "--kind", "seed", "--script", "wpkh"]).done();
        desk.configure(&format!("{table}\n{more}"));
        let signer = desk.start();
        (desk, signer)
    }

    pub(crate) fn start(&self) -> Process {
        let mut command = program("postern-signer");
        let (name, conf) = self.token.env();
        command.arg("run").arg("--config").arg(self.config()).env(name, conf);
        let mut signer = Process::start(&self.run, "signer", command).unwrap();
        signer.wait_for_socket(&self.run.join("signer.sock")).unwrap();
        signer
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.run.join("signer.toml")
    }

    /// Writes the configuration with these tables at its end.
    pub(crate) fn configure(&self, tables: &str) {
        let text = format!(
            "[signer]\nname = \"vault\"\nnetwork = \"regtest\"\nstate = \"state\"\nsocket = \"signer.sock\"\n\n\
             [limits]\nrate = [{{ amount = \"0.01 BTC\", per = \"1 day\" }}]\ntotal = \"1 BTC\"\n\n\
             [keystore.hsm]\nkind = \"pkcs11\"\nmodule = {:?}\ntoken = {{ label = \"{}\", serial = \"{}\" }}\npin = {{ file = {:?} }}\n{tables}",
            self.token.module(),
            self.token.label(),
            self.token.serial(),
            self.token.pin_file(),
        );
        std::fs::write(self.config(), text).unwrap();
    }

    /// `postern …` with this configuration.
    pub(crate) fn postern(&self, arguments: &[&str]) -> Said {
        let (name, conf) = self.token.env();
        say(program("postern").args(arguments).arg("--config").arg(self.config()).env(name, conf).current_dir(self.run.path()))
    }

    /// `postern-signer check …` of this configuration.
    pub(crate) fn check(&self, arguments: &[&str]) -> Said {
        say(program("postern-signer").arg("check").arg(self.config()).args(arguments))
    }

    /// The scripts of the wallet `hot`.
    pub(crate) fn scripts(&self) -> Scripts {
        Scripts::new(self.postern(&["wallet", "export", "hot"]).done().trim()).unwrap()
    }

    /// A payment of this outflow, fee of 1,000 sat included, from a coin that no chain knows; its file is named.
    pub(crate) fn payment(&self, name: &str, outflow_sat: u64) -> bitcoin::Psbt {
        let scripts = self.scripts();
        let coins = Coin::imagine(&[scripts.at(0, 0).unwrap()], 10_000_000);
        let to = bitcoin::ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").unwrap();
        let change = Output::Own(Box::new(scripts.change(0).unwrap()), 10_000_000 - outflow_sat);
        let psbt = spend::psbt(&coins, &[Output::Pay(to, outflow_sat - 1_000), change]).unwrap();
        std::fs::write(self.run.join(name), psbt.serialize()).unwrap();
        psbt
    }
}
