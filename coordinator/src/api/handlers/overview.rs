//! Wallets and signers at a glance.

use std::sync::Arc;

use axum::{Json, extract::State};

use crate::{
    api::{
        auth::Caller,
        error::ApiError,
        types::{SignerBody, SignerList, WalletBody, WalletList},
    },
    app::App,
    key::Scope,
    wallet::RECEIVE,
};

/// All wallets with their money.
#[utoipa::path(get, path = "/v1/wallets", tag = "overview", security(("api_key" = ["read"])), responses((status = 200, body = WalletList)))]
pub(in crate::api) async fn list_wallets(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<WalletList>, ApiError> {
    caller.may(Scope::Read)?;
    let tip = app.store.tip().await?;
    let stops = app.store.stops().await?;
    let mut wallets = Vec::new();
    for (name, entry) in &app.wallets {
        let height = tip.map_or(0, |tip| tip.height);
        let single = if entry.wallet.is_single() { entry.wallet.script(RECEIVE, 0, None).ok() } else { None };
        wallets.push(WalletBody {
            name: name.clone(),
            balance: app.store.balance(name, height, entry.table.deposit_confirmations).await?,
            address: single.and_then(|own| entry.wallet.address(&own.script)).map(|address| address.to_string()),
            signers: entry.table.signers.clone(),
            stopped: stops.iter().find(|s| s.wallet == *name).cloned(),
        });
    }
    Ok(Json(WalletList { height: tip.map(|tip| tip.height), wallets }))
}

/// All paired signers with their last signed report.
#[utoipa::path(get, path = "/v1/signers", tag = "overview", security(("api_key" = ["read"])), responses((status = 200, body = SignerList)))]
pub(in crate::api) async fn list_signers(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<SignerList>, ApiError> {
    caller.may(Scope::Read)?;
    let signers = app
        .store
        .signers()
        .await?
        .into_iter()
        .map(|s| SignerBody {
            name: s.name,
            signer_key: s.signer_key.to_string(),
            last_pull_at: s.last_pull_at,
            heartbeat_at: s.heartbeat_at,
            heartbeat: s.heartbeat.and_then(|json| serde_json::from_str(&json).ok()),
        })
        .collect();
    Ok(Json(SignerList { signers }))
}
