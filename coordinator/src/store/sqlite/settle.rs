//! How a family ends.

use sqlx::AssertSqlSafe;

use super::{
    super::{FamilyId, MemberId, Stored},
    SqliteStore,
};

/// A transaction that spends the anchor is buried.
pub(super) async fn settle(store: &SqliteStore, family: FamilyId, by: Option<MemberId>, at: i64) -> Stored<()> {
    const CLEAR: &str = "blocked_kind = NULL, blocked_code = NULL, blocked_until = NULL, blocked_message = NULL";
    let mut tx = store.begin("settle").await?;
    let settled = sqlx::query("UPDATE family SET state = 'settled', settled_at = ? WHERE id = ? AND state = 'open'")
        .bind(at)
        .bind(family)
        .execute(&mut *tx)
        .await?;
    if settled.rows_affected() == 0 {
        return Ok(());
    }
    // Paid by the buried transaction.
    sqlx::query(AssertSqlSafe(format!(
        "UPDATE orders SET state = 'confirmed', {CLEAR}, refused_code = NULL, changed_at = ?1 WHERE family = ?2 \
         AND id IN (SELECT order_id FROM member_output WHERE member = ?3)"
    )))
    .bind(at)
    .bind(family)
    .bind(by)
    .execute(&mut *tx)
    .await?;
    // Not paid by it, and no member can pay it any more: refused alone, or free for another family, or, when a stranger's transaction
    // took the anchor, for people to look at.
    let (ours,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM member WHERE id = ? AND family = ?").bind(by).bind(family).fetch_one(&mut *tx).await?;
    if ours == 1 {
        sqlx::query(
            "UPDATE orders SET state = 'refused', changed_at = ?1 WHERE family = ?2 AND state IN ('batched', 'signing', 'broadcast') \
             AND refused_code IS NOT NULL",
        )
        .bind(at)
        .bind(family)
        .execute(&mut *tx)
        .await?;
        sqlx::query(AssertSqlSafe(format!(
            "UPDATE orders SET state = 'approved', family = NULL, {CLEAR}, changed_at = ?1 WHERE family = ?2 \
             AND state IN ('batched', 'signing', 'broadcast')"
        )))
        .bind(at)
        .bind(family)
        .execute(&mut *tx)
        .await?;
    } else {
        sqlx::query(
            "UPDATE orders SET state = 'failed', blocked_kind = 'alarm', blocked_code = 'family.conflicted', blocked_until = NULL, \
             blocked_message = 'its coins were spent by a transaction that does not pay it', changed_at = ?1 WHERE family = ?2 \
             AND state IN ('batched', 'signing', 'broadcast')",
        )
        .bind(at)
        .bind(family)
        .execute(&mut *tx)
        .await?;
    }
    // Coins that the buried transaction did not take are free again.
    sqlx::query("UPDATE coin SET reserved_by = NULL WHERE reserved_by = ? AND spent_txid IS NULL").bind(family).execute(&mut *tx).await?;
    sqlx::query("DELETE FROM signer_request WHERE reply IS NULL AND handed = 0 AND member IN (SELECT id FROM member WHERE family = ?)")
        .bind(family)
        .execute(&mut *tx)
        .await?;
    store.commit(tx, "settle").await
}

/// Everything is refused and nothing was ever signed. False: that is not certain.
pub(super) async fn refuse(store: &SqliteStore, family: FamilyId, at: i64) -> Stored<bool> {
    let mut tx = store.begin("refuse_family").await?;
    let (doubt,): (i64,) = sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM member WHERE family = ?1 AND (state <> 'refused' OR final_tx IS NOT NULL)) \
         + (SELECT COUNT(*) FROM signature s JOIN member m ON m.id = s.member WHERE m.family = ?1) \
         + (SELECT COUNT(*) FROM signer_request r JOIN member m ON m.id = r.member WHERE m.family = ?1 AND r.reply IS NULL AND r.handed > 0) \
         + (SELECT COUNT(*) FROM orders WHERE family = ?1 AND refused_code IS NULL) \
         + (SELECT COUNT(*) FROM family WHERE id = ?1 AND state <> 'open')",
    )
    .bind(family)
    .fetch_one(&mut *tx)
    .await?;
    if doubt > 0 {
        return Ok(false);
    }
    sqlx::query("UPDATE family SET state = 'refused', settled_at = ? WHERE id = ?").bind(at).bind(family).execute(&mut *tx).await?;
    sqlx::query("UPDATE orders SET state = 'refused', changed_at = ? WHERE family = ?").bind(at).bind(family).execute(&mut *tx).await?;
    sqlx::query("UPDATE coin SET spend_first = 1 WHERE (txid, vout) IN (SELECT anchor_txid, anchor_vout FROM family WHERE id = ?)")
        .bind(family)
        .execute(&mut *tx)
        .await?;
    sqlx::query("UPDATE coin SET reserved_by = NULL WHERE reserved_by = ?").bind(family).execute(&mut *tx).await?;
    sqlx::query("DELETE FROM signer_request WHERE reply IS NULL AND handed = 0 AND member IN (SELECT id FROM member WHERE family = ?)")
        .bind(family)
        .execute(&mut *tx)
        .await?;
    store.commit(tx, "refuse_family").await?;
    Ok(true)
}
