//! Sessions for ever: connect, serve, and when it ends pause and connect again.

use std::{path::Path, time::Duration};

use postern_protocol::{config_file, pairing::CoordinatorPublic};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    api::Api,
    config::{ConfigError, LinkConfig},
    desk::Desk,
    identity::LinkIdentity,
    keyfile::KeyFileError,
    session::{self, SessionError},
    signer::SignerSocket,
    way::{Attempt, Way, WayError, endless_backoff},
};

/// How long a stopping link goes on to deliver what the signer has answered or is answering.
const FAREWELL: Duration = Duration::from_secs(10);

/// Why the link does not start. Once it runs it never gives up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keys cannot be used.
    #[error("{0} (`postern-link init` makes the link's keys)")]
    Keys(#[from] KeyFileError),
    /// The way cannot be set up.
    #[error(transparent)]
    Way(#[from] WayError),
}

/// The link, ready to dial.
pub struct Link {
    way: Way,
    config: LinkConfig,
}

impl Link {
    /// Reads keys and the coordinator's public file. Nothing is dialled.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn new(config: LinkConfig) -> Result<Self, StartError> {
        let identity = LinkIdentity::load(&config.link.state)?;
        let coordinator = coordinator_public(&config.link.coordinator)?;
        let way = Way::new(&config, &coordinator, &identity.tls, &identity.client_auth)?;
        Ok(Self { way, config })
    }

    /// One stream, proven at both ends, for calls of one's own.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn dial(&self) -> Result<Api, SessionError> {
        Ok(Api::on(self.way.open(Attempt::new()).await?).await?)
    }

    /// Serves until `stopping` holds `true`.
    pub async fn run(self, stopping: watch::Receiver<bool>) {
        let desk = Desk::new(SignerSocket::new(self.config.link.signer.clone()), self.config.link.max_in_flight.0);
        let mut stopped = stopping.clone();
        let farewell = async {
            // A sender that is gone can ask nobody to stop: the link then serves on.
            if stopped.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
            tracing::info!("stopping; what is answered is still delivered");
            let _ = timeout(FAREWELL, desk.done()).await;
        };
        tokio::select! {
            () = self.for_ever(&desk, stopping) => {}
            () = farewell => tracing::info!("stopped"),
        }
    }

    async fn for_ever(&self, desk: &std::sync::Arc<Desk>, stopping: watch::Receiver<bool>) {
        let mut pauses = endless_backoff();
        loop {
            let mut connected = false;
            let ended = session::run(&self.way, desk, self.config.link.heartbeat, stopping.clone(), || {
                tracing::info!("connected to the coordinator");
                connected = true;
            })
            .await;
            self.way.note(connected).await;
            if connected {
                pauses = endless_backoff();
            }
            let pause = pauses.next().unwrap_or(FAREWELL);
            tracing::warn!("{ended}; dialling again in {:.1} s", pause.as_secs_f32());
            sleep(pause).await;
        }
    }
}

/// The coordinator's public file.
///
/// # Errors
/// [`ConfigError`].
pub fn coordinator_public(path: &Path) -> Result<CoordinatorPublic, ConfigError> {
    config_file::read(path)
}
