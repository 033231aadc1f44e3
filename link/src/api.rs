//! Calls to the coordinator's signer API ([`postern_protocol::api`]) over one proven stream. Sizes are capped both ways and every
//! call has its time.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{task::JoinHandle, time::timeout};

use crate::way::Carrier;

/// Largest answer to a pull, in bytes: one request of the largest frame in base64, with room for small ones beside it.
pub const PULLED_MAX: usize = 32 * 1024 * 1024;
/// Largest answer to anything else, in bytes.
pub const ANSWER_MAX: usize = 64 * 1024;
/// Time for a call besides what the coordinator may hold it.
pub const CALL_MAX: Duration = Duration::from_secs(60);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The connection is gone.
    #[error("the connection to the coordinator is lost: {0}")]
    Lost(#[from] hyper::Error),
    /// Not in time.
    #[error("the coordinator did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// It says something else than expected; the connection is still good.
    #[error("the coordinator answered {status}: {body}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The beginning of what it said.
        body: String,
    },
    /// Too long, or not what was expected.
    #[error("the coordinator's answer is not understood: {0}")]
    Answer(String),
    /// Ours: the request cannot be written.
    #[error("the call cannot be written: {0}")]
    Encode(#[from] serde_json::Error),
    /// Ours: the request cannot be formed.
    #[error("the call cannot be formed: {0}")]
    Form(#[from] hyper::http::Error),
}

impl ApiError {
    /// Whether trying again can never help: the coordinator understood and does not want it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Status { status, .. }
            if status.is_client_error() && *status != StatusCode::REQUEST_TIMEOUT && *status != StatusCode::TOO_MANY_REQUESTS)
    }
}

/// An HTTP/1.1 connection on a stream; one call at a time.
pub struct Api {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Api {
    /// Speaks HTTP on this stream.
    ///
    /// # Errors
    /// [`ApiError::Lost`].
    pub async fn on(stream: impl Carrier + 'static) -> Result<Self, ApiError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!("connection ended: {e}");
            }
        });
        Ok(Self { sender, driver })
    }

    /// A call whose answer has a body.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
        answer_max: usize,
        time: Duration,
    ) -> Result<T, ApiError> {
        let (status, bytes) = self.exchange(path, body, answer_max, time).await?;
        if status != StatusCode::OK {
            return Err(unexpected(status, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|e| ApiError::Answer(e.to_string()))
    }

    /// A call that is acknowledged with 204.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn tell(&mut self, path: &str, body: &impl Serialize) -> Result<(), ApiError> {
        let (status, bytes) = self.exchange(path, body, ANSWER_MAX, CALL_MAX).await?;
        if status == StatusCode::NO_CONTENT { Ok(()) } else { Err(unexpected(status, &bytes)) }
    }

    /// How long the shortest call takes: the way there and back, and nothing done in between. The coordinator knows no such call and
    /// says so; that it says anything, on this stream, is the answer.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn round_trip(&mut self) -> Result<Duration, ApiError> {
        let start = Instant::now();
        self.exchange("/signer/v1/ping", &(), ANSWER_MAX, CALL_MAX).await?;
        Ok(start.elapsed())
    }

    async fn exchange(
        &mut self,
        path: &str,
        body: &impl Serialize,
        answer_max: usize,
        time: Duration,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, crate::tls::SERVER_NAME)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(serde_json::to_vec(body)?)))?;
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let collected = Limited::new(response.into_body(), answer_max).collect().await;
            let bytes = collected.map_err(|e| ApiError::Answer(e.to_string()))?.to_bytes();
            Ok((status, bytes))
        };
        timeout(time, exchange).await.unwrap_or(Err(ApiError::Timeout(time)))
    }
}

/// The beginning of an unexpected answer, harmless in a log.
fn unexpected(status: StatusCode, bytes: &[u8]) -> ApiError {
    let body = String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(200).collect();
    ApiError::Status { status, body }
}
