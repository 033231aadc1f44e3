//! How to get a stream to the coordinator: over Tor or directly, with the same TLS on top.

use std::{io, path::Path, sync::Arc, time::Duration};

use arti_client::{IsolationToken, StreamPrefs, TorClient, TorClientConfig};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use postern_protocol::pairing::CoordinatorPublic;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tor_rtcompat::PreferredRuntime;

use crate::{
    config::{LinkConfig, Mode},
    tls::{self, PinError, SERVER_NAME, TlsIdentity, TlsPin},
    tor::{ClientAuthKey, TorError},
};

/// Longest connect over TCP.
const DIRECT_MAX: Duration = Duration::from_secs(10);
/// Longest connect to the onion service. Arti itself may hang longer after the service restarts.
const ONION_MAX: Duration = Duration::from_secs(45);
/// Longest bootstrap of Tor.
const BOOTSTRAP_MAX: Duration = Duration::from_secs(120);
/// Longest TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// After so many failures in a row the Tor client is made anew.
const REBUILD_AFTER: u32 = 4;

/// Pauses between attempts: from half a second, doubling, with jitter, never over half a minute, never ending.
pub fn endless_backoff() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(15))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// The coordinator's public file lacks the address that the mode needs.
    #[error("the coordinator's public file has no `{0}` address, which [link] mode needs")]
    NoAddress(&'static str),
    /// An address is wrong.
    #[error("the coordinator's public file: `{0}` is not `host:port`")]
    Address(String),
    /// The pin is wrong.
    #[error("the coordinator's public file, tls_pin: {0}")]
    Pin(#[from] PinError),
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Tor cannot be set up.
    #[error(transparent)]
    Tor(#[from] TorError),
    /// Arti says no.
    #[error("Tor: {0}")]
    Arti(String),
    /// Not in time.
    #[error("{what} did not succeed within {} s", .limit.as_secs())]
    Timeout {
        /// What was tried.
        what: &'static str,
        /// For how long.
        limit: Duration,
    },
    /// Somebody else answers, or the coordinator has a new key.
    #[error("the coordinator's TLS key is not the pinned one; if its key was changed, pair again (`postern-coordinator signer add`)")]
    WrongKey,
    /// The connection or the handshake failed; also when the coordinator does not know our key.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The reason.
        cause: io::Error,
    },
}

/// Anything that carries bytes both ways.
pub trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// A stream on which both ends have proven their pinned keys.
pub type ProvenStream = TlsStream<Box<dyn Carrier>>;

/// The way to one coordinator.
pub struct Way {
    connector: TlsConnector,
    kind: Kind,
}

enum Kind {
    Direct(String),
    Tor(Box<TorWay>),
}

/// Streams of one attempt share a circuit; another attempt gets another one.
#[derive(Debug, Clone, Copy)]
pub struct Attempt(IsolationToken);

impl Attempt {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self(IsolationToken::new())
    }
}

impl Default for Attempt {
    fn default() -> Self {
        Self::new()
    }
}

impl Way {
    /// The way that the configuration describes. Nothing is dialled yet.
    ///
    /// # Errors
    /// [`WayError`].
    pub fn new(
        config: &LinkConfig,
        coordinator: &CoordinatorPublic,
        identity: &TlsIdentity,
        client_auth: &ClientAuthKey,
    ) -> Result<Self, WayError> {
        tls::install_crypto_provider();
        let pin: TlsPin = coordinator.tls_pin.parse()?;
        let connector = TlsConnector::from(tls::client_config(identity, pin)?);
        let kind = match config.link.mode {
            Mode::Direct => Kind::Direct(coordinator.direct.clone().ok_or(WayError::NoAddress("direct"))?),
            Mode::Tor => {
                let onion = coordinator.onion.as_deref().ok_or(WayError::NoAddress("onion"))?;
                Kind::Tor(Box::new(TorWay::new(config, &config.link.state, onion, client_auth)?))
            }
        };
        Ok(Self { connector, kind })
    }

    /// A stream to the coordinator, proven at both ends.
    ///
    /// # Errors
    /// [`WayError`]; never takes longer than the limits of this module.
    pub async fn open(&self, attempt: Attempt) -> Result<ProvenStream, WayError> {
        let carrier: Box<dyn Carrier> = match &self.kind {
            Kind::Direct(address) => {
                let stream = within("connecting", DIRECT_MAX, TcpStream::connect(address)).await?;
                stream.set_nodelay(true).map_err(|cause| WayError::Io { what: "connecting", cause })?;
                Box::new(stream)
            }
            Kind::Tor(tor) => Box::new(tor.connect(attempt).await?),
        };
        let name = ServerName::try_from(SERVER_NAME).map_err(|e| WayError::Io { what: "TLS handshake", cause: io::Error::other(e) })?;
        within("TLS handshake", HANDSHAKE_MAX, self.connector.connect(name, carrier)).await.map_err(name_wrong_key)
    }

    /// To be called after each attempt: enough failures in a row, and the Tor client is made anew.
    pub async fn note(&self, connected: bool) {
        if let Kind::Tor(tor) = &self.kind {
            tor.note(connected).await;
        }
    }
}

async fn within<T>(what: &'static str, limit: Duration, doing: impl Future<Output = io::Result<T>>) -> Result<T, WayError> {
    match timeout(limit, doing).await {
        Err(_) => Err(WayError::Timeout { what, limit }),
        Ok(done) => done.map_err(|cause| WayError::Io { what, cause }),
    }
}

/// Tells the one failure that an operator must hear of from those that time mends.
fn name_wrong_key(error: WayError) -> WayError {
    use rustls::{CertificateError::ApplicationVerificationFailure, Error::InvalidCertificate};
    let refused = |cause: &io::Error| {
        cause
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>())
            .is_some_and(|e| *e == InvalidCertificate(ApplicationVerificationFailure))
    };
    match error {
        WayError::Io { cause, .. } if refused(&cause) => WayError::WrongKey,
        other => other,
    }
}

type Client = Arc<TorClient<PreferredRuntime>>;

struct TorWay {
    config: TorClientConfig,
    host: String,
    port: u16,
    state: Mutex<TorState>,
}

#[derive(Default)]
struct TorState {
    client: Option<Client>,
    failures: u32,
}

impl TorWay {
    fn new(config: &LinkConfig, state: &Path, onion: &str, client_auth: &ClientAuthKey) -> Result<Self, WayError> {
        let wrong = || WayError::Address(onion.into());
        let (host, port) = onion.split_once(':').ok_or_else(wrong)?;
        if !host.ends_with(".onion") {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| wrong())?;
        let config = config.tor.client_config(state, Some((host, client_auth)))?;
        Ok(Self { config, host: host.into(), port, state: Mutex::default() })
    }

    async fn connect(&self, attempt: Attempt) -> Result<arti_client::DataStream, WayError> {
        let client = self.bootstrapped().await?;
        let mut prefs = StreamPrefs::new();
        prefs.set_isolation(attempt.0);
        match timeout(ONION_MAX, client.connect_with_prefs((self.host.as_str(), self.port), &prefs)).await {
            Err(_) => Err(WayError::Timeout { what: "connecting to the onion service", limit: ONION_MAX }),
            Ok(connected) => connected.map_err(|e| WayError::Arti(report(&e))),
        }
    }

    async fn bootstrapped(&self) -> Result<Client, WayError> {
        let mut state = self.state.lock().await;
        let client = match &state.client {
            Some(client) => client.clone(),
            None => {
                let made = TorClient::builder().config(self.config.clone()).create_unbootstrapped_async().await;
                state.client.insert(made.map_err(|e| WayError::Arti(report(&e)))?).clone()
            }
        };
        drop(state);
        match timeout(BOOTSTRAP_MAX, client.bootstrap()).await {
            Err(_) => Err(WayError::Timeout { what: "bootstrapping Tor", limit: BOOTSTRAP_MAX }),
            Ok(done) => done.map(|()| client).map_err(|e| WayError::Arti(report(&e))),
        }
    }

    async fn note(&self, connected: bool) {
        let mut state = self.state.lock().await;
        state.failures = if connected { 0 } else { state.failures.saturating_add(1) };
        if state.failures >= REBUILD_AFTER {
            tracing::warn!("{} attempts failed in a row; the Tor client is made anew", state.failures);
            *state = TorState::default();
        }
    }
}

/// An error with its causes in one line; Arti keeps them one below the other.
#[must_use]
pub fn report(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    text
}
