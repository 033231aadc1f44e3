//! Typed errors: a stable code, what is wrong, and what to do.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::wish::Senseless;
use crate::store::StoreError;

/// The body of every answer that is not a success.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorBody {
    /// Stable, `area.problem`.
    pub code: String,
    /// What is wrong and where.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// An answer that is not a success.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: String,
}

impl ApiError {
    /// With a stable code.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: String::new() }
    }

    /// And what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The body is not what this path takes.
    #[must_use]
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "request.malformed", message).hint("GET /openapi.json describes every body")
    }

    /// Our fault.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message).hint("repeat it with the same Idempotency-Key")
    }
}

impl From<Senseless> for ApiError {
    fn from(senseless: Senseless) -> Self {
        let wrong = |code, message| Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message);
        match senseless {
            Senseless::Field(message) => Self::malformed(message),
            Senseless::Address(message, hint) => wrong("order.address", message).hint(hint),
            Senseless::Amount(message) => wrong("order.amount", message),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        // Details are for the log, not for the caller.
        tracing::error!("{e}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store.unavailable", "the database cannot do it now")
            .hint("repeat it with the same Idempotency-Key; the coordinator's log says why")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { code: self.code.to_owned(), message: self.message, hint: self.hint };
        (self.status, Json(body)).into_response()
    }
}
