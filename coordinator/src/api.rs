//! The customers' HTTP API. The reference is the OpenAPI document at `/openapi.json`; `docs/coordinator-api.md` says how it is meant.

mod auth;
pub mod error;
mod handlers;
mod listen;
pub mod types;
pub mod wish;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;
use error::ApiError;

pub use listen::serve;

/// Largest body.
const BODY_MAX: usize = 64 * 1024;
/// Longest call.
const CALL_MAX: Duration = Duration::from_secs(30);

#[derive(OpenApi)]
#[openapi(
    info(title = "Postern coordinator", description = "Orders, approvals, deposit addresses. Amounts are satoshi, times milliseconds since 1970."),
    modifiers(&BearerKey)
)]
struct Document;

struct BearerKey;

impl Modify for BearerKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("api_key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The API with its OpenAPI document.
pub fn router(app: Arc<App>) -> Router {
    let (router, document) = documented();
    router
        .route("/openapi.json", get(move || std::future::ready(Json(document.clone()))))
        .fallback(|| async {
            ApiError::new(StatusCode::NOT_FOUND, "request.unknown_path", "there is nothing here").hint("GET /openapi.json lists all paths")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "request.method", "this path has other methods")
                .hint("GET /openapi.json lists them")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(time_limit))
        .layer(CatchPanicLayer::custom(|_| ApiError::internal("a bug; the log says more").into_response()))
        .with_state(app)
}

/// The OpenAPI document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    documented().1
}

fn documented() -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(handlers::create_order, handlers::list_orders))
        .routes(routes!(handlers::get_order))
        .routes(routes!(handlers::approve_order))
        .routes(routes!(handlers::cancel_order))
        .routes(routes!(handlers::create_address))
        .routes(routes!(handlers::list_deposits))
        .routes(routes!(handlers::list_wallets))
        .routes(routes!(handlers::list_signers))
        .split_for_parts()
}

async fn time_limit(request: Request, next: Next) -> Response {
    match tokio::time::timeout(CALL_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "request.timeout", "no answer in time")
            .hint("repeat it with the same Idempotency-Key")
            .into_response(),
    }
}

#[cfg(test)]
mod tests;
