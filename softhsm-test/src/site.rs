//! The whole system, as it stands at a customer's: tokens and signers, their links, the coordinator, a node. Over TCP, or over the
//! private Tor network when the process runs inside of it. Set up with the operators' own commands.

mod api;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bitcoin::Address;
use serde_json::{Value, json};

pub use api::{Api, Reply};

use crate::{
    bitcoind::Bitcoind,
    port::Port,
    process::Process,
    program,
    run::TempRun,
    vault::{Vault, VaultPlan},
    wait::wait_for,
};

/// How long anything may take that a person would wait for.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How links reach the coordinator.
#[derive(Debug, Clone, Default)]
pub enum Way {
    /// TCP on loopback, as on a LAN.
    #[default]
    Direct,
    /// The coordinator's onion service on the private Tor network of this file.
    Tor(PathBuf),
}

/// What a site is to be.
#[derive(Debug, Clone, Default)]
pub struct SitePlan {
    vaults: Vec<VaultPlan>,
    way: Way,
    wallet_lines: String,
    attestation: String,
    environment: Vec<(String, String)>,
    joint: Option<usize>,
}

impl SitePlan {
    /// A site of these signers. Each of their wallets is a wallet of the coordinator's, under its own name.
    #[must_use]
    pub fn new(vaults: impl IntoIterator<Item = VaultPlan>) -> Self {
        Self { vaults: vaults.into_iter().collect(), ..Self::default() }
    }

    /// How links reach the coordinator.
    #[must_use]
    pub fn way(mut self, way: Way) -> Self {
        self.way = way;
        self
    }

    /// Lines of each `[wallet.NAME]` table of the coordinator.
    #[must_use]
    pub fn wallet_lines(mut self, lines: &str) -> Self {
        self.wallet_lines = lines.into();
        self
    }

    /// Lines of the coordinator's table `[attestation]`.
    #[must_use]
    pub fn attestation(mut self, lines: &str) -> Self {
        self.attestation = format!("[attestation]\n{lines}\n\n");
        self
    }

    /// A variable in the environment of the coordinator.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Wallets of the same name are one wallet: so many of its signers must sign. They are planned as `wsh(pk(@))` in each vault.
    #[must_use]
    pub fn joint(mut self, threshold: usize) -> Self {
        self.joint = Some(threshold);
        self
    }

    /// Sets everything up and starts it.
    ///
    /// # Errors
    /// When a step fails; says which.
    pub fn start(self, run: &TempRun) -> Result<Site> {
        let bitcoind = Bitcoind::start(run)?;
        let vaults = match self.joint {
            None => self.vaults.iter().map(|plan| plan.clone().start(run)).collect::<Result<Vec<_>>>()?,
            Some(threshold) => self.start_joint(run, threshold)?,
        };
        Site::around(run, &self, bitcoind, vaults)
    }

    /// Each signer makes its key; then all are told of all.
    fn start_joint(&self, run: &TempRun, threshold: usize) -> Result<Vec<Vault>> {
        let mut vaults = self.vaults.iter().map(|plan| plan.clone().prepare(run)).collect::<Result<Vec<_>>>()?;
        let names: BTreeSet<String> = vaults.iter().flat_map(Vault::planned_wallets).map(str::to_owned).collect();
        for name in &names {
            let keys = vaults.iter().map(|vault| Ok(format!("{}/<0;1>/*", vault.own_key(name)?))).collect::<Result<Vec<_>>>()?;
            for (own, vault) in vaults.iter_mut().enumerate() {
                let keys: Vec<&str> = keys.iter().enumerate().map(|(n, key)| if n == own { "@" } else { key }).collect();
                vault.set_script(name, &format!("wsh(sortedmulti({threshold},{}))", keys.join(",")))?;
            }
        }
        vaults.iter_mut().try_for_each(Vault::open)?;
        Ok(vaults)
    }
}

/// A running site.
#[derive(Debug)]
pub struct Site {
    run: TempRun,
    // In this order: those who ask end before those who answer.
    links: Vec<Link>,
    coordinator: Option<Process>,
    /// The signers.
    pub vaults: Vec<Vault>,
    /// The node.
    pub bitcoind: Bitcoind,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    shop: String,
    boss: String,
    _port: Port,
}

/// A signer's link.
#[derive(Debug)]
struct Link {
    name: String,
    config: PathBuf,
    process: Option<Process>,
}

impl Site {
    fn around(run: &TempRun, plan: &SitePlan, bitcoind: Bitcoind, vaults: Vec<Vault>) -> Result<Self> {
        let folder = run.folder("coordinator")?;
        let port = Port::reserve()?;
        let mut site = Self {
            run: run.clone(),
            links: vec![],
            coordinator: None,
            vaults,
            bitcoind,
            folder,
            environment: plan.environment.clone(),
            shop: String::new(),
            boss: String::new(),
            _port: port,
        };
        site.write_coordinator(plan)?;
        for number in 0..site.vaults.len() {
            site.pair(number, &plan.way)?;
        }
        site.shop = site.new_key("shop", "create,read")?;
        site.boss = site.new_key("boss", "approve,read")?;
        site.start_coordinator()?;
        for number in 0..site.links.len() {
            site.start_link(number)?;
        }
        Ok(site)
    }

    fn write_coordinator(&self, plan: &SitePlan) -> Result<()> {
        let mut text = format!(
            "[coordinator]\nnetwork = \"regtest\"\nstate = {:?}\npoll = \"100 ms\"\nneeds_retry = \"2 s\"\n\n[api]\nlisten = \"unix:{}\"\n\n",
            self.folder.join("state"),
            self.api_socket().display()
        );
        let _ = writeln!(text, "[door]\nstate = {:?}", self.folder.join("door"));
        match &plan.way {
            Way::Direct => drop(writeln!(text, "direct = \"127.0.0.1:{}\"\n", self._port.number())),
            Way::Tor(network) => drop(writeln!(text, "[door.onion]\nkind = \"arti\"\n[door.tor]\nprivate_network = {network:?}\n")),
        }
        let _ = writeln!(text, "[bitcoind]\nurl = \"{}\"\ncookie = {:?}\nstart_height = 1\n", self.bitcoind.url(), self.bitcoind.cookie());
        let mut wallets: BTreeMap<String, (String, Vec<&str>)> = BTreeMap::new();
        for vault in &self.vaults {
            for wallet in vault.wallets()? {
                wallets.entry(wallet.name).or_insert_with(|| (wallet.descriptor, vec![])).1.push(vault.name());
            }
        }
        text.push_str(&plan.attestation);
        for vault in self.vaults.iter().filter(|vault| !vault.has_tpm()) {
            let _ = writeln!(text, "[signer.{}]\nattestation = \"none\"\n", vault.name());
        }
        for (name, (descriptor, signers)) in wallets {
            let _ = writeln!(text, "[wallet.{name}]\nsigners = {signers:?}\ndescriptor = \"{descriptor}\"\n{}\n", plan.wallet_lines);
        }
        fs::write(self.config(), text).context("cannot write coordinator.toml")
    }

    /// As two operators do it: the link's public file goes one way, the coordinator's the other.
    fn pair(&mut self, number: usize, way: &Way) -> Result<()> {
        let vault = self.vaults.get(number).context("no such signer")?;
        let name = vault.name().to_owned();
        let folder = self.run.folder(&format!("{name}-link"))?;
        let (config, public, theirs) = (folder.join("link.toml"), folder.join("link-public.toml"), folder.join("coordinator-public.toml"));
        let mode = if matches!(way, Way::Direct) { "direct" } else { "tor" };
        let mut text = format!(
            "[link]\nstate = {:?}\nsigner = {:?}\ncoordinator = {theirs:?}\nmode = \"{mode}\"\nheartbeat = \"1 s\"\n",
            folder.join("state"),
            vault.socket()
        );
        if let Way::Tor(network) = way {
            let _ = writeln!(text, "\n[tor]\nprivate_network = {network:?}");
        }
        fs::write(&config, text).context("cannot write link.toml")?;
        let mut init = Command::new(program::own("postern-link")?);
        program::output(init.arg("init").arg("--config").arg(&config).arg("--out").arg(&public))?;
        self.coordinate(&["signer", "add", &name, "--from", &public.to_string_lossy(), "--out", &theirs.to_string_lossy()])?;
        self.links.push(Link { name, config, process: None });
        Ok(())
    }

    fn new_key(&self, person: &str, scopes: &str) -> Result<String> {
        let said = self.coordinate(&["key", "new", "--person", person, "--scope", scopes])?;
        let key = said.lines().map(str::trim).find(|line| !line.is_empty() && !line.contains(' '));
        Ok(key.with_context(|| format!("no key in: {said}"))?.to_owned())
    }

    /// Runs `postern-coordinator ARGUMENTS --config …`, and gives what it wrote.
    ///
    /// # Errors
    /// When it fails; the error holds what it wrote.
    pub fn coordinate(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program::own("postern-coordinator")?);
        program::output(command.args(arguments).arg("--config").arg(self.config()))
    }

    /// Starts the coordinator and waits until its API listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_coordinator(&mut self) -> Result<()> {
        let mut command = Command::new(program::own("postern-coordinator")?);
        command.arg("run").arg("--config").arg(self.config());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start(&self.run, "coordinator", command)?;
        process.wait_for_socket(&self.api_socket())?;
        self.coordinator = Some(process);
        Ok(())
    }

    /// The variables for the coordinator's next start.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// The coordinator's process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn coordinator(&mut self) -> Result<&mut Process> {
        self.coordinator.as_mut().context("the coordinator does not run")
    }

    /// SIGKILL for the coordinator.
    ///
    /// # Errors
    /// When it did not run.
    pub fn kill_coordinator(&mut self) -> Result<()> {
        self.coordinator()?.kill()?;
        self.coordinator = None;
        Ok(())
    }

    /// Starts a signer's link. Does not wait until it is through.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_link(&mut self, number: usize) -> Result<()> {
        let link = self.links.get_mut(number).context("no such link")?;
        let mut command = Command::new(program::own("postern-link")?);
        command.arg("run").arg("--config").arg(&link.config);
        link.process = Some(Process::start(&self.run, &format!("{}-link", link.name), command)?);
        Ok(())
    }

    /// A signer's link.
    ///
    /// # Errors
    /// When it does not run.
    pub fn link(&mut self, number: usize) -> Result<&mut Process> {
        self.links.get_mut(number).and_then(|link| link.process.as_mut()).context("the link does not run")
    }

    /// SIGKILL for a link.
    ///
    /// # Errors
    /// When it did not run.
    pub fn kill_link(&mut self, number: usize) -> Result<()> {
        self.link(number)?.kill()?;
        if let Some(link) = self.links.get_mut(number) {
            link.process = None;
        }
        Ok(())
    }

    /// A link's configuration file.
    ///
    /// # Errors
    /// When there is no such link.
    pub fn link_config(&self, number: usize) -> Result<&Path> {
        Ok(&self.links.get(number).context("no such link")?.config)
    }

    /// The coordinator's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("coordinator.toml")
    }

    /// The coordinator's state folder, with its database.
    #[must_use]
    pub fn coordinator_state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Everything of this site.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.run.path()
    }

    /// Where the coordinator's API listens.
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        self.folder.join("api.sock")
    }

    /// The shop's API key.
    #[must_use]
    pub fn shop_key(&self) -> &str {
        &self.shop
    }

    /// The API as the shop uses it: creates and reads.
    #[must_use]
    pub fn shop(&self) -> Api {
        Api::new(self.api_socket(), &self.shop)
    }

    /// The API as the person uses it who approves.
    #[must_use]
    pub fn boss(&self) -> Api {
        Api::new(self.api_socket(), &self.boss)
    }

    /// A new deposit address of a wallet.
    ///
    /// # Errors
    /// When none comes in time. A pool's first addresses take a while: its keys come from the signer.
    pub fn deposit_address(&self, wallet: &str, reference: &str) -> Result<Address> {
        let text = wait_for("a deposit address", PATIENCE, || {
            let reply = self.shop().post("/v1/addresses", &json!({ "wallet": wallet, "reference": reference }))?;
            Ok(reply.body["address"].as_str().map(str::to_owned))
        })?;
        Ok(text.parse::<Address<_>>()?.require_network(bitcoin::Network::Regtest)?)
    }

    /// Pays into a wallet, confirms it and waits until the coordinator may spend it.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn deposit(&self, wallet: &str, reference: &str, sat: u64) -> Result<Address> {
        let address = self.deposit_address(wallet, reference)?;
        let before = self.available_sat(wallet)?;
        self.bitcoind.fund(&address.script_pubkey(), sat)?;
        self.bitcoind.mine(6)?;
        wait_for("the deposit", PATIENCE, || Ok((self.available_sat(wallet)? >= before + sat).then_some(())))?;
        Ok(address)
    }

    /// What the coordinator can spend.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn available_sat(&self, wallet: &str) -> Result<u64> {
        let reply = self.shop().get("/v1/wallets")?;
        ensure!(reply.status == 200, "no wallets: {reply}");
        let wallets = reply.body["wallets"].as_array();
        let named = wallets.into_iter().flatten().find(|entry| entry["name"] == wallet);
        named.and_then(|entry| entry["balance"]["available_sat"].as_u64()).with_context(|| format!("no balance of {wallet} in {reply}"))
    }

    /// Orders a payment; gives the order's id.
    ///
    /// # Errors
    /// When it is not accepted.
    pub fn order(&self, wallet: &str, external_id: &str, address: &Address, sat: u64) -> Result<String> {
        let body = json!({ "wallet": wallet, "external_id": external_id, "address": address.to_string(), "amount_sat": sat });
        let reply = self.shop().post_once("/v1/orders", external_id, &body)?;
        ensure!(reply.status == 201 || reply.status == 200, "the order was not accepted: {reply}");
        Ok(reply.body["id"].as_str().with_context(|| format!("no id in {reply}"))?.to_owned())
    }

    /// An order as the API shows it.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub fn look(&self, order: &str) -> Result<Value> {
        let reply = self.shop().get(&format!("/v1/orders/{order}"))?;
        ensure!(reply.status == 200, "no order: {reply}");
        Ok(reply.body)
    }

    /// Waits until an order is as wanted.
    ///
    /// # Errors
    /// When it is not in time; says how it is then.
    pub fn wait_for_order(&self, order: &str, what: &str, mut is: impl FnMut(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let waited = wait_for(what, PATIENCE, || {
            // A coordinator that is being restarted does not answer for a moment.
            if let Ok(now) = self.look(order) {
                last = now;
            }
            Ok(is(&last).then(|| last.clone()))
        });
        waited.with_context(|| format!("order {order} is {last}"))
    }

    /// Waits until an order is in a state.
    ///
    /// # Errors
    /// As [`Self::wait_for_order`].
    pub fn wait_for_state(&self, order: &str, state: &str) -> Result<Value> {
        self.wait_for_order(order, &format!("the order to be {state}"), |order| order["state"] == state)
    }

    /// Mines until an order is confirmed.
    ///
    /// # Errors
    /// As [`Self::wait_for_order`].
    pub fn confirm(&self, order: &str) -> Result<Value> {
        self.wait_for_order(order, "the payment to be sent", |order| matches!(order["state"].as_str(), Some("broadcast" | "confirmed")))?;
        self.bitcoind.mine(6)?;
        self.wait_for_state(order, "confirmed")
    }
}
