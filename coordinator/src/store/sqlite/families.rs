//! Spend families: coins reserved, orders bound, members kept for ever.

use async_trait::async_trait;
use bitcoin::Txid;
use sqlx::{AssertSqlSafe, Row as _};

use super::{
    super::{
        AnchorSpent, Blocked, Family, FamilyId, FamilyStore, Member, MemberId, NewFamily, NewMember, NewRequest, Order, Stored, WalletStop,
    },
    SqliteStore, Tx,
    row::{self, ORDER, sat},
    settle, signers,
};
use crate::wallet::CHANGE;

async fn insert_member(tx: &mut Tx, family: FamilyId, new: &NewMember) -> Stored<Option<MemberId>> {
    let inserted = sqlx::query(
        "INSERT INTO member (family, state, unsigned_txid, psbt, fee_sat, weight_wu, created_at) VALUES (?, 'built', ?, ?, ?, ?, ?) \
         ON CONFLICT (unsigned_txid) DO NOTHING",
    )
    .bind(family)
    .bind(new.unsigned_txid.to_string())
    .bind(&new.psbt)
    .bind(sat(new.fee_sat))
    .bind(sat(new.weight_wu))
    .bind(new.at)
    .execute(&mut **tx)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(None);
    }
    let member = inserted.last_insert_rowid();
    for (order, vout) in &new.pays {
        sqlx::query("INSERT INTO member_output (member, order_id, vout) VALUES (?, ?, ?)")
            .bind(member)
            .bind(order)
            .bind(i64::from(*vout))
            .execute(&mut **tx)
            .await?;
    }
    Ok(Some(member))
}

/// Shows why orders wait. `which` is the rest of an UPDATE's WHERE with one parameter.
pub(super) async fn block(tx: &mut Tx, which: &'static str, parameter: i64, blocked: Option<&Blocked>, at: i64) -> Stored<()> {
    sqlx::query(AssertSqlSafe(format!(
        "UPDATE orders SET blocked_kind = ?1, blocked_code = ?2, blocked_until = ?3, blocked_message = ?4, changed_at = ?5 \
         WHERE {which} AND state IN ('batched', 'signing', 'broadcast')"
    )))
    .bind(blocked.map(|b| b.kind.as_str()))
    .bind(blocked.map(|b| b.code.as_str()))
    .bind(blocked.and_then(|b| b.until))
    .bind(blocked.and_then(|b| b.message.as_deref()))
    .bind(at)
    .bind(parameter)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// WHERE for [`block`]: the orders that a member pays.
pub(super) const PAID_BY: &str = "id IN (SELECT order_id FROM member_output WHERE member = ?6)";

/// Moves the orders that a member pays, and only those that are on their way.
async fn advance(tx: &mut Tx, member: MemberId, state: &'static str, from: &'static str, at: i64) -> Stored<()> {
    sqlx::query(AssertSqlSafe(format!(
        "UPDATE orders SET state = ?, blocked_kind = NULL, blocked_code = NULL, blocked_until = NULL, blocked_message = NULL, changed_at = ? \
         WHERE id IN (SELECT order_id FROM member_output WHERE member = ?) AND state IN ({from})"
    )))
    .bind(state)
    .bind(at)
    .bind(member)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

#[async_trait]
impl FamilyStore for SqliteStore {
    async fn commit_batch(&self, batch: NewFamily) -> Stored<Option<FamilyId>> {
        let mut tx = self.begin("batch").await?;
        let family = sqlx::query(
            "INSERT INTO family (wallet, anchor_txid, anchor_vout, change_branch, change_index, state, created_at) VALUES (?, ?, ?, ?, ?, 'open', ?)",
        )
        .bind(&batch.wallet)
        .bind(batch.anchor.txid.to_string())
        .bind(i64::from(batch.anchor.vout))
        .bind(i64::from(batch.change.0))
        .bind(i64::from(batch.change.1))
        .bind(batch.at)
        .execute(&mut *tx)
        .await?
        .last_insert_rowid();
        for coin in &batch.coins {
            let reserved = sqlx::query(
                "UPDATE coin SET reserved_by = ?, spend_first = 0 WHERE txid = ? AND vout = ? AND wallet = ? AND reserved_by IS NULL \
                 AND spent_txid IS NULL AND present = 1 AND (height IS NOT NULL OR EXISTS (SELECT 1 FROM member m WHERE m.txid = coin.txid \
                 AND m.state = 'broadcast' AND (SELECT COUNT(*) FROM member x WHERE x.family = m.family) = 1))",
            )
            .bind(family)
            .bind(coin.txid.to_string())
            .bind(i64::from(coin.vout))
            .bind(&batch.wallet)
            .execute(&mut *tx)
            .await?;
            if reserved.rows_affected() != 1 {
                return Ok(None);
            }
        }
        for (order, _) in &batch.member.pays {
            let bound = sqlx::query(
                "UPDATE orders SET state = 'batched', family = ?, blocked_kind = NULL, blocked_code = NULL, blocked_until = NULL, \
                 blocked_message = NULL, changed_at = ? WHERE id = ? AND state = 'approved' AND family IS NULL AND wallet = ?",
            )
            .bind(family)
            .bind(batch.at)
            .bind(order)
            .bind(&batch.wallet)
            .execute(&mut *tx)
            .await?;
            if bound.rows_affected() != 1 {
                return Ok(None);
            }
        }
        // One of the change branch may be taken again; one of the other is a deposit's for ever.
        sqlx::query(
            "UPDATE script SET handed_at = ?, handed_for = ? WHERE wallet = ? AND branch = ? AND idx = ? AND (handed_at IS NULL OR branch = ?)",
        )
            .bind(batch.at)
            .bind(format!("c:{family}"))
            .bind(&batch.wallet)
            .bind(i64::from(batch.change.0))
            .bind(i64::from(batch.change.1))
            .bind(i64::from(CHANGE))
            .execute(&mut *tx)
            .await?;
        if insert_member(&mut tx, family, &batch.member).await?.is_none() {
            return Ok(None);
        }
        self.commit(tx, "batch").await?;
        Ok(Some(family))
    }

    async fn add_member(&self, family: FamilyId, member: NewMember) -> Stored<Option<MemberId>> {
        let mut tx = self.begin("member").await?;
        let (busy,): (i64,) = sqlx::query_as(
            "SELECT (SELECT COUNT(*) FROM member WHERE family = ?1 AND state IN ('built', 'signing', 'signed')) \
             + (SELECT COUNT(*) FROM family WHERE id = ?1 AND state <> 'open') \
             + (SELECT COUNT(*) FROM coin c JOIN member m ON m.txid = c.txid WHERE m.family = ?1 AND (c.reserved_by IS NOT NULL \
               OR c.spent_txid IS NOT NULL))",
        )
        .bind(family)
        .fetch_one(&mut *tx)
        .await?;
        if busy > 0 {
            return Ok(None);
        }
        for (order, _) in &member.pays {
            let (bound,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM orders WHERE id = ? AND family = ?")
                .bind(order)
                .bind(family)
                .fetch_one(&mut *tx)
                .await?;
            if bound != 1 {
                return Ok(None);
            }
        }
        let Some(id) = insert_member(&mut tx, family, &member).await? else { return Ok(None) };
        self.commit(tx, "member").await?;
        Ok(Some(id))
    }

    async fn open_families(&self) -> Stored<Vec<Family>> {
        let rows = sqlx::query("SELECT * FROM family WHERE state = 'open' ORDER BY id").fetch_all(&self.read).await?;
        rows.iter().map(row::family).collect()
    }

    async fn reopen_families(&self, at: i64) -> Stored<Vec<FamilyId>> {
        const CONTRADICTED: &str = "SELECT f.id FROM family f JOIN coin c ON c.txid = f.anchor_txid AND c.vout = f.anchor_vout \
             WHERE (f.state = 'settled' AND c.spent_height IS NULL) \
             OR (f.state = 'refused' AND c.spent_height IS NOT NULL AND EXISTS (SELECT 1 FROM tx t JOIN member m ON m.unsigned_txid = t.unsigned_txid \
                 WHERE t.txid = c.spent_txid AND m.family = f.id) AND EXISTS (SELECT 1 FROM orders o WHERE o.family = f.id AND o.state = 'refused'))";
        let found: Vec<(i64,)> = sqlx::query_as(CONTRADICTED).fetch_all(&self.read).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin("reopen").await?;
        let found: Vec<(i64,)> = sqlx::query_as(CONTRADICTED).fetch_all(&mut *tx).await?;
        for (family,) in &found {
            sqlx::query("UPDATE family SET state = 'open', settled_at = NULL WHERE id = ?").bind(family).execute(&mut *tx).await?;
            sqlx::query("UPDATE orders SET state = 'broadcast', changed_at = ? WHERE family = ? AND state IN ('confirmed', 'refused')")
                .bind(at)
                .bind(family)
                .execute(&mut *tx)
                .await?;
            // Its own anchor stays its own.
            sqlx::query(
                "UPDATE coin SET reserved_by = ?1 WHERE reserved_by IS NULL AND (txid, vout) IN (SELECT anchor_txid, anchor_vout FROM family WHERE id = ?1)",
            )
            .bind(family)
            .execute(&mut *tx)
            .await?;
        }
        self.commit(tx, "reopen").await?;
        Ok(found.into_iter().map(|(id,)| id).collect())
    }

    async fn family(&self, id: FamilyId) -> Stored<Option<Family>> {
        let found = sqlx::query("SELECT * FROM family WHERE id = ?").bind(id).fetch_optional(&self.read).await?;
        found.as_ref().map(row::family).transpose()
    }

    async fn confirmed_in_block(&self, member: MemberId, txid: Txid, height: u32, at: i64) -> Stored<()> {
        let (known,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM member m WHERE m.id = ?1 AND m.state = 'broadcast' AND m.txid = ?2 AND NOT EXISTS (SELECT 1 FROM member_output o \
             JOIN orders r ON r.id = o.order_id WHERE o.member = ?1 AND r.state IN ('batched', 'signing'))",
        )
        .bind(member)
        .bind(txid.to_string())
        .fetch_one(&self.read)
        .await?;
        if known > 0 {
            return Ok(());
        }
        let mut tx = self.begin("in_block").await?;
        // The chain's word: it was signed, whatever was answered.
        sqlx::query(
            "UPDATE member SET state = 'broadcast', txid = ?1, final_tx = (SELECT raw FROM tx WHERE txid = ?1), \
             broadcast_at = COALESCE(broadcast_at, ?2), broadcast_height = COALESCE(broadcast_height, ?3) WHERE id = ?4",
        )
        .bind(txid.to_string())
        .bind(at)
        .bind(i64::from(height))
        .bind(member)
        .execute(&mut *tx)
        .await?;
        advance(&mut tx, member, "broadcast", "'batched', 'signing', 'broadcast'", at).await?;
        self.commit(tx, "in_block").await
    }

    async fn members(&self, family: FamilyId) -> Stored<Vec<Member>> {
        let rows = sqlx::query("SELECT * FROM member WHERE family = ? ORDER BY id").bind(family).fetch_all(&self.read).await?;
        rows.iter().map(row::member).collect()
    }

    async fn member(&self, id: MemberId) -> Stored<Option<Member>> {
        let found = sqlx::query("SELECT * FROM member WHERE id = ?").bind(id).fetch_optional(&self.read).await?;
        found.as_ref().map(row::member).transpose()
    }

    async fn family_orders(&self, family: FamilyId) -> Stored<Vec<Order>> {
        let rows = sqlx::query(AssertSqlSafe(format!("SELECT {ORDER} FROM orders WHERE family = ? ORDER BY rowid")))
            .bind(family)
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(row::order).collect()
    }

    async fn member_outputs(&self, member: MemberId) -> Stored<Vec<(String, u32)>> {
        let rows = sqlx::query("SELECT order_id, vout FROM member_output WHERE member = ? ORDER BY vout")
            .bind(member)
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(|r| Ok((r.try_get("order_id")?, row::unsigned(r, "member_output", "vout")?))).collect()
    }

    async fn ask_signers(&self, member: MemberId, requests: Vec<NewRequest>, at: i64) -> Stored<()> {
        let mut tx = self.begin("ask").await?;
        sqlx::query("UPDATE member SET state = 'signing' WHERE id = ? AND state = 'built'").bind(member).execute(&mut *tx).await?;
        for request in &requests {
            // Two senders at once: the first one's request is enough.
            let (open,): (i64,) = sqlx::query_as(
                "SELECT COUNT(*) FROM signer_request WHERE member = ? AND signer = ? AND (reply IS NULL OR outcome IS NULL)",
            )
            .bind(member)
            .bind(&request.signer)
            .fetch_one(&mut *tx)
            .await?;
            if open == 0 {
                signers::insert_request(&mut tx, request, at).await?;
            }
        }
        advance(&mut tx, member, "signing", "'batched'", at).await?;
        self.commit(tx, "ask").await
    }

    async fn signatures(&self, member: MemberId) -> Stored<Vec<(String, Vec<u8>)>> {
        Ok(sqlx::query_as("SELECT signer, body FROM signature WHERE member = ? ORDER BY signer").bind(member).fetch_all(&self.read).await?)
    }

    async fn anything_signed(&self, family: FamilyId) -> Stored<bool> {
        let (signed,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM member m WHERE m.family = ?1 AND (m.final_tx IS NOT NULL OR EXISTS (SELECT 1 FROM signature s WHERE s.member = m.id))",
        )
        .bind(family)
        .fetch_one(&self.read)
        .await?;
        Ok(signed > 0)
    }

    async fn finalised(&self, member: MemberId, txid: Txid, transaction: &[u8]) -> Stored<()> {
        let mut tx = self.begin("finalise").await?;
        sqlx::query("UPDATE member SET state = 'signed', txid = ?, final_tx = ? WHERE id = ? AND state = 'signing'")
            .bind(txid.to_string())
            .bind(transaction)
            .bind(member)
            .execute(&mut *tx)
            .await?;
        self.commit(tx, "finalise").await
    }

    async fn broadcast(&self, member: MemberId, height: u32, at: i64) -> Stored<()> {
        let mut tx = self.begin("broadcast").await?;
        sqlx::query(
            "UPDATE member SET state = 'broadcast', broadcast_at = COALESCE(broadcast_at, ?), broadcast_height = COALESCE(broadcast_height, ?), \
             not_before = 0 WHERE id = ? AND state IN ('signed', 'broadcast')",
        )
        .bind(at)
        .bind(i64::from(height))
        .bind(member)
        .execute(&mut *tx)
        .await?;
        advance(&mut tx, member, "broadcast", "'batched', 'signing', 'broadcast'", at).await?;
        self.commit(tx, "broadcast").await
    }

    async fn broadcast_later(&self, member: MemberId, not_before: i64, blocked: &Blocked, at: i64) -> Stored<()> {
        let mut tx = self.begin("broadcast_later").await?;
        sqlx::query("UPDATE member SET not_before = ? WHERE id = ?").bind(not_before).bind(member).execute(&mut *tx).await?;
        block(&mut tx, PAID_BY, member, Some(blocked), at).await?;
        self.commit(tx, "broadcast_later").await
    }

    async fn member_refused(&self, member: MemberId, blocked: &Blocked, at: i64) -> Stored<()> {
        let mut tx = self.begin("refuse").await?;
        sqlx::query("UPDATE member SET state = 'refused' WHERE id = ? AND state IN ('built', 'signing')")
            .bind(member)
            .execute(&mut *tx)
            .await?;
        let (alone,): (i64,) =
            sqlx::query_as("SELECT COUNT(*) FROM member_output WHERE member = ?").bind(member).fetch_one(&mut *tx).await?;
        if alone == 1 {
            sqlx::query("UPDATE orders SET refused_code = ? WHERE id IN (SELECT order_id FROM member_output WHERE member = ?) AND state IN ('batched', 'signing')")
                .bind(&blocked.code)
                .bind(member)
                .execute(&mut *tx)
                .await?;
        }
        sqlx::query(
            "UPDATE orders SET blocked_kind = ?, blocked_code = ?, blocked_until = NULL, blocked_message = ?, changed_at = ? \
             WHERE id IN (SELECT order_id FROM member_output WHERE member = ?) AND state IN ('batched', 'signing')",
        )
        .bind(blocked.kind.as_str())
        .bind(&blocked.code)
        .bind(&blocked.message)
        .bind(at)
        .bind(member)
        .execute(&mut *tx)
        .await?;
        self.commit(tx, "refuse").await
    }

    async fn refuse_family(&self, family: FamilyId, at: i64) -> Stored<bool> {
        settle::refuse(self, family, at).await
    }

    async fn anchor_spent(&self, family: FamilyId) -> Stored<AnchorSpent> {
        let found = sqlx::query(
            "SELECT c.spent_txid AS spent_txid, c.spent_height AS spent_height, m.id AS member, m.family AS member_family FROM family f \
             JOIN coin c ON c.txid = f.anchor_txid AND c.vout = f.anchor_vout LEFT JOIN tx t ON t.txid = c.spent_txid \
             LEFT JOIN member m ON m.unsigned_txid = t.unsigned_txid WHERE f.id = ?",
        )
        .bind(family)
        .fetch_optional(&self.read)
        .await?;
        let Some(found) = found else { return Ok(AnchorSpent::Not) };
        let Some(txid) = row::parsed_or_none(&found, "coin", "spent_txid")? else { return Ok(AnchorSpent::Not) };
        Ok(match row::unsigned_or_none(&found, "coin", "spent_height")? {
            None => AnchorSpent::Mempool(txid),
            Some(height) => AnchorSpent::Block { txid, height, member: found.try_get("member")?, family: found.try_get("member_family")? },
        })
    }

    async fn settle(&self, family: FamilyId, by: Option<MemberId>, at: i64) -> Stored<()> {
        settle::settle(self, family, by, at).await
    }

    async fn block_family(&self, family: FamilyId, blocked: Option<&Blocked>, at: i64) -> Stored<()> {
        let mut tx = self.begin("block_family").await?;
        block(
            &mut tx,
            "family = ?6 AND (blocked_code IS NOT ?2 OR blocked_until IS NOT ?3 OR blocked_message IS NOT ?4)",
            family,
            blocked,
            at,
        )
        .await?;
        self.commit(tx, "block_family").await
    }

    async fn release_family(&self, family: FamilyId, at: i64) -> Stored<()> {
        const HELD: &str = "blocked_code LIKE 'attestation.%' AND family";
        // Reading first: this is asked at every step.
        let (held,): (i64,) = sqlx::query_as(AssertSqlSafe(format!("SELECT COUNT(*) FROM orders WHERE {HELD} = ?")))
            .bind(family)
            .fetch_one(&self.read)
            .await?;
        if held == 0 {
            return Ok(());
        }
        let mut tx = self.begin("release_family").await?;
        block(&mut tx, "family = ?6 AND blocked_code LIKE 'attestation.%'", family, None, at).await?;
        self.commit(tx, "release_family").await
    }

    async fn block_orders(&self, orders: &[String], blocked: &Blocked, at: i64) -> Stored<()> {
        let mut tx = self.begin("block_orders").await?;
        for order in orders {
            sqlx::query(
                "UPDATE orders SET blocked_kind = ?, blocked_code = ?, blocked_until = ?, blocked_message = ?, changed_at = ? \
                 WHERE id = ? AND state IN ('batched', 'signing')",
            )
            .bind(blocked.kind.as_str())
            .bind(&blocked.code)
            .bind(blocked.until)
            .bind(&blocked.message)
            .bind(at)
            .bind(order)
            .execute(&mut *tx)
            .await?;
        }
        self.commit(tx, "block_orders").await
    }

    async fn stop_wallet(&self, wallet: &str, code: &str, message: &str, at: i64) -> Stored<()> {
        let mut tx = self.begin("stop").await?;
        stop_in(&mut tx, wallet, code, message, at).await?;
        self.commit(tx, "stop").await
    }

    async fn resume_wallet(&self, wallet: &str) -> Stored<bool> {
        let mut tx = self.begin("resume").await?;
        let gone = sqlx::query("DELETE FROM wallet_stop WHERE wallet = ?").bind(wallet).execute(&mut *tx).await?;
        self.commit(tx, "resume").await?;
        Ok(gone.rows_affected() > 0)
    }

    async fn stops(&self) -> Stored<Vec<WalletStop>> {
        let rows = sqlx::query("SELECT wallet, code, message, at FROM wallet_stop ORDER BY wallet").fetch_all(&self.read).await?;
        rows.iter()
            .map(|r| {
                Ok(WalletStop {
                    wallet: r.try_get("wallet")?,
                    code: r.try_get("code")?,
                    message: r.try_get("message")?,
                    at: r.try_get("at")?,
                })
            })
            .collect()
    }
}

pub(super) async fn stop_in(tx: &mut Tx, wallet: &str, code: &str, message: &str, at: i64) -> Stored<()> {
    sqlx::query("INSERT INTO wallet_stop (wallet, code, message, at) VALUES (?, ?, ?, ?) ON CONFLICT (wallet) DO NOTHING")
        .bind(wallet)
        .bind(code)
        .bind(message)
        .bind(at)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
