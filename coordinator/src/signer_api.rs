//! The signers' API behind the door: work out, replies and signed reports in. Who asks is what the door says ([`SignerName`]), and
//! nothing else.

mod nonces;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use postern_protocol::{
    api::{Base64, Heartbeat, PULL_WAIT_MAX_MS, Pull, Pulled, Reply, Request},
    attest::EVENT_LOG_MAX,
    canonical,
    frame::FRAME_MAX,
    heartbeat::{self, HEARTBEAT_MAX},
    reply::ReplyBody,
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{
    api::error::ApiError,
    app::App,
    attestation,
    clock::now_ms,
    door::SignerName,
    store::{RequestKind, SignerRow},
};
use nonces::Nonces;

/// Largest `pull`.
const PULL_MAX: usize = 256 * 1024;
/// Largest reply: a frame in base64, with its JSON.
const REPLY_MAX: usize = FRAME_MAX / 3 * 4 + 64 * 1024;
/// Largest statement of what was booted, with its event log.
const ATTESTED_MAX: usize = EVENT_LOG_MAX + 64 * 1024;
/// By how much our clock and a signer's may part between two reports. When they part more, a signer is asked once too often.
const CLOCKS_MS: i64 = 2_000;
/// Most requests in one answer.
const CAPACITY_MAX: u32 = 64;
/// Most ids that a link may name as in flight.
const IN_FLIGHT_MAX: usize = 2_000;
/// Longest id.
const ID_MAX: usize = 64;
/// Bodies in one answer, in bytes; one larger than that comes alone.
const PULLED_BYTES: usize = 8 * 1024 * 1024;
/// Another process may have added work: looked at so often.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is noted that a signer's link is there.
const NOTE_PULL_MS: i64 = 5_000;

struct SignerApi {
    app: Arc<App>,
    nonces: Nonces,
    pulled: Mutex<HashMap<Arc<str>, i64>>,
}

/// The router for [`crate::door::Door::serve`].
pub fn router(app: Arc<App>) -> Router {
    let state = Arc::new(SignerApi { app, nonces: Nonces::default(), pulled: Mutex::default() });
    Router::new()
        .route("/signer/v1/pull", post(pull).layer(DefaultBodyLimit::max(PULL_MAX)))
        .route("/signer/v1/replies", post(reply).layer(DefaultBodyLimit::max(REPLY_MAX)))
        .route("/signer/v1/heartbeat", post(heartbeat_in).layer(DefaultBodyLimit::max(HEARTBEAT_MAX * 2)))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "request.unknown_path", "there is nothing here") })
        .with_state(state)
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| ApiError::malformed(e.to_string()))
}

impl SignerApi {
    async fn signer(&self, name: &SignerName) -> Result<SignerRow, ApiError> {
        let found = self.app.store.signers().await?.into_iter().find(|s| *s.name == *name.0);
        found.ok_or_else(|| ApiError::new(StatusCode::FORBIDDEN, "signer.unpaired", "this signer is not paired any more"))
    }

    async fn note_pull(&self, name: &Arc<str>, now: i64) -> Result<(), ApiError> {
        let due = {
            let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
            let last = pulled.entry(name.clone()).or_insert(0);
            let due = last.saturating_add(NOTE_PULL_MS) <= now;
            if due {
                *last = now;
            }
            due
        };
        if due {
            self.app.store.pulled(name, now).await?;
        }
        Ok(())
    }
}

async fn pull(State(api): State<Arc<SignerApi>>, Extension(name): Extension<SignerName>, body: Bytes) -> Result<Response, ApiError> {
    let pull: Pull = parse(&body)?;
    if pull.in_flight.len() > IN_FLIGHT_MAX || pull.in_flight.iter().any(|id| id.len() > ID_MAX) {
        return Err(ApiError::malformed(format!("at most {IN_FLIGHT_MAX} ids of at most {ID_MAX} characters are in flight")));
    }
    api.signer(&name).await?;
    let (started, longest) = (Instant::now(), Duration::from_millis(pull.wait_ms.min(PULL_WAIT_MAX_MS)));
    let (capacity, attested) = (pull.capacity.min(CAPACITY_MAX), api.app.config.attests(&name.0));
    loop {
        let now = now_ms();
        api.note_pull(&name.0, now).await?;
        let rung = api.app.requests.notified();
        let taken = match capacity {
            0 => Vec::new(),
            _ => api.app.store.take_requests(&name.0, attested, capacity, PULLED_BYTES, &pull.in_flight, now).await?,
        };
        let left = longest.saturating_sub(started.elapsed());
        if !taken.is_empty() || left.is_zero() {
            let requests = taken.into_iter().map(|(id, body)| Request { id, body: Base64(body) }).collect();
            let pulled = Pulled { requests, heartbeat_nonce: Base64(api.nonces.give(&name.0, now)) };
            return Ok(axum::Json(pulled).into_response());
        }
        tokio::select! {
            () = rung => {}
            () = tokio::time::sleep(left.min(LOOK)) => {}
        }
    }
}

async fn reply(State(api): State<Arc<SignerApi>>, Extension(name): Extension<SignerName>, body: Bytes) -> Result<StatusCode, ApiError> {
    let reply: Reply = parse(&body)?;
    let unknown = || ApiError::new(StatusCode::NOT_FOUND, "reply.unknown_request", "no such request was handed to this signer");
    let request = api.app.store.request(&reply.id).await?.filter(|r| *r.signer == *name.0).ok_or_else(unknown)?;
    if request.kind == RequestKind::Attest && reply.body.0.len() > ATTESTED_MAX {
        return Err(ApiError::malformed(format!("a statement has at most {ATTESTED_MAX} bytes")));
    }
    let answer: ReplyBody = canonical::from_slice(&reply.body.0).map_err(|e| ApiError::malformed(format!("body: {e}")))?;
    let fits = matches!(
        (request.kind, &answer),
        (RequestKind::Sign, ReplyBody::Signed(_))
            | (RequestKind::Addresses, ReplyBody::Addresses(_))
            | (RequestKind::Attest, ReplyBody::Attested(_))
            | (_, ReplyBody::Refused(_))
    );
    if !fits {
        return Err(ApiError::malformed("the reply answers another question".to_owned()));
    }
    if api.app.store.reply(&reply.id, &name.0, &reply.body.0, now_ms()).await? {
        api.app.work.notify_waiters();
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn heartbeat_in(
    State(api): State<Arc<SignerApi>>,
    Extension(name): Extension<SignerName>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let Heartbeat { cose } = parse(&body)?;
    let signer = api.signer(&name).await?;
    let refused = |e: &dyn std::fmt::Display| {
        tracing::error!(signer = signer.name, "heartbeat: {e}");
        ApiError::new(StatusCode::FORBIDDEN, "heartbeat.refused", e.to_string())
    };
    let report = api
        .nonces
        .recent(&name.0)
        .iter()
        .map(|nonce| heartbeat::verify(&cose.0, &signer.signer_key, nonce))
        .reduce(|found, next| if found.is_ok() { found } else { next })
        .unwrap_or(Err(heartbeat::HeartbeatError::Nonce))
        .map_err(|e| refused(&e))?;
    let network = api.app.config.coordinator.network.to_string();
    if report.network != network {
        return Err(refused(&format!("the signer is for {}, the coordinator for {network}", report.network)));
    }
    // A report counts once.
    let given = api.nonces.spend(&name.0, &report.nonce).ok_or_else(|| refused(&heartbeat::HeartbeatError::Nonce))?;
    let json = serde_json::to_string(&report).map_err(|e| ApiError::malformed(e.to_string()))?;
    let now = now_ms();
    let before: Option<heartbeat::Heartbeat> = signer.heartbeat.as_deref().and_then(|json| serde_json::from_str(json).ok());
    api.app.store.heartbeat(&signer.name, &json, now).await?;
    let before_came = signer.heartbeat_at.unwrap_or(now);
    if before.as_ref().is_some_and(|before| restarted((before.uptime_ms, before_came), (report.uptime_ms, given))) {
        attestation::restarted(&api.app, &signer.name, now).await?;
    }
    // A command may have let more out: what waits for one is asked again at once.
    if before.is_none_or(|before| changed(&before, &report)) && api.app.store.wake_needs(&signer.name, now).await? > 0 {
        api.app.requests.notify_waiters();
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a signer was restarted between two reports: an uptime and when it came, and an uptime and when its nonce was given. The first was
/// made before it came and the second after that, so however long reports are on their way, no restart is seen that was none.
fn restarted(before: (u64, i64), now: (u64, i64)) -> bool {
    let start = |(uptime_ms, at): (u64, i64)| at.saturating_sub(i64::try_from(uptime_ms).unwrap_or(i64::MAX));
    now.0 < before.0 || start(now) > start(before).saturating_add(CLOCKS_MS)
}

/// Whether something changed that a `needs` may have waited for.
fn changed(before: &heartbeat::Heartbeat, now: &heartbeat::Heartbeat) -> bool {
    let totals = |h: &heartbeat::Heartbeat| -> Vec<(String, String, u64)> {
        h.limits.iter().map(|l| (l.scope.clone(), l.name.clone(), l.capacity_sat)).collect()
    };
    let more = |h: &heartbeat::Heartbeat, b: &heartbeat::Heartbeat| {
        h.limits
            .iter()
            .any(|l| l.per_ms == 0 && b.limits.iter().any(|o| o.scope == l.scope && o.name == l.name && o.available_sat < l.available_sat))
    };
    before.frozen != now.frozen
        || before.policy_hash != now.policy_hash
        || before.keystores_down != now.keystores_down
        || now.uptime_ms < before.uptime_ms
        || totals(before) != totals(now)
        || more(now, before)
}

#[cfg(test)]
mod tests;
