//! The daemon in a process of its own, with a token, a configuration and a ledger.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bitcoin::{Network, bip32::DerivationPath};
use postern_signer::{
    client::Client,
    identity::Identity,
    keystore::{PinSource, Pkcs11Config, Pkcs11Keystore},
    ledger::Ledger,
};
use postern_testkit::Token;
use tempfile::TempDir;

use crate::{SESSIONS, raw};

/// A daemon that serves. Killed when the bench fails.
pub(crate) struct Bench<'t> {
    token: &'t Token,
    folder: TempDir,
    socket: PathBuf,
    hot: String,
    process: Child,
}

impl<'t> Bench<'t> {
    /// Makes keys and a ledger, and has `program`, a build of this bench, serve them.
    pub(crate) fn start(token: &'t Token, program: &Path) -> Result<Self> {
        // On a disk that syncs, not in memory, where the token is.
        let folder = tempfile::tempdir_in(program.parent().context("no folder")?)?;
        let state = folder.path().join("state");
        fs::create_dir(&state)?;
        let module = token.module().display().to_string();
        let pin_file = token.pin_file().display().to_string();
        // By the build that serves it: the ledger's format may be another.
        let prepare = ["prepare", &module, token.label(), token.serial(), &pin_file, &state.display().to_string()];
        let keys = output(child(token, program, &prepare))?;
        let (hot, account) = keys.split_once(' ').context("two keys")?;
        let (config, socket) = write_config(folder.path(), &state, token, hot, account)?;
        let mut process = child(token, program, &["serve", &config.display().to_string()]).stdin(Stdio::null()).spawn()?;
        let listens = wait_for(&socket, &mut process);
        let bench = Self { token, socket, hot: hot.into(), process, folder };
        listens.map(|()| bench)
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The public key of the wallet `hot`.
    pub(crate) fn hot(&self) -> &str {
        &self.hot
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Bare calls on the same token, in a process of their own.
    pub(crate) fn raw(&self) -> Result<raw::Figures> {
        let (module, pin_file) = (self.token.module().display().to_string(), self.token.pin_file().display().to_string());
        Ok(serde_json::from_str(&output(child(self.token, &std::env::current_exe()?, &["raw", &module, &pin_file]))?)?)
    }

    /// What one durable commit costs on this disk, in milliseconds each.
    pub(crate) fn durable_commits(&self, times: usize) -> Result<Vec<f64>> {
        let path = self.folder.path().join("bare.sqlite");
        let fresh = !path.exists();
        let db = rusqlite::Connection::open(&path)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.execute_batch("CREATE TABLE IF NOT EXISTS journal (seq INTEGER PRIMARY KEY, body BLOB)")?;
        let mut insert = db.prepare("INSERT INTO journal (body) VALUES (?1)")?;
        let mut commit = || {
            let started = Instant::now();
            insert.execute([&[7u8; 300][..]])?;
            Ok(started.elapsed().as_secs_f64() * 1e3)
        };
        if fresh {
            // A log that has wrapped around does not grow any more, as a ledger's that has run for a while.
            db.pragma_update(None, "synchronous", "OFF")?;
            (0..3_000).try_for_each(|_| commit().map(drop))?;
        }
        db.pragma_update(None, "synchronous", "FULL")?;
        (0..times).map(|_| commit()).collect()
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        ensure!(self.process.wait()?.success(), "the signer did not end in order");
        Ok(())
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Keys, identity and ledger, as `postern init` and `postern wallet new` make them. Prints what the configuration needs of the keys.
pub(crate) fn prepare(module: &str, label: &str, serial: &str, pin_file: &str, state: &Path) -> Result<()> {
    let keystore = Pkcs11Keystore::open(Pkcs11Config {
        name: "hsm".into(),
        module: module.into(),
        token_label: label.into(),
        token_serial: serial.into(),
        pin: PinSource::File(pin_file.into()),
        sessions: 1,
        state: state.into(),
    })?;
    keystore.wait_ready(Duration::from_secs(30))?;
    let hot = keystore.create_hsm_key("hot")?;
    keystore.create_seed("tree", Network::Regtest, None)?;
    let path: DerivationPath = "m/84h/1h/0h".parse()?;
    let account = keystore.account_key("tree", Network::Regtest, &path)?;
    keystore.create_pool("many", Network::Regtest)?;
    Identity::create(state)?;
    Ledger::create(state)?;
    println!("{hot} {account}");
    Ok(())
}

fn write_config(folder: &Path, state: &Path, token: &Token, hot: &str, account: &str) -> Result<(PathBuf, PathBuf)> {
    let (config, socket) = (folder.join("signer.toml"), folder.join("s"));
    let text = format!(
        "[signer]\nname = \"bench\"\nnetwork = \"regtest\"\nstate = {state:?}\nsocket = {socket:?}\n\
         [limits]\nrate = [{{ amount = \"1000000 BTC\", per = \"1 s\" }}]\ntotal = \"20000000 BTC\"\n\
         [keystore.hsm]\nkind = \"pkcs11\"\nmodule = {:?}\ntoken = {{ label = {:?}, serial = {:?} }}\npin = {{ file = {:?} }}\nsessions = {SESSIONS}\n\
         [wallet.hot]\nkeystore = \"hsm\"\nkind = \"hsm\"\ndescriptor = \"wpkh({hot})\"\npublic_key = \"{hot}\"\n\
         [wallet.tree]\nkeystore = \"hsm\"\nkind = \"seed\"\ndescriptor = \"wpkh({account}/<0;1>/*)\"\n\
         [wallet.many]\nkeystore = \"hsm\"\nkind = \"pool\"\ndescriptor = \"wpkh(pool)\"\n",
        token.module(),
        token.label(),
        token.serial(),
        token.pin_file(),
    );
    fs::write(&config, text)?;
    Ok((config, socket))
}

fn child(token: &Token, program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    let (name, conf) = token.env();
    command.args(arguments).env(name, conf).env("RUST_LOG", "error");
    command
}

fn output(mut command: Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?} failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn wait_for(socket: &Path, signer: &mut Child) -> Result<()> {
    let started = Instant::now();
    while Client::connect(socket).is_err() {
        ensure!(signer.try_wait()?.is_none(), "the signer ended");
        ensure!(started.elapsed() < Duration::from_secs(60), "the signer does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
