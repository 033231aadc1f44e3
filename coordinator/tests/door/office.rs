//! The signer API in memory: what is handed out, answered and reported can be looked at.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::DefaultBodyLimit,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use postern_coordinator::door::SignerName;
use postern_protocol::{
    api::{Base64, Heartbeat, Pull, Pulled, Reply, Request},
    canonical,
    reply::ReplyBody,
    request::RequestBody,
};
use tokio::{sync::watch, time::timeout};

/// Tor may take minutes to route around a relay that died.
const PATIENCE: Duration = Duration::from_secs(220);

#[derive(Default)]
pub(crate) struct Office {
    books: Mutex<Books>,
    changed: watch::Sender<()>,
    /// Replies to answer with 503 before one is taken.
    pub(crate) refuse_replies: AtomicUsize,
    /// Pulls to answer with this instead.
    pub(crate) nonsense: Mutex<Vec<Bytes>>,
}

#[derive(Default)]
pub(crate) struct Books {
    open: Vec<Request>,
    pub(crate) replies: BTreeMap<String, Vec<Vec<u8>>>,
    /// Signer and COSE.
    pub(crate) heartbeats: Vec<(String, Vec<u8>)>,
    pub(crate) nonces: Vec<Vec<u8>>,
    pub(crate) pulls: usize,
    /// Most that the link ever held plus could take.
    pub(crate) most_in_flight: usize,
}

impl Office {
    pub(crate) fn router(self: &Arc<Self>) -> Router {
        let routes = Router::new()
            .route("/signer/v1/pull", post(pull))
            .route("/signer/v1/replies", post(reply))
            .route("/signer/v1/heartbeat", post(heartbeat));
        routes.layer(Extension(self.clone())).layer(DefaultBodyLimit::max(32 * 1024 * 1024))
    }

    pub(crate) fn order(&self, id: &str, body: &RequestBody) {
        self.books.lock().unwrap().open.push(Request { id: id.into(), body: Base64(canonical::to_vec(body)) });
        self.changed.send_replace(());
    }

    /// Waits until the books show something.
    pub(crate) async fn when<T>(&self, what: &str, mut look: impl FnMut(&Books) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        let waited = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = look(&self.books.lock().unwrap()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    pub(crate) async fn answer(&self, id: &str) -> ReplyBody {
        let bytes = self.when(id, |books| books.replies.get(id).and_then(|r| r.first().cloned())).await;
        canonical::from_slice(&bytes).unwrap()
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Books) -> T) -> T {
        look(&self.books.lock().unwrap())
    }
}

async fn pull(
    Extension(office): Extension<Arc<Office>>,
    Extension(SignerName(_)): Extension<SignerName>,
    Json(pull): Json<Pull>,
) -> Response {
    if let Some(nonsense) = office.nonsense.lock().unwrap().pop() {
        return nonsense.into_response();
    }
    let ready = |books: &mut Books| {
        let wanted = |r: &&Request| !books.replies.contains_key(&r.id) && !pull.in_flight.contains(&r.id);
        let requests: Vec<Request> = books.open.iter().filter(wanted).take(usize::try_from(pull.capacity).unwrap()).cloned().collect();
        (!requests.is_empty()).then_some(requests)
    };
    let mut changes = office.changed.subscribe();
    office.books.lock().unwrap().pulls += 1;
    office.changed.send_replace(());
    let waited = async {
        loop {
            changes.mark_unchanged();
            if let Some(requests) = ready(&mut office.books.lock().unwrap()) {
                return requests;
            }
            changes.changed().await.unwrap();
        }
    };
    let requests = timeout(Duration::from_millis(pull.wait_ms), waited).await.unwrap_or_default();
    let mut books = office.books.lock().unwrap();
    books.most_in_flight = books.most_in_flight.max(requests.len() + pull.in_flight.len());
    let nonce = u64::try_from(books.nonces.len()).unwrap().to_be_bytes().to_vec();
    books.nonces.push(nonce.clone());
    Json(Pulled { requests, heartbeat_nonce: Base64(nonce) }).into_response()
}

async fn reply(Extension(office): Extension<Arc<Office>>, Json(reply): Json<Reply>) -> StatusCode {
    let refuse = office.refuse_replies.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if refuse.is_ok() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    office.books.lock().unwrap().replies.entry(reply.id).or_default().push(reply.body.0);
    office.changed.send_replace(());
    StatusCode::NO_CONTENT
}

async fn heartbeat(
    Extension(office): Extension<Arc<Office>>,
    Extension(SignerName(name)): Extension<SignerName>,
    Json(heartbeat): Json<Heartbeat>,
) -> StatusCode {
    office.books.lock().unwrap().heartbeats.push((name.to_string(), heartbeat.cose.0));
    office.changed.send_replace(());
    StatusCode::NO_CONTENT
}
