//! One function for each call.

mod addresses;
mod orders;
mod overview;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::error::ApiError;

pub(super) use addresses::{__path_create_address, __path_list_deposits, create_address, list_deposits};
pub(super) use orders::{
    __path_approve_order, __path_cancel_order, __path_create_order, __path_get_order, __path_list_orders, approve_order, cancel_order,
    create_order, get_order, list_orders,
};
pub(super) use overview::{__path_list_signers, __path_list_wallets, list_signers, list_wallets};

/// Orders or deposits in one answer when nobody says.
const LIMIT: u32 = 100;
/// And at most.
const LIMIT_MAX: u32 = 1_000;

/// A JSON body with typed errors.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too_large", "the body is larger than 64 KiB")
            }
            _ => ApiError::malformed("the body could not be read"),
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|e| ApiError::malformed(e.to_string()))
    }
}

/// A query string with typed errors.
pub(super) struct Filter<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Filter<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Query::<T>::from_request_parts(parts, state).await.map(|Query(found)| Self(found)).map_err(|e| ApiError::malformed(e.body_text()))
    }
}

fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked.unwrap_or(LIMIT) {
        n @ 1..=LIMIT_MAX => Ok(n),
        n => Err(ApiError::malformed(format!("limit: {n} is not a number from 1 to {LIMIT_MAX}"))),
    }
}

fn unknown_wallet(name: &str) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "wallet.unknown", format!("there is no wallet `{name}`"))
        .hint("GET /v1/wallets lists them")
}
