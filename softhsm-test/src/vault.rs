//! A token, a configuration and a running signer: set up the way an operator does it, with the operator's own commands.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use miniscript::{DefiniteDescriptorKey, Descriptor};
use postern_protocol::{
    command::{Action, Scope},
    key::PublicKey,
    refusal::Refusal,
    reply::{ReplyBody, WalletInfo},
    request::{AddressRequest, RequestBody},
};

use crate::{
    managers::Managers, process::Process, program, run::TempRun, socket::SignerSocket, spend::Scripts, swtpm::Swtpm, token::Token,
};

/// What a signer is to be.
#[derive(Debug, Clone)]
pub struct VaultPlan {
    name: String,
    limits: String,
    disclose: bool,
    anchor: bool,
    frame_max: Option<usize>,
    managers: Managers,
    wallets: Vec<WalletPlan>,
    tpm: bool,
}

/// What a wallet is to be.
#[derive(Debug, Clone)]
pub struct WalletPlan {
    name: String,
    kind: &'static str,
    script: String,
    extra: String,
}

impl WalletPlan {
    /// A wallet of this kind (`hsm`, `pool`, `seed`) and script: a descriptor in which `@` stands for the signer's own key.
    #[must_use]
    pub fn new(name: &str, kind: &'static str, script: &str) -> Self {
        Self { name: name.into(), kind, script: script.into(), extra: String::new() }
    }

    /// A line more in its `[wallet.NAME]` table.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.extra.push_str(line);
        self.extra.push('\n');
        self
    }
}

impl Default for VaultPlan {
    /// No wallet, generous limits, three managers of whom two decide, the anchor on the token, gates are told everything.
    fn default() -> Self {
        Self {
            name: "vault".into(),
            limits: "rate = [{ amount = \"100 BTC\", per = \"1 s\" }]\ntotal = \"1000 BTC\"".into(),
            disclose: true,
            anchor: true,
            frame_max: None,
            managers: Managers::new(2, &["cfo", "cto", "board"]),
            wallets: vec![],
            tpm: false,
        }
    }
}

impl VaultPlan {
    /// The signer's name, also of its folders.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// The lines of `[limits]`.
    #[must_use]
    pub fn limits(mut self, lines: &str) -> Self {
        self.limits = lines.into();
        self
    }

    /// One wallet more.
    #[must_use]
    pub fn wallet(mut self, wallet: WalletPlan) -> Self {
        self.wallets.push(wallet);
        self
    }

    /// Without an anchor.
    #[must_use]
    pub fn without_anchor(mut self) -> Self {
        self.anchor = false;
        self
    }

    /// With a TPM that says what was booted, beside the token.
    #[must_use]
    pub fn with_tpm(mut self) -> Self {
        self.tpm = true;
        self
    }

    /// Gates are told codes only.
    #[must_use]
    pub fn without_reasons(mut self) -> Self {
        self.disclose = false;
        self
    }

    /// `[socket] frame_max`
    #[must_use]
    pub fn frame_max(mut self, bytes: usize) -> Self {
        self.frame_max = Some(bytes);
        self
    }

    /// Initialises a token, makes the keys and starts the signer.
    ///
    /// # Errors
    /// When a step fails; says which.
    pub fn start(self, run: &TempRun) -> Result<Vault> {
        let mut vault = self.prepare(run)?;
        vault.open()?;
        Ok(vault)
    }

    /// The same without starting the signer: for wallets whose scripts hold keys of others (see [`Vault::set_script`]).
    ///
    /// # Errors
    /// When a step fails; says which.
    pub fn prepare(self, run: &TempRun) -> Result<Vault> {
        let token = Token::new(run, &self.name)?;
        let folder = run.folder(&self.name)?;
        let tpm = if self.tpm { Some(Swtpm::start(run, &self.name)?) } else { None };
        if tpm.is_some() {
            run.write(format!("{}/tpm.auth", self.name), "correct horse")?;
        }
        let mut vault = Vault {
            run: run.clone(),
            token,
            tpm,
            config: folder.join("signer.toml"),
            socket: folder.join("signer.sock"),
            state: folder.join("state"),
            tables: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            signer: None,
            plan: self,
        };
        vault.write_config()?;
        vault.postern(&["init"])?;
        for WalletPlan { name, kind, script, .. } in vault.plan.wallets.clone() {
            let table = vault.postern(&["wallet", "new", &name, "--keystore", "hsm", "--kind", kind, "--script", &script])?;
            vault.tables.insert(name, table);
        }
        vault.write_config()?;
        Ok(vault)
    }
}

/// A running signer and what belongs to it.
#[derive(Debug)]
pub struct Vault {
    run: TempRun,
    token: Token,
    tpm: Option<Swtpm>,
    config: PathBuf,
    socket: PathBuf,
    state: PathBuf,
    /// What `postern wallet new` printed.
    tables: BTreeMap<String, String>,
    descriptors: BTreeMap<String, String>,
    signer: Option<Process>,
    plan: VaultPlan,
}

impl Vault {
    fn write_config(&self) -> Result<()> {
        let VaultPlan { name, limits, disclose, anchor, frame_max, managers, .. } = &self.plan;
        let disclose = if *disclose { "full" } else { "codes" };
        let mut text = format!(
            "[signer]\nname = \"{name}\"\nnetwork = \"regtest\"\nstate = {:?}\nsocket = {:?}\ndisclose = \"{disclose}\"\n\n",
            self.state, self.socket
        );
        if let Some(bytes) = frame_max {
            let _ = writeln!(text, "[socket]\nframe_max = \"{bytes} B\"\n");
        }
        let _ = writeln!(text, "[limits]\n{limits}\n");
        if *anchor {
            let _ = writeln!(text, "[anchor]\nkind = \"pkcs11\"\nkeystore = \"hsm\"\n");
        }
        let (label, serial) = (self.token.label(), self.token.serial());
        let _ = writeln!(text, "[keystore.hsm]\nkind = \"pkcs11\"\nmodule = {:?}", self.token.module());
        let _ =
            writeln!(text, "token = {{ label = \"{label}\", serial = \"{serial}\" }}\npin = {{ file = {:?} }}\n", self.token.pin_file());
        if let Some(tpm) = &self.tpm {
            // A software TPM is reached over loopback.
            let _ = writeln!(text, "[sandbox]\ndangerous_network = true\n");
            let _ = writeln!(text, "[keystore.board]\nkind = \"tpm\"\ntcti = \"{}\"\nauth = {{ file = \"tpm.auth\" }}\n", tpm.tcti());
        }
        for wallet in &self.plan.wallets {
            if let Some(table) = self.tables.get(&wallet.name) {
                let _ = writeln!(text, "{table}{}", wallet.extra);
            }
        }
        text.push_str(&managers.toml());
        std::fs::write(&self.config, text).with_context(|| format!("cannot write {}", self.config.display()))
    }

    /// Starts the signer for the first time.
    ///
    /// # Errors
    /// When it does not start.
    pub fn open(&mut self) -> Result<()> {
        self.launch()?;
        for WalletInfo { name, descriptor, .. } in self.wallets()? {
            self.descriptors.insert(name, descriptor);
        }
        Ok(())
    }

    /// The names of the wallets that were planned.
    pub fn planned_wallets(&self) -> impl Iterator<Item = &str> {
        self.plan.wallets.iter().map(|wallet| wallet.name.as_str())
    }

    /// The signer's own key of a `seed` wallet, with its origin: what the other signers of a multisig wallet need.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn own_key(&self, wallet: &str) -> Result<String> {
        let table = self.tables.get(wallet).with_context(|| format!("no wallet `{wallet}`"))?;
        let descriptor = table.lines().find_map(|l| l.strip_prefix("descriptor = \"")).context("a table without a descriptor")?;
        let start = descriptor.find('[').context("no origin")?;
        let key = descriptor.get(start..).unwrap_or_default();
        let end = key.find("/<").or_else(|| key.find(')')).context("no end of the key")?;
        Ok(key.get(..end).unwrap_or_default().to_owned())
    }

    /// Gives a prepared wallet another script around the same key.
    ///
    /// # Errors
    /// When the script is not accepted.
    pub fn set_script(&mut self, wallet: &str, script: &str) -> Result<()> {
        let plan = self.plan.wallets.iter().find(|w| w.name == wallet).with_context(|| format!("no wallet `{wallet}`"))?;
        let (name, kind) = (plan.name.clone(), plan.kind);
        // Keys are made once; the table must not be there twice.
        self.tables.remove(&name);
        self.write_config()?;
        let arguments = ["wallet", "new", &name, "--keystore", "hsm", "--kind", kind, "--script", script, "--existing"];
        let table = self.postern(&arguments)?;
        self.tables.insert(name, table);
        self.write_config()
    }

    /// Runs `postern ARGUMENTS --config …`, and gives what it wrote.
    ///
    /// # Errors
    /// When it fails; the error holds what it wrote.
    pub fn postern(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program::own("postern")?);
        let (name, conf) = self.token.env();
        command.args(arguments).arg("--config").arg(&self.config).env(name, conf);
        program::output(&mut command)
    }

    /// Starts the signer and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn launch(&mut self) -> Result<()> {
        let mut signer = self.launch_unready()?;
        signer.wait_for_socket(&self.socket)?;
        self.signer = Some(signer);
        Ok(())
    }

    /// Starts the signer and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_unready(&self) -> Result<Process> {
        let mut command = Command::new(program::own("postern-signer")?);
        let (name, conf) = self.token.env();
        command.arg("run").arg("--config").arg(&self.config).env(name, conf);
        Process::start(&self.run, &format!("{}-signer", self.plan.name), command)
    }

    /// The running signer.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn signer(&mut self) -> Result<&mut Process> {
        self.signer.as_mut().context("the signer does not run")
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// When it does not end cleanly.
    pub fn stop(&mut self) -> Result<()> {
        self.signer()?.stop()?;
        self.signer = None;
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it did not run.
    pub fn kill(&mut self) -> Result<()> {
        self.signer()?.kill()?;
        self.signer = None;
        Ok(())
    }

    /// Changes the configuration file; takes effect with the next start.
    ///
    /// # Errors
    /// When `from` does not stand in it.
    pub fn reconfigure(&self, from: &str, to: &str) -> Result<()> {
        let text = std::fs::read_to_string(&self.config)?;
        if !text.contains(from) {
            bail!("`{from}` is not in {}", self.config.display());
        }
        Ok(std::fs::write(&self.config, text.replacen(from, to, 1))?)
    }

    /// A new connection to the socket.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(&self) -> Result<SignerSocket> {
        SignerSocket::connect(&self.socket)
    }

    /// The scripts of a wallet.
    ///
    /// # Errors
    /// When there is no such wallet, or its descriptor cannot be parsed (that of a `pool` cannot).
    pub fn scripts(&self, wallet: &str) -> Result<Scripts> {
        Scripts::new(self.descriptors.get(wallet).with_context(|| format!("no wallet `{wallet}`"))?)
    }

    /// The descriptor of one script of a wallet, of any kind: a `pool` is asked for its key, which is put where the word `pool` stands.
    ///
    /// # Errors
    /// When there is no such script.
    pub fn at(&self, wallet: &str, branch: u32, index: u32) -> Result<Descriptor<DefiniteDescriptorKey>> {
        let descriptor = self.descriptors.get(wallet).with_context(|| format!("no wallet `{wallet}`"))?;
        let Ok(scripts) = Scripts::new(descriptor) else {
            let asked = AddressRequest { wallet: wallet.into(), branch, start: index, count: 1 };
            let ReplyBody::Addresses(addresses) = self.connect()?.ask(RequestBody::Addresses(asked))? else {
                bail!("no address of {wallet}")
            };
            let address = addresses.first().context("no address")?;
            let (body, _) = descriptor.split_once('#').unwrap_or((descriptor, ""));
            let descriptor = Scripts::new(&body.replace("pool", &hex::encode(&address.public_key)))?.at(0, 0)?;
            ensure!(descriptor.script_pubkey().as_bytes() == address.script_pubkey, "the address is not the key's");
            return Ok(descriptor);
        };
        if scripts.branches() == 1 { scripts.at(0, 0) } else { scripts.at(branch, index) }
    }

    /// What the signer says of its wallets.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn wallets(&self) -> Result<Vec<WalletInfo>> {
        match self.connect()?.ask(RequestBody::Wallets)? {
            ReplyBody::Wallets(wallets) => Ok(wallets),
            other => bail!("no wallets: {other:?}"),
        }
    }

    /// The signer's identity key.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn identity(&self) -> Result<PublicKey> {
        Ok(self.connect()?.status()?.identity.parse()?)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// The people who sign commands.
    #[must_use]
    pub fn managers(&self) -> &Managers {
        &self.plan.managers
    }

    /// A command by a quorum, applied.
    ///
    /// # Errors
    /// When the signer does not answer. A refusal is an answer.
    pub fn order(&self, action: Action) -> Result<Result<String, Refusal>> {
        let command = self.managers().order(self.identity()?, action)?;
        self.connect()?.command(&command)
    }

    /// A quorum adds to the signer's total.
    ///
    /// # Errors
    /// When it is refused.
    pub fn add_total(&self, sat: u64) -> Result<String> {
        Ok(self.order(Action::AddTotal(Scope::Signer, sat))??)
    }

    /// Whether it has a TPM.
    #[must_use]
    pub fn has_tpm(&self) -> bool {
        self.tpm.is_some()
    }

    /// As if something else was booted.
    ///
    /// # Errors
    /// When there is no TPM.
    pub fn measure(&self, pcr: u8, what: u8) -> Result<()> {
        let tpm = self.tpm.as_ref().context("a vault without a TPM")?;
        tpm.tool(&["pcrextend", &format!("{pcr}:sha256={}", hex::encode([what; 32]))]).map(drop)
    }

    /// The TPM.
    ///
    /// # Errors
    /// When there is none.
    pub fn tpm(&mut self) -> Result<&mut Swtpm> {
        self.tpm.as_mut().context("a vault without a TPM")
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }
}
