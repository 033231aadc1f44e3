//! One time of being connected: a stream that pulls, and a few that deliver. It ends when any of them fails; the desk stays.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::select_all;
use postern_protocol::api::{PULL_WAIT_MAX_MS, Pull, Pulled};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    api::{Api, ApiError, CALL_MAX, PULLED_MAX},
    desk::{Desk, Parcel},
    way::{Attempt, Way, WayError},
};

/// Streams that deliver. Replies wait for one round trip each, so a few of them go side by side.
const DELIVERING: usize = 3;
/// Longest wait for the signer's report.
const REPORT_MAX: Duration = Duration::from_secs(30);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No stream.
    #[error(transparent)]
    Way(#[from] WayError),
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// Serves the desk until something fails. `connected` is called once the coordinator has answered a first time; after `stopping` holds
/// `true` nothing more is taken, and what is there is still delivered.
pub async fn run(
    way: &Way,
    desk: &Arc<Desk>,
    heartbeat: Duration,
    stopping: watch::Receiver<bool>,
    connected: impl FnOnce(),
) -> SessionError {
    let attempt = Attempt::new();
    let delivering = select_all((0..DELIVERING).map(|_| Box::pin(deliver(way, attempt, desk))));
    tokio::select! {
        ended = pull(way, attempt, desk, heartbeat, stopping, connected) => ended,
        (ended, _, _) = delivering => ended,
    }
}

async fn open(way: &Way, attempt: Attempt) -> Result<Api, SessionError> {
    Ok(Api::on(way.open(attempt).await?).await?)
}

async fn pull(
    way: &Way,
    attempt: Attempt,
    desk: &Arc<Desk>,
    heartbeat: Duration,
    mut stopping: watch::Receiver<bool>,
    connected: impl FnOnce(),
) -> SessionError {
    let mut api = match open(way, attempt).await {
        Ok(api) => api,
        Err(e) => return e,
    };
    let mut connected = Some(connected);
    let mut reported: Option<Instant> = None;
    let mut reports = JoinSet::new();
    let wait = heartbeat.min(Duration::from_millis(PULL_WAIT_MAX_MS));
    loop {
        let (capacity, in_flight) = tokio::select! {
            room = desk.room() => room,
            _ = stopping.wait_for(|stop| *stop) => std::future::pending().await,
        };
        // The first pull comes back at once: its answer proves the connection and brings the first nonce.
        let wait = if connected.is_some() { Duration::ZERO } else { wait };
        let call = Pull { capacity, wait_ms: u64::try_from(wait.as_millis()).unwrap_or(PULL_WAIT_MAX_MS), in_flight };
        let pulled: Pulled = tokio::select! {
            pulled = api.call("/signer/v1/pull", &call, PULLED_MAX, wait.saturating_add(CALL_MAX)) => match pulled {
                Ok(pulled) => pulled,
                Err(e) => return e.into(),
            },
            _ = stopping.wait_for(|stop| *stop) => std::future::pending().await,
        };
        if let Some(connected) = connected.take() {
            connected();
        }
        if !pulled.requests.is_empty() {
            tracing::info!(requests = pulled.requests.len(), "taken");
        }
        desk.take(pulled.requests);
        while reports.try_join_next().is_some() {}
        if reports.is_empty() && reported.is_none_or(|at| at.elapsed() >= heartbeat) {
            reported = Some(Instant::now());
            let (desk, nonce) = (desk.clone(), pulled.heartbeat_nonce.0);
            reports.spawn(async move {
                // An old nonce is worth nothing.
                let _ = timeout(REPORT_MAX, desk.report(nonce)).await;
            });
        }
    }
}

async fn deliver(way: &Way, attempt: Attempt, desk: &Arc<Desk>) -> SessionError {
    let mut connection: Option<Api> = None;
    loop {
        let delivery = desk.next().await;
        let api = match &mut connection {
            Some(api) => api,
            // Opened when there is something: an idle link holds two streams.
            None => match open(way, attempt).await {
                Ok(api) => connection.insert(api),
                Err(e) => return e,
            },
        };
        let told = match delivery.parcel() {
            None => continue,
            Some(Parcel::Reply(reply)) => api.tell("/signer/v1/replies", reply).await,
            Some(Parcel::Heartbeat(heartbeat)) => api.tell("/signer/v1/heartbeat", heartbeat).await,
        };
        match told {
            Ok(()) => delivery.acknowledged(),
            Err(e) if e.is_final() => {
                tracing::error!("the coordinator does not take what the signer said, and will not: {e}");
                delivery.acknowledged();
            }
            Err(e) => return e.into(),
        }
    }
}
