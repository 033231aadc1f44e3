//! Orders and their approval.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row as _};

use super::{
    super::{
        ApprovalLimit, Blocked, NewOrder, Order, OrderChange, OrderCreation, OrderFilter, OrderState, OrderStore, PaymentPlace, Person,
        Stored,
    },
    SqliteStore, Tx,
    row::{self, ORDER, sat},
};

/// What `approved_by` says when the rule approved.
pub(crate) const BY_RULE: &str = "rule";
/// Most orders in one answer.
const LIST_MAX: u32 = 1_000;

pub(super) async fn order_in(tx: &mut Tx, id: &str) -> Stored<Option<Order>> {
    let found = sqlx::query(AssertSqlSafe(format!("SELECT {ORDER} FROM orders WHERE id = ?"))).bind(id).fetch_optional(&mut **tx).await?;
    found.as_ref().map(row::order).transpose()
}

async fn remember_call(tx: &mut Tx, new: &NewOrder, order_id: &str) -> Stored<()> {
    sqlx::query("INSERT INTO idempotency (api_key, key, body_hash, order_id) VALUES (?, ?, ?, ?)")
        .bind(&new.by.key)
        .bind(&new.idempotency_key)
        .bind(new.body_hash.as_slice())
        .bind(order_id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[async_trait]
impl OrderStore for SqliteStore {
    async fn create_order(&self, new: NewOrder) -> Stored<OrderCreation> {
        let mut tx = self.begin("order").await?;
        let call = sqlx::query("SELECT body_hash, order_id FROM idempotency WHERE api_key = ? AND key = ?")
            .bind(&new.by.key)
            .bind(&new.idempotency_key)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(call) = call {
            let hash: Vec<u8> = call.try_get("body_hash")?;
            let id: String = call.try_get("order_id")?;
            let Some(order) = order_in(&mut tx, &id).await? else { return Err(sqlx::Error::RowNotFound.into()) };
            let same = hash == new.body_hash;
            return Ok(if same { OrderCreation::Repeated(order) } else { OrderCreation::KeyConflict(order) });
        }
        let known = sqlx::query(AssertSqlSafe(format!("SELECT {ORDER} FROM orders WHERE external_id = ?")))
            .bind(&new.external_id)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(known) = known {
            // Also for the same payment: a caller who believes it to be new would count it twice.
            return Ok(OrderCreation::ExternalIdConflict(row::order(&known)?));
        }
        sqlx::query(
            "INSERT INTO orders (id, external_id, wallet, address, script, amount_sat, note, state, created_at, created_by, created_person, \
             approval_hash, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&new.id)
        .bind(&new.external_id)
        .bind(&new.wallet)
        .bind(&new.address)
        .bind(new.script.as_bytes())
        .bind(sat(new.amount_sat))
        .bind(&new.note)
        .bind(OrderState::Created.as_str())
        .bind(new.at)
        .bind(&new.by.key)
        .bind(&new.by.name)
        .bind(&new.approval_hash)
        .bind(new.at)
        .execute(&mut *tx)
        .await?;
        remember_call(&mut tx, &new, &new.id).await?;
        let Some(order) = order_in(&mut tx, &new.id).await? else { return Err(sqlx::Error::RowNotFound.into()) };
        self.commit(tx, "order").await?;
        Ok(OrderCreation::Created(order))
    }

    async fn order(&self, id: &str) -> Stored<Option<Order>> {
        let found =
            sqlx::query(AssertSqlSafe(format!("SELECT {ORDER} FROM orders WHERE id = ?"))).bind(id).fetch_optional(&self.read).await?;
        found.as_ref().map(row::order).transpose()
    }

    async fn orders(&self, filter: OrderFilter) -> Stored<Vec<Order>> {
        let rows = sqlx::query(AssertSqlSafe(format!(
            "SELECT {ORDER} FROM orders WHERE (?1 IS NULL OR wallet = ?1) AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR external_id = ?3) \
             AND (?4 IS NULL OR rowid > (SELECT rowid FROM orders WHERE id = ?4)) ORDER BY rowid LIMIT ?5"
        )))
        .bind(filter.wallet)
        .bind(filter.state.map(OrderState::as_str))
        .bind(filter.external_id)
        .bind(filter.after)
        .bind(i64::from(filter.limit.min(LIST_MAX)))
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(row::order).collect()
    }

    async fn approve_order(&self, id: &str, hash: &str, by: &Person, at: i64) -> Stored<OrderChange> {
        let mut tx = self.begin("approve").await?;
        let Some(order) = order_in(&mut tx, id).await? else { return Ok(OrderChange::NotFound) };
        if order.created_by == by.key || order.created_person == by.name {
            return Ok(OrderChange::SamePerson);
        }
        if order.approval_hash != hash {
            return Ok(OrderChange::Hash(order));
        }
        match order.state {
            OrderState::Created | OrderState::AwaitingApproval => {}
            _ if order.approved_by.as_deref() == Some(&by.key) => return Ok(OrderChange::Done(order)),
            _ => return Ok(OrderChange::State(order)),
        }
        sqlx::query("UPDATE orders SET state = 'approved', approved_at = ?, approved_by = ?, changed_at = ? WHERE id = ?")
            .bind(at)
            .bind(&by.key)
            .bind(at)
            .bind(id)
            .execute(&mut *tx)
            .await?;
        let changed = order_in(&mut tx, id).await?;
        self.commit(tx, "approve").await?;
        Ok(changed.map_or(OrderChange::NotFound, OrderChange::Done))
    }

    async fn cancel_order(&self, id: &str, at: i64) -> Stored<OrderChange> {
        let mut tx = self.begin("cancel").await?;
        let Some(order) = order_in(&mut tx, id).await? else { return Ok(OrderChange::NotFound) };
        match order.state {
            OrderState::Created | OrderState::AwaitingApproval | OrderState::Approved if order.family.is_none() => {}
            OrderState::Cancelled => return Ok(OrderChange::Done(order)),
            _ => return Ok(OrderChange::State(order)),
        }
        sqlx::query(
            "UPDATE orders SET state = 'cancelled', changed_at = ?, blocked_kind = NULL, blocked_code = NULL, blocked_until = NULL, \
             blocked_message = NULL WHERE id = ?",
        )
        .bind(at)
        .bind(id)
        .execute(&mut *tx)
        .await?;
        let changed = order_in(&mut tx, id).await?;
        self.commit(tx, "cancel").await?;
        Ok(changed.map_or(OrderChange::NotFound, OrderChange::Done))
    }

    async fn decide_order(&self, id: &str, rule: ApprovalLimit, at: i64) -> Stored<Option<OrderState>> {
        let mut tx = self.begin("decide").await?;
        let Some(order) = order_in(&mut tx, id).await? else { return Ok(None) };
        if order.state != OrderState::Created {
            return Ok(None);
        }
        let (spent,): (i64,) = sqlx::query_as(
            "SELECT COALESCE(SUM(amount_sat), 0) FROM orders WHERE wallet = ? AND approved_by = ? AND approved_at > ? AND state <> 'cancelled'",
        )
        .bind(&order.wallet)
        .bind(BY_RULE)
        .bind(rule.since)
        .fetch_one(&mut *tx)
        .await?;
        let spent = u64::try_from(spent).unwrap_or(u64::MAX);
        let automatic = order.amount_sat <= rule.up_to_sat && spent.saturating_add(order.amount_sat) <= rule.window_sat;
        let state = if automatic { OrderState::Approved } else { OrderState::AwaitingApproval };
        sqlx::query("UPDATE orders SET state = ?, approved_at = ?, approved_by = ?, changed_at = ? WHERE id = ? AND state = 'created'")
            .bind(state.as_str())
            .bind(automatic.then_some(at))
            .bind(automatic.then_some(BY_RULE))
            .bind(at)
            .bind(id)
            .execute(&mut *tx)
            .await?;
        self.commit(tx, "decide").await?;
        Ok(Some(state))
    }

    async fn block_approved(&self, wallet: &str, blocked: Option<&Blocked>, at: i64) -> Stored<()> {
        let mut tx = self.begin("block").await?;
        sqlx::query(
            "UPDATE orders SET blocked_kind = ?1, blocked_code = ?2, blocked_until = ?3, blocked_message = ?4, changed_at = ?5 \
             WHERE wallet = ?6 AND state = 'approved' AND family IS NULL AND (blocked_code IS NOT ?2 OR blocked_message IS NOT ?4)",
        )
        .bind(blocked.map(|b| b.kind.as_str()))
        .bind(blocked.map(|b| b.code.as_str()))
        .bind(blocked.and_then(|b| b.until))
        .bind(blocked.and_then(|b| b.message.as_deref()))
        .bind(at)
        .bind(wallet)
        .execute(&mut *tx)
        .await?;
        self.commit(tx, "block").await
    }

    async fn fail_tampered(&self, id: &str, at: i64) -> Stored<()> {
        let mut tx = self.begin("tampered").await?;
        sqlx::query(
            "UPDATE orders SET state = 'failed', blocked_kind = 'alarm', blocked_code = 'order.tampered', blocked_until = NULL, \
             blocked_message = 'the order is not the one that was approved', changed_at = ? WHERE id = ? AND state = 'approved' AND family IS NULL",
        )
        .bind(at)
        .bind(id)
        .execute(&mut *tx)
        .await?;
        self.commit(tx, "tampered").await
    }

    async fn payment(&self, order: &str) -> Stored<Option<PaymentPlace>> {
        // The member that is in a block comes first, else the newest that is not refused.
        let found = sqlx::query(
            "SELECT COALESCE(t.txid, m.txid) AS txid, o.vout AS vout, c.spent_height AS height, m.fee_sat AS fee_sat FROM member_output o \
             JOIN member m ON m.id = o.member JOIN family f ON f.id = m.family \
             LEFT JOIN tx t ON t.unsigned_txid = m.unsigned_txid \
             LEFT JOIN coin c ON c.txid = f.anchor_txid AND c.vout = f.anchor_vout AND c.spent_txid = t.txid \
             WHERE o.order_id = ? AND m.state <> 'refused' ORDER BY (c.spent_height IS NULL), (m.state <> 'broadcast'), m.id DESC LIMIT 1",
        )
        .bind(order)
        .fetch_optional(&self.read)
        .await?;
        let Some(found) = found else { return Ok(None) };
        Ok(Some(PaymentPlace {
            txid: row::parsed_or_none(&found, "member", "txid")?,
            vout: row::unsigned(&found, "member_output", "vout")?,
            height: row::unsigned_or_none(&found, "coin", "height")?,
            fee_sat: row::unsigned(&found, "member", "fee_sat")?,
        }))
    }
}
