//! The coordinator's API from a customer's side.

use std::{fmt, os::unix::net::UnixStream, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::http::Ask;

/// One API key at one socket.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
    key: String,
}

/// What the API answers.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body; null when it is not JSON.
    pub body: Value,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.body)
    }
}

impl Api {
    pub(super) fn new(socket: PathBuf, key: &str) -> Self {
        Self { socket, key: key.into() }
    }

    /// GET.
    ///
    /// # Errors
    /// When there is no answer. An error status is an answer.
    pub fn get(&self, path: &str) -> Result<Reply> {
        self.ask("GET", path, None, "")
    }

    /// POST.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.ask("POST", path, None, &body.to_string())
    }

    /// POST with an idempotency key.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post_once(&self, path: &str, idempotency_key: &str, body: &Value) -> Result<Reply> {
        self.ask("POST", path, Some(idempotency_key), &body.to_string())
    }

    fn ask(&self, method: &str, path: &str, idempotency_key: Option<&str>, body: &str) -> Result<Reply> {
        let bearer = format!("Bearer {}", self.key);
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(idempotency_key.map(|key| ("Idempotency-Key", key)));
        let stream = UnixStream::connect(&self.socket).context("the coordinator's API does not listen")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let answer = Ask { method, path, headers: &headers, body }.over(stream)?;
        Ok(Reply { status: answer.status, body: serde_json::from_str(&answer.body).unwrap_or(Value::Null) })
    }
}
