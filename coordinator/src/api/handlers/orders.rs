//! Orders.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use sha2::{Digest as _, Sha256};

use super::{Body, Filter, limit, unknown_wallet};
use crate::{
    api::{
        auth::Caller,
        error::{ApiError, ErrorBody},
        types::{ListOrders, OrderBody, OrderList, PaymentBody},
        wish::{ApproveOrder, CreateOrder},
    },
    app::{App, random_id},
    clock::now_ms,
    key::Scope,
    orders::approval,
    store::{NewOrder, Order, OrderChange, OrderCreation, OrderFilter},
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

fn body(order: Order, payment: Option<PaymentBody>) -> OrderBody {
    OrderBody {
        id: order.id,
        external_id: order.external_id,
        wallet: order.wallet,
        address: order.address,
        amount_sat: order.amount_sat,
        note: order.note,
        state: order.state,
        blocked: order.blocked,
        approval_hash: order.approval_hash,
        created_at: order.created_at,
        created_by: order.created_person,
        approved_at: order.approved_at,
        approved_by: order.approved_by,
        changed_at: order.changed_at,
        payment,
    }
}

async fn with_payment(app: &App, order: Order) -> Result<OrderBody, ApiError> {
    let tip = app.store.tip().await?.map_or(0, |tip| tip.height);
    let payment = app.store.payment(&order.id).await?.map(|place| PaymentBody {
        txid: place.txid.map(|txid| txid.to_string()),
        vout: place.vout,
        fee_sat: place.fee_sat,
        height: place.height,
        confirmations: place.height.map_or(0, |height| tip.saturating_sub(height).saturating_add(1)),
    });
    Ok(body(order, payment))
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, ApiError> {
    let missing = || {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "order.idempotency_key",
            "the header Idempotency-Key is missing or not 1 to 128 printable ASCII characters",
        )
        .hint("choose a new one for each order, and the same one when you repeat the call")
    };
    let key = headers.get(IDEMPOTENCY_KEY).and_then(|v| v.to_str().ok()).ok_or_else(missing)?;
    let good = (1..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if good { Ok(key.to_owned()) } else { Err(missing()) }
}

/// Makes an order.
///
/// Repeating the call with the same `Idempotency-Key` gives the same order. An `external_id` is for ever that of one payment.
#[utoipa::path(
    post, path = "/v1/orders", tag = "orders", request_body = CreateOrder, security(("api_key" = ["create"])),
    params(("Idempotency-Key" = String, Header, description = "1 to 128 printable ASCII characters, new for each order")),
    responses(
        (status = 201, description = "Made", body = OrderBody),
        (status = 200, description = "This order was made before", body = OrderBody),
        (status = 400, description = "Malformed", body = ErrorBody),
        (status = 409, description = "The key or the external id belongs to another order", body = ErrorBody),
        (status = 422, description = "Address, amount or wallet", body = ErrorBody),
    )
)]
pub(in crate::api) async fn create_order(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Body(wish): Body<CreateOrder>,
) -> Result<(StatusCode, Json<OrderBody>), ApiError> {
    let by = caller.may(Scope::Create)?.clone();
    let idempotency_key = idempotency_key(&headers)?;
    let network = app.config.coordinator.network;
    let script = wish.script(network)?;
    if !app.wallets.contains_key(&wish.wallet) {
        return Err(unknown_wallet(&wish.wallet));
    }
    let canonical = serde_json::to_vec(&wish).map_err(|e| ApiError::malformed(e.to_string()))?;
    let id = random_id("o");
    let approval_hash = approval::hash(network, &id, &wish.external_id, &wish.wallet, script.as_bytes(), wish.amount_sat);
    let new = NewOrder {
        id,
        external_id: wish.external_id,
        wallet: wish.wallet,
        address: wish.address,
        script,
        amount_sat: wish.amount_sat,
        note: wish.note,
        by,
        at: now_ms(),
        approval_hash,
        idempotency_key,
        body_hash: Sha256::digest(canonical).into(),
    };
    let conflict = |code, message: String, hint: &str| Err(ApiError::new(StatusCode::CONFLICT, code, message).hint(hint));
    match app.store.create_order(new).await? {
        OrderCreation::Created(order) => {
            tracing::info!(order = order.id, wallet = order.wallet, amount_sat = order.amount_sat, "order");
            app.work.notify_waiters();
            Ok((StatusCode::CREATED, Json(body(order, None))))
        }
        OrderCreation::Repeated(order) => Ok((StatusCode::OK, Json(with_payment(&app, order).await?))),
        OrderCreation::KeyConflict(order) => conflict(
            "order.idempotency_conflict",
            format!("this Idempotency-Key was used for order {} with another body", order.id),
            "a new order needs a new key",
        ),
        OrderCreation::ExternalIdConflict(order) => conflict(
            "order.external_id_conflict",
            format!("this external_id is that of order {}", order.id),
            "nothing was made; to repeat a call use its Idempotency-Key, and for a new payment a new external_id",
        ),
    }
}

fn not_found(id: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "order.unknown", format!("there is no order `{id}`"))
}

/// One order.
#[utoipa::path(
    get, path = "/v1/orders/{id}", tag = "orders", security(("api_key" = ["read"])), params(("id" = String, Path)),
    responses((status = 200, body = OrderBody), (status = 404, description = "No such order", body = ErrorBody))
)]
pub(in crate::api) async fn get_order(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OrderBody>, ApiError> {
    caller.may(Scope::Read)?;
    let order = app.store.order(&id).await?.ok_or_else(|| not_found(&id))?;
    Ok(Json(with_payment(&app, order).await?))
}

/// Orders, oldest first.
#[utoipa::path(
    get, path = "/v1/orders", tag = "orders", security(("api_key" = ["read"])), params(ListOrders),
    responses((status = 200, body = OrderList), (status = 400, description = "Malformed", body = ErrorBody))
)]
pub(in crate::api) async fn list_orders(
    State(app): State<Arc<App>>,
    caller: Caller,
    Filter(wish): Filter<ListOrders>,
) -> Result<Json<OrderList>, ApiError> {
    caller.may(Scope::Read)?;
    let filter =
        OrderFilter { wallet: wish.wallet, state: wish.state, external_id: wish.external_id, after: wish.after, limit: limit(wish.limit)? };
    let orders = app.store.orders(filter).await?.into_iter().map(|order| body(order, None)).collect();
    Ok(Json(OrderList { orders }))
}

fn changed(change: OrderChange, id: &str, what: &str) -> Result<Order, ApiError> {
    let conflict = |code, message: String| ApiError::new(StatusCode::CONFLICT, code, message);
    match change {
        OrderChange::Done(order) => Ok(order),
        OrderChange::NotFound => Err(not_found(id)),
        OrderChange::State(order) => Err(conflict("order.state", format!("an order that is {} cannot be {what}", order.state.as_str()))),
        OrderChange::Hash(_) => Err(conflict("order.approval_hash", "the hash does not name this order as it is".into())
            .hint("show the order again to who approves, and send the approval_hash that belongs to it")),
        OrderChange::SamePerson => {
            Err(ApiError::new(StatusCode::FORBIDDEN, "order.second_person", "who made an order does not approve it")
                .hint("use the key of another person"))
        }
    }
}

/// Approves an order, by another person than who made it.
#[utoipa::path(
    post, path = "/v1/orders/{id}/approve", tag = "orders", security(("api_key" = ["approve"])), params(("id" = String, Path)),
    request_body = ApproveOrder,
    responses(
        (status = 200, description = "Approved", body = OrderBody),
        (status = 403, description = "The same person made it", body = ErrorBody),
        (status = 404, description = "No such order", body = ErrorBody),
        (status = 409, description = "The hash or the state", body = ErrorBody),
    )
)]
pub(in crate::api) async fn approve_order(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(wish): Body<ApproveOrder>,
) -> Result<Json<OrderBody>, ApiError> {
    let by = caller.may(Scope::Approve)?;
    let change = app.store.approve_order(&id, &wish.approval_hash, by, now_ms()).await?;
    let order = changed(change, &id, "approved")?;
    tracing::info!(order = order.id, by = by.name, "approved");
    app.work.notify_waiters();
    Ok(Json(body(order, None)))
}

/// Withdraws an order that is in no transaction yet.
#[utoipa::path(
    post, path = "/v1/orders/{id}/cancel", tag = "orders", security(("api_key" = ["create"])), params(("id" = String, Path)),
    responses(
        (status = 200, description = "Withdrawn", body = OrderBody),
        (status = 404, description = "No such order", body = ErrorBody),
        (status = 409, description = "It is in a transaction", body = ErrorBody),
    )
)]
pub(in crate::api) async fn cancel_order(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OrderBody>, ApiError> {
    let by = caller.may(Scope::Create)?;
    let order = changed(app.store.cancel_order(&id, now_ms()).await?, &id, "cancelled")?;
    tracing::info!(order = order.id, by = by.name, "cancelled");
    Ok(Json(body(order, None)))
}
