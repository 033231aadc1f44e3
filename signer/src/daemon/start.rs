//! Starting and stopping: the parts are opened in the order in which they depend on each other, the socket last; and closed
//! the other way round.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{
    addresses::AddressRoom,
    assemble::Outside,
    handed_out::{HandedOut, HandedOutError},
    office::SignerOffice,
    peer::Roles,
    refusals::Refusals,
    server::{Office, Server, Terms},
    socket::SocketError,
    users::UserError,
};
use crate::{
    anchor::Anchor,
    attest::{AttestRoom, Attesting},
    clock::Clock,
    command::{CommandRules, Manager},
    config::{Config, OnMissing},
    identity::{Identity, IdentityError},
    keystore::{Keystore, KeystoreError},
    ledger::{Ledger, LedgerError, LedgerOptions},
    policy::rules::{PolicyRules, SpendRules},
    protection::{self, Protection},
    sandbox::{Reach, Sandbox, SandboxError},
    sign::{PoolRoom, SigningRoom, WalletRoom},
    wallet::{Wallet, WalletError, WalletKind},
};

/// Everything that the configuration says, as values and open keystores.
pub struct Parts {
    /// The signer's name.
    pub name: String,
    /// bitcoin, testnet4, signet or regtest.
    pub network: String,
    /// SHA-256 of the policy in hex, as `check` prints it.
    pub policy_hash: String,
    /// The state folder: identity, ledger, encrypted keys, addresses handed out.
    pub state: PathBuf,
    /// The socket.
    pub socket: PathBuf,
    /// Who may connect.
    pub roles: Roles,
    /// Whether gates see numbers and reasons (`disclose = "full"`).
    pub discloses: bool,
    /// How much the socket takes on.
    pub terms: Terms,
    /// The wallets.
    pub wallets: Vec<WalletPart>,
    /// Every keystore, also one that no wallet uses.
    pub keystores: Vec<Arc<dyn Keystore>>,
    /// The limits.
    pub rules: PolicyRules,
    /// By how much the anchor's bound is raised at a time; None: see [`LedgerOptions`].
    pub lease_sat: Option<u64>,
    /// What makes a rolled-back ledger visible.
    pub anchor: Box<dyn Anchor>,
    /// Who signs commands.
    pub managers: Vec<Manager>,
    /// How many of them it takes.
    pub quorum: usize,
    /// Whether a forged command locks what it names.
    pub locks_on_forgery: bool,
    /// The TPM that says what was booted.
    pub attesting: Option<Attesting>,
}

/// A wallet and what it takes to spend from it.
pub struct WalletPart {
    /// Its scripts.
    pub wallet: Wallet,
    /// What its analysis accepts.
    pub rules: SpendRules,
    /// Where its keys are.
    pub keystore: Arc<dyn Keystore>,
    /// Most addresses that are handed out on each branch, and most keys in a pool's branch. Bounds what an asker can make the
    /// signer derive and remember (about 1 KiB each).
    pub addresses_max: u32,
}

/// Why the daemon does not start. Nothing was signed, and no budget was spent.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The token answers, and a wallet's key on it is not the configured one.
    #[error("[wallet.{wallet}]: {source}")]
    Wallet {
        /// The wallet.
        wallet: String,
        /// What the keystore says.
        source: KeystoreError,
    },
    /// A keystore cannot be opened at all.
    #[error("[keystore.{keystore}]: {source}")]
    Keystore {
        /// Its name in the configuration.
        keystore: String,
        /// What is wrong.
        source: KeystoreError,
    },
    /// A table names a keystore that is not there.
    #[error("[{what}] names the keystore {keystore:?}, and there is no [keystore.{keystore}]")]
    KeystoreUnknown {
        /// The table.
        what: String,
        /// The name.
        keystore: String,
    },
    /// A wallet's descriptor is no wallet.
    #[error("[wallet.{wallet}] descriptor: {source}")]
    Descriptor {
        /// The wallet.
        wallet: String,
        /// What is wrong.
        source: WalletError,
    },
    /// A user of the configuration is nobody.
    #[error(transparent)]
    User(#[from] UserError),
    /// The addresses handed out are not known.
    #[error(transparent)]
    HandedOut(#[from] HandedOutError),
    /// No socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The sandbox cannot be closed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
}

/// Why the daemon did not end in order. The next start counts as one after a crash: it may burn a lease, never money.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Requests under way did not end in time.
    #[error("requests under way did not end in time; the ledger was not closed")]
    Unfinished,
    /// The ledger cannot be closed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why the daemon ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error("the signer does not start: {0}")]
    Start(#[from] StartError),
    /// It did not end in order.
    #[error("the signer did not stop in order: {0}")]
    Stop(#[from] StopError),
}

/// A daemon that serves.
pub struct Daemon {
    server: Server,
    ledger: Arc<Ledger>,
    clock: Clock,
}

impl Daemon {
    /// Opens everything and serves. A token that is away is no error: its wallets say so until it is there.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(parts: Parts) -> Result<Self, StartError> {
        let clock = Clock::start();
        let identity = Identity::open(&parts.state)?;
        let handed_out = HandedOut::open(&parts.state)?;
        let options = LedgerOptions {
            folder: parts.state.clone(),
            rules: parts.rules,
            lease_sat: parts.lease_sat,
            policy_hash: parts.policy_hash.clone(),
        };
        let ledger = Arc::new(Ledger::open_or_hold(options, parts.anchor)?);
        ledger.warnings().iter().for_each(|warning| log::warn!("{warning}"));
        if let Some(needed) = ledger.rebase_needed() {
            log::error!("nothing is signed until the managers re-base (docs/ledger.md): {}", needed.why);
        }

        let mut wallets = BTreeMap::new();
        for part in parts.wallets {
            let name = part.wallet.name().to_owned();
            for position in ledger.last_used(&name).into_iter().chain(handed_out.of(&name)) {
                part.wallet.note_used(position);
            }
            bind(&part)?;
            let pool = (part.wallet.kind() == WalletKind::Pool).then(PoolRoom::default);
            let WalletPart { wallet, rules, keystore, addresses_max } = part;
            wallets.insert(name, WalletRoom { wallet: Arc::new(wallet), rules, keystore, addresses_max, pool });
        }

        let network = parts.network;
        let commands = CommandRules { signer: identity.public(), network: network.clone(), managers: parts.managers, quorum: parts.quorum };
        log::info!(
            policy = parts.policy_hash.as_str();
            "{} on {network}, identity {}, policy {}, anchor {}", parts.name, identity.public(), parts.policy_hash, ledger.anchor()
        );
        let office = SignerOffice {
            name: parts.name,
            network,
            policy_hash: parts.policy_hash,
            identity,
            roles: parts.roles,
            discloses: parts.discloses,
            clock,
            signing: Arc::new(SigningRoom::new(wallets, Arc::clone(&ledger), clock)),
            addresses: AddressRoom::new(handed_out),
            commands,
            locks_on_forgery: parts.locks_on_forgery,
            ledger: Arc::clone(&ledger),
            keystores: parts.keystores,
            attest: AttestRoom::new(parts.attesting),
            refusals: Refusals::default(),
        };
        let server = Server::start(&parts.socket, Arc::new(office) as Arc<dyn Office>, parts.terms)?;
        log::info!("listening on {}", parts.socket.display());
        Ok(Self { server, ledger, clock })
    }

    /// Takes no more requests, answers what is charged, closes the ledger, removes the socket.
    ///
    /// # Errors
    /// [`StopError`].
    pub fn stop(self) -> Result<(), StopError> {
        if !self.server.stop() {
            return Err(StopError::Unfinished);
        }
        self.ledger.stop(self.clock.now())?;
        Ok(())
    }
}

/// Serves until SIGTERM or SIGINT, and ends in order. Tells systemd when it is ready (`Type=notify`).
///
/// # Errors
/// [`RunError`].
pub fn run(config: &Config) -> Result<(), RunError> {
    // Whatever is written from here on is for this user only.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // A signal that comes while the tokens are opened ends the daemon as soon as it serves.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(StartError::Signals)?;
    let outside = Outside::read(config)?;
    let configured = config.protections_here();
    let sandbox = Sandbox::enclose(config.allowances(), Reach::Process).map_err(StartError::Sandbox)?;
    if config.sandbox.missing == OnMissing::Refuse {
        sandbox.insist().map_err(StartError::Sandbox)?;
    }
    log_protections(config, sandbox.protections(), configured);
    let daemon = Daemon::start(Parts::new(config, outside)?)?;
    if let Err(e) = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]) {
        log::warn!("systemd was not told: {e}");
    }
    sandbox.seal().map_err(StartError::Sandbox)?;
    let signal = signals.forever().next();
    log::info!("stopping on {}", signal.and_then(signal_hook::low_level::signal_name).unwrap_or("request"));
    daemon.stop()?;
    log::info!("stopped in order");
    Ok(())
}

/// One line with everything, and one for each protection that is off and worth a warning.
fn log_protections(config: &Config, machine: Vec<Protection>, configured: Vec<Protection>) {
    let off = machine.iter().filter(|protection| !protection.on).map(|protection| protection.words.clone());
    config.warnings().into_iter().chain(off).for_each(|warning| log::warn!("{warning}"));
    log::info!("{}", protection::line(&[machine, configured].concat()));
}

/// Registers a wallet with its keystore. Only what a token that answers says is wrong keeps the daemon from starting: a token
/// that is away comes back, and one that refused the PIN shall not be asked again by a restart.
fn bind(part: &WalletPart) -> Result<(), StartError> {
    let wallet = part.wallet.name();
    match part.keystore.bind(part.wallet.binding().clone()) {
        Ok(()) => Ok(()),
        Err(e @ (KeystoreError::Unavailable { .. } | KeystoreError::Pin { .. } | KeystoreError::PinSource { .. })) => {
            log::error!(wallet = wallet; "wallet {wallet} cannot sign yet: {e}");
            Ok(())
        }
        Err(source) => Err(StartError::Wallet { wallet: wallet.into(), source }),
    }
}
