//! Who calls: an API key in `Authorization: Bearer`, and what it may do.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, header, request::Parts},
};

use super::error::ApiError;
use crate::{
    app::App,
    key::{ApiKey, Scope, parse_scopes},
    store::Person,
};

/// A caller whose key holds.
pub(super) struct Caller {
    person: Person,
    scopes: BTreeSet<Scope>,
}

impl Caller {
    /// The caller, if the key may do this.
    pub(super) fn may(&self, scope: Scope) -> Result<&Person, ApiError> {
        if self.scopes.contains(&scope) {
            return Ok(&self.person);
        }
        Err(ApiError::new(StatusCode::FORBIDDEN, "key.scope", format!("this key may not {scope}"))
            .hint(format!("postern-coordinator key new --scope {scope} makes one that may")))
    }
}

fn unauthorized() -> ApiError {
    // The same for every reason: nothing to learn by trying.
    ApiError::new(StatusCode::UNAUTHORIZED, "key.invalid", "no valid API key")
        .hint("send `Authorization: Bearer postern_…`; postern-coordinator key new makes a key")
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let key = header.and_then(|h| h.strip_prefix("Bearer ")).and_then(|text| ApiKey::parse(text.trim())).ok_or_else(unauthorized)?;
        let row = app.store.key(&key.id()).await?.ok_or_else(unauthorized)?;
        if !key.matches(&row.hash) {
            return Err(unauthorized());
        }
        Ok(Self { person: Person { key: row.id, name: row.person }, scopes: parse_scopes(&row.scopes) })
    }
}
