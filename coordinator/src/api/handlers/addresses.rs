//! Deposit addresses and deposits.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};

use super::{Body, Filter, limit, unknown_wallet};
use crate::{
    api::{
        auth::Caller,
        error::{ApiError, ErrorBody},
        types::{AddressBody, DepositBody, DepositList, DepositState, ListDeposits},
        wish::CreateAddress,
    },
    app::App,
    clock::now_ms,
    key::Scope,
    store::{Deposit, HandOut},
    wallet::RECEIVE,
};

/// Hands out a deposit address.
///
/// The same reference always gets the same address; no address is handed out for two.
#[utoipa::path(
    post, path = "/v1/addresses", tag = "deposits", request_body = CreateAddress, security(("api_key" = ["create"])),
    responses(
        (status = 201, description = "Handed out", body = AddressBody),
        (status = 200, description = "Handed out before for this reference", body = AddressBody),
        (status = 409, description = "None is left within the gap", body = ErrorBody),
        (status = 422, description = "No such wallet, or it has one address only", body = ErrorBody),
    )
)]
pub(in crate::api) async fn create_address(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(wish): Body<CreateAddress>,
) -> Result<(StatusCode, Json<AddressBody>), ApiError> {
    caller.may(Scope::Create)?;
    wish.check()?;
    let entry = app.wallets.get(&wish.wallet).ok_or_else(|| unknown_wallet(&wish.wallet))?;
    if entry.wallet.is_single() {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "address.single",
            "this wallet has one address, which is nobody's alone",
        )
        .hint("GET /v1/wallets shows it"));
    }
    // Signers recognise addresses up to their gap past the last one that was paid to.
    let paid = app.store.last_used(&wish.wallet, RECEIVE).await?.paid;
    let limit = paid.map_or(0, |index| index.saturating_add(1)).saturating_add(entry.table.gap);
    let (status, own) = match app.store.hand_out(&wish.wallet, &wish.reference, limit, now_ms()).await? {
        HandOut::New(own) => (StatusCode::CREATED, own),
        HandOut::Same(own) => (StatusCode::OK, own),
        HandOut::None => {
            return Err(ApiError::new(StatusCode::CONFLICT, "address.none", "no address is left that signers would recognise")
                .hint("addresses past [wallet] gap wait until an earlier one is paid to; a pool's come from its signer, and so does this if it is not connected"));
        }
    };
    let address = entry.wallet.address(&own.script).ok_or_else(|| ApiError::internal("the script has no address"))?;
    let body = AddressBody { wallet: own.wallet, reference: wish.reference, address: address.to_string(), index: own.index };
    app.work.notify_waiters();
    Ok((status, Json(body)))
}

/// Deposits, newest first.
#[utoipa::path(
    get, path = "/v1/deposits", tag = "deposits", security(("api_key" = ["read"])), params(ListDeposits),
    responses((status = 200, body = DepositList), (status = 400, description = "Malformed", body = ErrorBody))
)]
pub(in crate::api) async fn list_deposits(
    State(app): State<Arc<App>>,
    caller: Caller,
    Filter(wish): Filter<ListDeposits>,
) -> Result<Json<DepositList>, ApiError> {
    caller.may(Scope::Read)?;
    let tip = app.store.tip().await?.map_or(0, |tip| tip.height);
    let deposits = app.store.deposits(wish.wallet.as_deref(), limit(wish.limit)?).await?;
    let deposits = deposits.into_iter().filter_map(|deposit| body(&app, deposit, tip)).collect();
    Ok(Json(DepositList { deposits }))
}

fn body(app: &App, deposit: Deposit, tip: u32) -> Option<DepositBody> {
    let entry = app.wallets.get(&deposit.wallet)?;
    let confirmations = deposit.height.map_or(0, |height| tip.saturating_sub(height).saturating_add(1));
    let state = match deposit.height {
        Some(_) if confirmations >= entry.table.deposit_confirmations => DepositState::Confirmed,
        None if !deposit.present => DepositState::Vanished,
        _ => DepositState::Pending,
    };
    Some(DepositBody {
        txid: deposit.outpoint.txid.to_string(),
        vout: deposit.outpoint.vout,
        address: entry.wallet.address(&deposit.script)?.to_string(),
        wallet: deposit.wallet,
        reference: deposit.reference,
        amount_sat: deposit.value_sat,
        state,
        confirmations,
        first_seen: deposit.first_seen,
    })
}
