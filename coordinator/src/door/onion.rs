//! The onion service in this process. Only paired links can find it (restricted discovery); with none paired it is not published at all.

use std::{pin::Pin, sync::Arc, time::Duration};

use arti_client::{
    TorClient, TorClientConfig,
    config::onion_service::{OnionServiceConfig, OnionServiceConfigBuilder},
};
use axum::Router;
use futures::{Stream, StreamExt as _};
use postern_link::way::{endless_backoff, report};
use safelog::DisplayRedacted as _;
use tokio::sync::watch;
use tor_cell::relaycell::msg::Connected;
use tor_hsservice::{RunningOnionService, StreamRequest, handle_rend_requests};
use tor_keymgr::KeystoreSelector;
use tor_proto::stream::IncomingStreamRequest;
use tor_rtcompat::PreferredRuntime;

use super::{
    DoorError, DoorTable, PairedSigner,
    config::ONION_PORT,
    serve::{Guests, stopped},
};

/// The service's name in Arti's state.
const NICKNAME: &str = "postern-door";
/// Longest bootstrap before it is tried anew.
const BOOTSTRAP_MAX: Duration = Duration::from_secs(120);
/// After so many failures in a row the Tor client is made anew.
const REBUILD_AFTER: u32 = 3;

type Client = TorClient<PreferredRuntime>;
type Signers = Arc<[PairedSigner]>;

/// Set up, not yet running.
pub(super) struct ArtiService {
    config: TorClientConfig,
}

fn onion_error(e: impl std::fmt::Display) -> DoorError {
    DoorError::Onion(e.to_string())
}

/// The onion address; makes its key when there is none. Connects to nothing.
pub(super) fn address(table: &DoorTable) -> Result<String, DoorError> {
    let config = table.tor.client_config(&table.state, None)?;
    let mut service = OnionServiceConfigBuilder::default();
    service.nickname(NICKNAME.parse().map_err(onion_error)?);
    let service = service.build().map_err(onion_error)?;
    // Arti wants a runtime even for a client that does nothing; outside of one it gets its own.
    let runtime = PreferredRuntime::current().or_else(|_| PreferredRuntime::create()).map_err(onion_error)?;
    let inert = TorClient::with_runtime(runtime).config(config.clone()).create_inert().map_err(onion_error)?;
    let service = inert.create_onion_service(&config, service).map_err(onion_error)?;
    let id = service.generate_identity_key(KeystoreSelector::Primary).map_err(onion_error)?;
    Ok(id.display_unredacted().to_string())
}

/// The configuration under which exactly these signers find the service. Arti refuses one without any.
fn service_config(signers: &[PairedSigner]) -> Result<OnionServiceConfig, DoorError> {
    let mut config = OnionServiceConfigBuilder::default();
    config.nickname(NICKNAME.parse().map_err(onion_error)?);
    let restricted = config.restricted_discovery();
    restricted.enabled(true);
    for signer in signers {
        let key = signer.client_auth.to_string();
        // Arti's nickname for a client allows fewer characters than a signer's name; the key is unique and fits.
        let nickname = key.rsplit(':').next().unwrap_or(&key).to_ascii_lowercase();
        restricted.static_keys().access().push((nickname.parse().map_err(onion_error)?, key.parse().map_err(onion_error)?));
    }
    config.build().map_err(onion_error)
}

/// Why one time of being published ended.
enum Ended {
    Shutdown,
    SignersChanged,
    Broken(DoorError),
}

/// A launched service: its handle, which keeps it up, and the streams that come in.
type Launched = (Arc<RunningOnionService>, BoxStream);

impl ArtiService {
    pub(super) fn new(table: &DoorTable) -> Result<Self, DoorError> {
        Ok(Self { config: table.tor.client_config(&table.state, None)? })
    }

    /// Publishes the service for as long as somebody is paired, and hands its streams over. Starts anew, for ever, when Tor fails.
    pub(super) async fn serve(self, guests: Arc<Guests>, router: Router, mut shutdown: watch::Receiver<bool>) {
        let mut pins = guests.pins();
        let mut pauses = endless_backoff();
        let mut client = None;
        let mut failures: u32 = 0;
        loop {
            tokio::select! {
                waited = pins.wait_for(|signers| !signers.is_empty()) => if waited.is_err() { return },
                () = stopped(&mut shutdown) => return,
            }
            let signers = pins.borrow_and_update().clone();
            let launched = tokio::select! {
                launched = self.launch(&mut client, &signers) => launched,
                () = stopped(&mut shutdown) => return,
            };
            let ended = match launched {
                Ok(service) => {
                    failures = 0;
                    pauses = endless_backoff();
                    publish(service, &guests, &router, &mut pins, &mut shutdown).await
                }
                Err(e) => Ended::Broken(e),
            };
            match ended {
                Ended::Shutdown => return,
                Ended::SignersChanged => {
                    tracing::info!(signers = pins.borrow().len(), "the paired signers changed: published anew for them")
                }
                Ended::Broken(e) => {
                    failures = failures.saturating_add(1);
                    if failures >= REBUILD_AFTER {
                        client = None;
                    }
                    let pause = pauses.next().unwrap_or(BOOTSTRAP_MAX);
                    tracing::warn!("{e}; starting anew in {:.1} s", pause.as_secs_f32());
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = stopped(&mut shutdown) => return,
                    }
                }
            }
        }
    }

    /// A change of signers launches the service anew instead of reconfiguring it: Arti publishes a changed descriptor at most once a
    /// minute, and a new link should not wait for that. Streams that are open stay open.
    async fn launch(&self, client: &mut Option<Arc<Client>>, signers: &[PairedSigner]) -> Result<Launched, DoorError> {
        let config = service_config(signers)?;
        let client = match client {
            Some(client) => client,
            None => client.insert(self.bootstrapped().await?),
        };
        let launched = client.launch_onion_service(config).map_err(|e| onion_error(report(&e)))?;
        let (service, rendezvous) = launched.ok_or_else(|| onion_error("Arti did not launch it"))?;
        tracing::info!("onion service launched");
        Ok((service, Box::pin(handle_rend_requests(rendezvous))))
    }

    async fn bootstrapped(&self) -> Result<Arc<Client>, DoorError> {
        let client = TorClient::builder().config(self.config.clone()).create_unbootstrapped_async().await.map_err(onion_error)?;
        match tokio::time::timeout(BOOTSTRAP_MAX, client.bootstrap()).await {
            Ok(Ok(())) => Ok(client),
            Ok(Err(e)) => Err(onion_error(report(&e))),
            Err(_) => Err(DoorError::Onion(format!("Tor did not bootstrap within {} s", BOOTSTRAP_MAX.as_secs()))),
        }
    }
}

type BoxStream = Pin<Box<dyn Stream<Item = StreamRequest> + Send>>;

async fn publish(
    (service, mut streams): Launched,
    guests: &Arc<Guests>,
    router: &Router,
    pins: &mut watch::Receiver<Signers>,
    shutdown: &mut watch::Receiver<bool>,
) -> Ended {
    let ended = loop {
        tokio::select! {
            stream = streams.next() => match stream {
                None => break Ended::Broken(onion_error("Tor ended it")),
                Some(request) => drop(tokio::spawn(welcome(request, guests.clone(), router.clone(), shutdown.clone()))),
            },
            changed = pins.changed() => break if changed.is_ok() { Ended::SignersChanged } else { Ended::Shutdown },
            () = stopped(shutdown) => break Ended::Shutdown,
        }
    };
    drop(service);
    ended
}

/// Takes a stream to our port in; a client that wants anything else loses its circuit.
async fn welcome(request: StreamRequest, guests: Arc<Guests>, router: Router, shutdown: watch::Receiver<bool>) {
    let ours = matches!(request.request(), IncomingStreamRequest::Begin(begin) if begin.port() == ONION_PORT);
    if !ours {
        if let Err(e) = request.shutdown_circuit() {
            tracing::debug!("a circuit could not be ended: {e}");
        }
        return;
    }
    match request.accept(Connected::new_empty()).await {
        Ok(stream) => guests.welcome(stream, "onion", router, shutdown),
        Err(e) => tracing::info!("an onion stream could not be accepted: {e}"),
    }
}
