//! The door: where signers' links come in, over mutual TLS 1.3 with pinned keys, and nobody else.
//!
//! Three ways lead to the same TLS and the same router: an onion service in this process (Arti), an onion service of a C Tor
//! beside it, and plain TCP for a LAN. None of them is trusted; the pinned key inside is. A connection belongs to one signer: its name stands in
//! each request's extensions as [`SignerName`], and is the only thing a handler may believe about who asks. When a signer is unpaired its
//! connections end.
//!
//! ```ignore
//! let pins = PinTable::new(store.paired_signers().await?);
//! let door = Door::open(&config.door, Arc::new(pins.clone())).await?;
//! door.serve(router, shutdown).await;
//! ```

mod config;
mod external;
mod identity;
mod onion;
mod pins;
mod serve;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::Router;
use postern_link::{
    keyfile::KeyFileError,
    tls::{self, TlsIdentity},
    tor::TorError,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
};

pub use config::{DoorTable, OnionKind, OnionTable};
pub use identity::{DoorIdentity, identity};
pub use pins::{PairedSigner, PinTable, Pins, SignerName};

use serve::Guests;

/// Why the door does not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The TLS key cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// Tor cannot be set up.
    #[error(transparent)]
    Tor(#[from] TorError),
    /// The onion service cannot be set up.
    #[error("onion service: {0}")]
    Onion(String),
    /// An address cannot be listened on.
    #[error("[door] cannot listen on {address}: {cause}")]
    Listen {
        /// Where.
        address: String,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// The table does not hold together.
    #[error("[door] {0}")]
    Config(String),
}

/// A door whose listeners are bound and whose keys are there.
pub struct Door {
    guests: Arc<Guests>,
    direct: Option<TcpListener>,
    onion: OnionWay,
    state: PathBuf,
}

enum OnionWay {
    None,
    Arti(Box<onion::ArtiService>),
    ExternalTcp(TcpListener, external::AuthorizedClients),
    ExternalUnix(UnixListener, external::AuthorizedClients),
}

impl Door {
    /// Makes keys that are missing and binds the listeners. Connections are accepted from [`Self::serve`] on.
    ///
    /// # Errors
    /// [`DoorError`].
    pub async fn open(table: &DoorTable, pins: Arc<dyn Pins>) -> Result<Self, DoorError> {
        table.validate()?;
        tls::install_crypto_provider();
        postern_link::keyfile::private_folder(&table.state)?;
        let identity = TlsIdentity::load_or_create(&identity::tls_key_path(&table.state))?;
        let guests = Arc::new(Guests::new(&identity, pins)?);
        let direct = match &table.direct {
            None => None,
            Some(address) => Some(bind_tcp(address).await?),
        };
        let onion = match table.onion.kind {
            OnionKind::None => OnionWay::None,
            OnionKind::Arti => OnionWay::Arti(Box::new(onion::ArtiService::new(table)?)),
            OnionKind::External => external::listen(table).await?,
        };
        Ok(Self { guests, direct, onion, state: table.state.clone() })
    }

    /// The address of the direct way, with the port that the system chose when the table says 0.
    #[must_use]
    pub fn direct_address(&self) -> Option<SocketAddr> {
        self.direct.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// Serves `router` until `shutdown` holds `true` or its sender is gone; then answers what is being answered, for a few seconds.
    pub async fn serve(self, router: Router, shutdown: watch::Receiver<bool>) {
        let mut ways = JoinSet::new();
        if let Some(listener) = self.direct {
            ways.spawn(serve::tcp(self.guests.clone(), listener, router.clone(), shutdown.clone()));
        }
        match self.onion {
            OnionWay::None => {}
            OnionWay::Arti(service) => {
                ways.spawn(service.serve(self.guests.clone(), router, shutdown.clone()));
            }
            OnionWay::ExternalTcp(listener, clients) => {
                ways.spawn(clients.keep_current(self.guests.pins(), shutdown.clone()));
                ways.spawn(serve::tcp(self.guests.clone(), listener, router, shutdown.clone()));
            }
            OnionWay::ExternalUnix(listener, clients) => {
                ways.spawn(clients.keep_current(self.guests.pins(), shutdown.clone()));
                ways.spawn(serve::unix(self.guests.clone(), listener, router, shutdown.clone()));
            }
        }
        tracing::info!(state = %self.state.display(), "the door is open");
        while ways.join_next().await.is_some() {}
        self.guests.leave().await;
        tracing::info!("the door is closed");
    }
}

/// [`Door::open`] and [`Door::serve`] in one.
///
/// # Errors
/// [`DoorError`] when it does not open.
pub async fn serve(table: &DoorTable, router: Router, pins: Arc<dyn Pins>, shutdown: watch::Receiver<bool>) -> Result<(), DoorError> {
    Door::open(table, pins).await?.serve(router, shutdown).await;
    Ok(())
}

async fn bind_tcp(address: &str) -> Result<TcpListener, DoorError> {
    TcpListener::bind(address).await.map_err(|cause| DoorError::Listen { address: address.into(), cause })
}
