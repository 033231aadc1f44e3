//! Wallets and signers at a glance.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use postern_protocol::attest::Statement;

use crate::{
    api::{
        auth::Caller,
        error::ApiError,
        types::{AttestationBody, AttestationState, SignerBody, SignerList, WalletBody, WalletList},
    },
    app::App,
    attestation::held,
    clock::now_ms,
    key::Scope,
    store::AttestationRow,
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

/// All paired signers with their last signed report and what they booted.
#[utoipa::path(get, path = "/v1/signers", tag = "overview", security(("api_key" = ["read"])), responses((status = 200, body = SignerList)))]
pub(in crate::api) async fn list_signers(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<SignerList>, ApiError> {
    caller.may(Scope::Read)?;
    let rows = app.store.attestations().await?;
    let mut signers = Vec::new();
    for s in app.store.signers().await? {
        let row = rows.iter().find(|row| row.signer == s.name);
        signers.push(SignerBody {
            attestation: attestation(&app, &s.name, row).await?,
            name: s.name,
            signer_key: s.signer_key.to_string(),
            last_pull_at: s.last_pull_at,
            heartbeat_at: s.heartbeat_at,
            heartbeat: s.heartbeat.and_then(|json| serde_json::from_str(&json).ok()),
        });
    }
    Ok(Json(SignerList { signers }))
}

async fn attestation(app: &App, signer: &str, row: Option<&AttestationRow>) -> Result<AttestationBody, ApiError> {
    let pinned = app.store.attestation_statements(signer).await?.pinned;
    let pinned = pinned.and_then(|json| Statement::parse(json.as_bytes()).ok());
    let problem = held(&app.config, signer, row, now_ms());
    let state = match &problem {
        Some(_) => AttestationState::Held,
        None if app.config.attests(signer) => AttestationState::Good,
        None => AttestationState::None,
    };
    Ok(AttestationBody {
        state,
        key: pinned.as_ref().map(|pinned| pinned.key.clone()),
        pcrs: pinned.map_or_else(BTreeMap::new, |pinned| {
            pinned.pcrs.0.iter().map(|(index, value)| (index.to_string(), hex::encode(value))).collect()
        }),
        pinned_at: row.and_then(|row| row.pinned_at),
        asked_at: row.and_then(|row| row.asked_at),
        verified_at: row.and_then(|row| row.verified_at),
        trusted_until: row.map(|row| row.trusted_until).filter(|until| *until > 0),
        problem,
    })
}
