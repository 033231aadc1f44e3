//! A link and a door that are paired, each in folders of their own.

use std::{path::Path, sync::Arc, time::Duration};

use postern_coordinator::door::{self, Door, DoorTable, OnionKind, OnionTable, PairedSigner, PinTable};
use postern_link::{
    config::{InFlight, LinkConfig, LinkTable, Mode},
    daemon::Link,
    identity::LinkIdentity,
    tls::TlsPin,
    tor::TorTable,
};
use postern_protocol::pairing::CoordinatorPublic;
use tempfile::TempDir;
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use crate::{office::Office, vault::Vault};

pub(crate) const SIGNER: &str = "vault-1";

pub(crate) struct Stage {
    pub(crate) folder: TempDir,
    pub(crate) office: Arc<Office>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) pins: PinTable,
    pub(crate) table: DoorTable,
}

/// A daemon on a runtime of its own, as in a process of its own: when it is killed, all that it held is gone at once.
pub(crate) struct Running {
    stop: watch::Sender<bool>,
    kill: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl Running {
    fn start<F: Future<Output = ()>>(daemon: impl FnOnce(watch::Receiver<bool>) -> F + Send + 'static) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (kill, killed) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = daemon(stopping) => {}
                    _ = killed => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(10));
            let _ = end.send(());
        });
        Self { stop, kill: Some(kill), ended }
    }

    /// Asks it to end, and waits.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        timeout(Duration::from_secs(30), &mut self.ended).await.expect("it ends when it is asked to").unwrap();
    }

    /// Ends it as a crash does.
    pub(crate) async fn kill(mut self) {
        self.kill.take();
        (&mut self.ended).await.unwrap();
    }
}

impl Stage {
    /// A door that listens directly, with its vault listening too. One link is paired.
    pub(crate) fn direct() -> Self {
        Self::new(Some("127.0.0.1:0".into()), OnionTable::default(), TorTable::default())
    }

    pub(crate) fn onion(private_network: &Path) -> Self {
        let tor = TorTable { private_network: Some(private_network.into()), ..TorTable::default() };
        Self::new(None, OnionTable { kind: OnionKind::Arti, ..OnionTable::default() }, tor)
    }

    pub(crate) fn new(direct: Option<String>, onion: OnionTable, tor: TorTable) -> Self {
        let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init();
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::new(&folder.path().join("signer.sock"));
        let table = DoorTable { state: folder.path().join("door"), direct, onion, tor };
        let stage = Self { office: Arc::default(), vault, pins: PinTable::new(vec![]), table, folder };
        stage.pins.replace(vec![stage.paired("link")]);
        stage
    }

    /// The link with its keys in this folder, as the coordinator knows it.
    pub(crate) fn paired(&self, link: &str) -> PairedSigner {
        let public = LinkIdentity::load_or_create(&self.folder.path().join(link)).unwrap().public(self.vault.public_key());
        PairedSigner { name: SIGNER.into(), tls_pin: public.tls_pin.parse().unwrap(), client_auth: public.client_auth.parse().unwrap() }
    }

    /// Opens the door. The direct port stays the same from the first time on.
    pub(crate) async fn open_door(&mut self) -> Running {
        let (table, pins, router) = (self.table.clone(), self.pins.clone(), self.office.router());
        let (ready, opened) = oneshot::channel();
        let running = Running::start(async move |stopping| {
            let door = Door::open(&table, Arc::new(pins)).await.unwrap();
            ready.send(door.direct_address()).unwrap();
            door.serve(router, stopping).await;
        });
        if let Some(address) = opened.await.unwrap() {
            self.table.direct = Some(address.to_string());
        }
        running
    }

    pub(crate) fn coordinator_public(&self) -> CoordinatorPublic {
        let identity = door::identity(&self.table).unwrap();
        CoordinatorPublic { tls_pin: identity.tls_pin.to_string(), onion: identity.onion, direct: self.table.direct.clone() }
    }

    /// The configuration of the link with its keys in this folder.
    pub(crate) fn link_config(&self, link: &str) -> LinkConfig {
        let coordinator = self.folder.path().join(format!("{link}-coordinator.toml"));
        std::fs::write(&coordinator, toml::to_string(&self.coordinator_public()).unwrap()).unwrap();
        let mode = if self.table.onion.kind == OnionKind::None { Mode::Direct } else { Mode::Tor };
        LinkConfig {
            link: LinkTable {
                state: self.folder.path().join(link),
                signer: self.vault.path.clone(),
                coordinator,
                mode,
                max_in_flight: InFlight(16),
                heartbeat: Duration::from_secs(1),
            },
            tor: self.table.tor.clone(),
        }
    }

    pub(crate) fn start_link(&self, link: &str) -> Running {
        let config = self.link_config(link);
        Running::start(async move |stopping| Link::new(config).unwrap().run(stopping).await)
    }
}

/// A pin that is nobody's.
pub(crate) fn strangers_pin() -> TlsPin {
    TlsPin::of_spki(b"somebody else")
}
