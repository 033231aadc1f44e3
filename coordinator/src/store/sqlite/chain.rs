//! The chain as followed, scripts and coins of ours.

use std::collections::HashSet;

use async_trait::async_trait;
use bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Txid, consensus::encode};
use sqlx::{AssertSqlSafe, Row as _, sqlite::SqliteRow};

use super::{
    super::{Balance, BlockRef, ChainStore, Coin, Deposit, Effects, FamilyId, HandOut, OwnScript, Stored, UsedIndex},
    SqliteStore, Tx,
    row::{self, sat},
};

/// Values in one IN list.
const CHUNK: usize = 500;
/// Blocks until a coinbase may be spent.
const COINBASE_MATURITY: i64 = 100;
/// Most deposits in one answer.
const LIST_MAX: u32 = 1_000;

const COIN: &str = "c.txid AS txid, c.vout AS vout, c.branch AS branch, c.idx AS idx, c.value_sat AS value_sat, c.coinbase AS coinbase, \
     c.height AS height, c.spend_first AS spend_first, s.public_key AS public_key, t.raw AS raw, \
     EXISTS (SELECT 1 FROM member m WHERE m.txid = c.txid) AS own_change, EXISTS (SELECT 1 FROM member m WHERE m.txid = c.txid \
     AND m.state = 'broadcast' AND (SELECT COUNT(*) FROM member x WHERE x.family = m.family) = 1) AS sole_parent";
const COIN_FROM: &str =
    "FROM coin c JOIN tx t ON t.txid = c.txid LEFT JOIN script s ON s.wallet = c.wallet AND s.branch = c.branch AND s.idx = c.idx";

/// The transaction without anything that a signature adds: its txid is what the signer and we know it by.
fn unsigned_txid(transaction: &Transaction) -> Txid {
    let mut bare = transaction.clone();
    for input in &mut bare.input {
        input.script_sig = ScriptBuf::new();
        input.witness.clear();
    }
    bare.compute_txid()
}

async fn keep(tx: &mut Tx, effects: &Effects, height: Option<u32>, at: i64) -> Stored<()> {
    for transaction in &effects.transactions {
        sqlx::query("INSERT INTO tx (txid, unsigned_txid, raw) VALUES (?, ?, ?) ON CONFLICT (txid) DO NOTHING")
            .bind(transaction.compute_txid().to_string())
            .bind(unsigned_txid(transaction).to_string())
            .bind(encode::serialize(transaction))
            .execute(&mut **tx)
            .await?;
    }
    for r in &effects.received {
        sqlx::query(
            "INSERT INTO coin (txid, vout, wallet, branch, idx, value_sat, coinbase, height, present, first_seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?) \
             ON CONFLICT (txid, vout) DO UPDATE SET height = COALESCE(excluded.height, height), present = 1",
        )
        .bind(r.outpoint.txid.to_string())
        .bind(i64::from(r.outpoint.vout))
        .bind(&r.wallet)
        .bind(i64::from(r.branch))
        .bind(i64::from(r.index))
        .bind(sat(r.value_sat))
        .bind(r.coinbase)
        .bind(height.map(i64::from))
        .bind(at)
        .execute(&mut **tx)
        .await?;
    }
    for (outpoint, spender) in &effects.spent {
        // What a block says overrides the mempool, never the other way round.
        sqlx::query(
            "UPDATE coin SET spent_txid = ?1, spent_height = ?2 WHERE txid = ?3 AND vout = ?4 AND (?2 IS NOT NULL OR spent_height IS NULL)",
        )
        .bind(spender.to_string())
        .bind(height.map(i64::from))
        .bind(outpoint.txid.to_string())
        .bind(i64::from(outpoint.vout))
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

fn coin(row: &SqliteRow) -> Stored<Coin> {
    Ok(Coin {
        outpoint: OutPoint { txid: row::parsed(row, "coin", "txid")?, vout: row::unsigned(row, "coin", "vout")? },
        branch: row::unsigned(row, "coin", "branch")?,
        index: row::unsigned(row, "coin", "idx")?,
        value_sat: row::unsigned(row, "coin", "value_sat")?,
        coinbase: row.try_get("coinbase")?,
        height: row::unsigned_or_none(row, "coin", "height")?,
        own_change: row.try_get("own_change")?,
        sole_parent: row.try_get("sole_parent")?,
        spend_first: row.try_get("spend_first")?,
        public_key: row.try_get("public_key")?,
        transaction: row.try_get("raw")?,
    })
}

async fn tip_in(tx: &mut Tx) -> Stored<Option<BlockRef>> {
    let found = sqlx::query("SELECT height, hash FROM block ORDER BY height DESC LIMIT 1").fetch_optional(&mut **tx).await?;
    found.as_ref().map(block_ref).transpose()
}

fn block_ref(row: &SqliteRow) -> Stored<BlockRef> {
    Ok(BlockRef { height: row::unsigned(row, "block", "height")?, hash: row::parsed(row, "block", "hash")? })
}

#[async_trait]
impl ChainStore for SqliteStore {
    async fn tip(&self) -> Stored<Option<BlockRef>> {
        let found = sqlx::query("SELECT height, hash FROM block ORDER BY height DESC LIMIT 1").fetch_optional(&self.read).await?;
        found.as_ref().map(block_ref).transpose()
    }

    async fn block_at(&self, height: u32) -> Stored<Option<BlockHash>> {
        let found = sqlx::query("SELECT hash FROM block WHERE height = ?").bind(i64::from(height)).fetch_optional(&self.read).await?;
        found.as_ref().map(|r| row::parsed(r, "block", "hash")).transpose()
    }

    async fn start_at(&self, block: BlockRef) -> Stored<()> {
        let mut tx = self.begin("start_at").await?;
        // Blocks are forgotten, coins are not: what is followed again finds them there.
        sqlx::query("DELETE FROM block").execute(&mut *tx).await?;
        sqlx::query("INSERT INTO block (height, hash) VALUES (?, ?)")
            .bind(i64::from(block.height))
            .bind(block.hash.to_string())
            .execute(&mut *tx)
            .await?;
        self.commit(tx, "start_at").await
    }

    async fn connect(&self, previous: Option<BlockHash>, block: BlockRef, effects: &Effects, at: i64) -> Stored<bool> {
        let mut tx = self.begin("connect").await?;
        if tip_in(&mut tx).await?.map(|tip| tip.hash) != previous {
            return Ok(false);
        }
        keep(&mut tx, effects, Some(block.height), at).await?;
        sqlx::query("INSERT INTO block (height, hash) VALUES (?, ?)")
            .bind(i64::from(block.height))
            .bind(block.hash.to_string())
            .execute(&mut *tx)
            .await?;
        self.commit(tx, "connect").await?;
        Ok(true)
    }

    async fn disconnect(&self, block: BlockRef) -> Stored<bool> {
        let mut tx = self.begin("disconnect").await?;
        if tip_in(&mut tx).await? != Some(block) {
            return Ok(false);
        }
        for sql in [
            "UPDATE coin SET height = NULL WHERE height = ?",
            "UPDATE coin SET spent_height = NULL WHERE spent_height = ?",
            "DELETE FROM block WHERE height = ?",
        ] {
            sqlx::query(sql).bind(i64::from(block.height)).execute(&mut *tx).await?;
        }
        self.commit(tx, "disconnect").await?;
        Ok(true)
    }

    async fn mempool(&self, effects: &Effects, all: &HashSet<Txid>, at: i64) -> Stored<()> {
        let gone_from = |txid: &str| txid.parse().is_ok_and(|txid: Txid| !all.contains(&txid));
        let coins: Vec<(String, i64, i64)> =
            sqlx::query_as("SELECT txid, vout, present FROM coin WHERE height IS NULL").fetch_all(&self.read).await?;
        let spenders: Vec<(String,)> =
            sqlx::query_as("SELECT DISTINCT spent_txid FROM coin WHERE spent_txid IS NOT NULL AND spent_height IS NULL")
                .fetch_all(&self.read)
                .await?;
        let vanished: Vec<_> = coins.iter().filter(|(txid, _, present)| *present == 1 && gone_from(txid)).collect();
        let unspent: Vec<_> = spenders.iter().filter(|(txid,)| gone_from(txid)).collect();
        if vanished.is_empty() && unspent.is_empty() && effects.received.is_empty() && effects.spent.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin("mempool").await?;
        for (txid, vout, _) in vanished {
            sqlx::query("UPDATE coin SET present = 0 WHERE txid = ? AND vout = ? AND height IS NULL")
                .bind(txid)
                .bind(vout)
                .execute(&mut *tx)
                .await?;
        }
        for (txid,) in unspent {
            sqlx::query("UPDATE coin SET spent_txid = NULL WHERE spent_txid = ? AND spent_height IS NULL")
                .bind(txid)
                .execute(&mut *tx)
                .await?;
        }
        keep(&mut tx, effects, None, at).await?;
        self.commit(tx, "mempool").await
    }

    async fn own_scripts(&self, scripts: &[ScriptBuf]) -> Stored<Vec<OwnScript>> {
        let mut own = Vec::new();
        for chunk in scripts.chunks(CHUNK) {
            let places = vec!["?"; chunk.len()].join(", ");
            let sql = format!("SELECT wallet, branch, idx, script, public_key FROM script WHERE script IN ({places})");
            let query = chunk.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, script| query.bind(script.as_bytes()));
            for found in query.fetch_all(&self.read).await? {
                own.push(row::own_script(&found)?);
            }
        }
        Ok(own)
    }

    async fn own_coins(&self, outpoints: &[OutPoint]) -> Stored<Vec<OutPoint>> {
        let wanted: HashSet<&OutPoint> = outpoints.iter().collect();
        let mut own = Vec::new();
        for chunk in outpoints.chunks(CHUNK) {
            let places = vec!["?"; chunk.len()].join(", ");
            let sql = format!("SELECT txid, vout FROM coin WHERE txid IN ({places})");
            let query = chunk.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, outpoint| query.bind(outpoint.txid.to_string()));
            for found in query.fetch_all(&self.read).await? {
                let outpoint = OutPoint { txid: row::parsed(&found, "coin", "txid")?, vout: row::unsigned(&found, "coin", "vout")? };
                if wanted.contains(&outpoint) {
                    own.push(outpoint);
                }
            }
        }
        own.sort_unstable();
        own.dedup();
        Ok(own)
    }

    async fn free_coins(&self, wallet: &str) -> Stored<Vec<Coin>> {
        let rows = sqlx::query(AssertSqlSafe(format!(
            "SELECT {COIN} {COIN_FROM} WHERE c.wallet = ? AND c.spent_txid IS NULL AND c.reserved_by IS NULL AND c.present = 1 ORDER BY c.value_sat DESC"
        )))
        .bind(wallet)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(coin).collect()
    }

    async fn reserved_coins(&self, family: FamilyId) -> Stored<Vec<Coin>> {
        let rows = sqlx::query(AssertSqlSafe(format!("SELECT {COIN} {COIN_FROM} WHERE c.reserved_by = ? ORDER BY c.txid, c.vout")))
            .bind(family)
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(coin).collect()
    }

    async fn balance(&self, wallet: &str, tip: u32, confirmations: u32) -> Stored<Balance> {
        let deep = i64::from(tip).saturating_sub(i64::from(confirmations)).saturating_add(1);
        let change_deep = i64::from(tip);
        let mature = i64::from(tip).saturating_sub(COINBASE_MATURITY).saturating_add(1);
        let found = sqlx::query(
            "SELECT COALESCE(SUM(CASE WHEN good AND reserved_by IS NULL THEN value_sat END), 0) AS available, \
             COALESCE(SUM(CASE WHEN good AND reserved_by IS NOT NULL THEN value_sat END), 0) AS reserved, \
             COALESCE(SUM(CASE WHEN NOT good THEN value_sat END), 0) AS pending FROM (SELECT value_sat, reserved_by, \
             (height IS NOT NULL AND height <= CASE WHEN EXISTS (SELECT 1 FROM member m WHERE m.txid = coin.txid) THEN ?3 ELSE ?2 END \
             AND (coinbase = 0 OR height <= ?4)) AS good FROM coin \
             WHERE wallet = ?1 AND spent_height IS NULL AND (spent_txid IS NULL OR reserved_by IS NOT NULL) AND present = 1)",
        )
        .bind(wallet)
        .bind(deep)
        .bind(change_deep)
        .bind(mature)
        .fetch_one(&self.read)
        .await?;
        Ok(Balance {
            available_sat: row::unsigned(&found, "coin", "available")?,
            reserved_sat: row::unsigned(&found, "coin", "reserved")?,
            pending_sat: row::unsigned(&found, "coin", "pending")?,
        })
    }

    async fn deposits(&self, wallet: Option<&str>, limit: u32) -> Stored<Vec<Deposit>> {
        let rows = sqlx::query(
            "SELECT c.txid AS txid, c.vout AS vout, c.wallet AS wallet, c.idx AS idx, s.script AS script, s.handed_for AS handed_for, \
             c.value_sat AS value_sat, c.height AS height, c.present AS present, c.first_seen AS first_seen FROM coin c \
             JOIN script s ON s.wallet = c.wallet AND s.branch = c.branch AND s.idx = c.idx \
             WHERE c.branch = 0 AND (?1 IS NULL OR c.wallet = ?1) AND NOT EXISTS (SELECT 1 FROM member m WHERE m.txid = c.txid) \
             ORDER BY c.rowid DESC LIMIT ?2",
        )
        .bind(wallet)
        .bind(i64::from(limit.min(LIST_MAX)))
        .fetch_all(&self.read)
        .await?;
        rows.iter()
            .map(|r| {
                let handed_for: Option<String> = r.try_get("handed_for")?;
                Ok(Deposit {
                    outpoint: OutPoint { txid: row::parsed(r, "coin", "txid")?, vout: row::unsigned(r, "coin", "vout")? },
                    wallet: r.try_get("wallet")?,
                    index: row::unsigned(r, "coin", "idx")?,
                    script: row::script(r, "script")?,
                    reference: handed_for.and_then(|f| f.strip_prefix("d:").map(ToOwned::to_owned)),
                    value_sat: row::unsigned(r, "coin", "value_sat")?,
                    height: row::unsigned_or_none(r, "coin", "height")?,
                    present: r.try_get("present")?,
                    first_seen: r.try_get("first_seen")?,
                })
            })
            .collect()
    }

    async fn transaction(&self, txid: Txid) -> Stored<Option<Vec<u8>>> {
        let found: Option<(Vec<u8>,)> =
            sqlx::query_as("SELECT raw FROM tx WHERE txid = ?").bind(txid.to_string()).fetch_optional(&self.read).await?;
        Ok(found.map(|(raw,)| raw))
    }

    async fn last_script(&self, wallet: &str, branch: u32) -> Stored<Option<u32>> {
        let found = sqlx::query("SELECT MAX(idx) AS idx FROM script WHERE wallet = ? AND branch = ?")
            .bind(wallet)
            .bind(i64::from(branch))
            .fetch_one(&self.read)
            .await?;
        row::unsigned_or_none(&found, "script", "idx")
    }

    async fn last_used(&self, wallet: &str, branch: u32) -> Stored<UsedIndex> {
        let found = sqlx::query(
            "SELECT (SELECT MAX(idx) FROM script WHERE wallet = ?1 AND branch = ?2 AND handed_at IS NOT NULL) AS handed, \
             (SELECT MAX(idx) FROM coin WHERE wallet = ?1 AND branch = ?2) AS paid",
        )
        .bind(wallet)
        .bind(i64::from(branch))
        .fetch_one(&self.read)
        .await?;
        let handed: Option<u32> = row::unsigned_or_none(&found, "script", "handed")?;
        let paid: Option<u32> = row::unsigned_or_none(&found, "coin", "paid")?;
        Ok(UsedIndex { handed: handed.max(paid), paid })
    }

    async fn add_scripts(&self, scripts: &[OwnScript]) -> Stored<()> {
        let mut tx = self.begin("scripts").await?;
        insert_scripts(&mut tx, scripts).await?;
        self.commit(tx, "scripts").await
    }

    async fn script_at(&self, wallet: &str, branch: u32, index: u32) -> Stored<Option<OwnScript>> {
        let found = sqlx::query("SELECT wallet, branch, idx, script, public_key FROM script WHERE wallet = ? AND branch = ? AND idx = ?")
            .bind(wallet)
            .bind(i64::from(branch))
            .bind(i64::from(index))
            .fetch_optional(&self.read)
            .await?;
        found.as_ref().map(row::own_script).transpose()
    }

    async fn hand_out(&self, wallet: &str, reference: &str, limit: u32, at: i64) -> Stored<HandOut> {
        let mut tx = self.begin("hand_out").await?;
        let handed_for = format!("d:{reference}");
        let same = sqlx::query("SELECT wallet, branch, idx, script, public_key FROM script WHERE wallet = ? AND handed_for = ?")
            .bind(wallet)
            .bind(&handed_for)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(same) = same {
            return Ok(HandOut::Same(row::own_script(&same)?));
        }
        // Never one that was handed out or paid to, and never one before such a one: a restored database that forgot a hand-out sees the
        // payments that came after it.
        let free = sqlx::query(
            "SELECT wallet, branch, idx, script, public_key FROM script WHERE wallet = ?1 AND branch = 0 AND handed_at IS NULL AND idx < ?2 \
             AND idx > COALESCE((SELECT MAX(idx) FROM coin WHERE wallet = ?1 AND branch = 0), -1) \
             AND idx > COALESCE((SELECT MAX(idx) FROM script WHERE wallet = ?1 AND branch = 0 AND handed_at IS NOT NULL), -1) ORDER BY idx LIMIT 1",
        )
        .bind(wallet)
        .bind(i64::from(limit))
        .fetch_optional(&mut *tx)
        .await?;
        let Some(free) = free else { return Ok(HandOut::None) };
        let own = row::own_script(&free)?;
        sqlx::query("UPDATE script SET handed_at = ?, handed_for = ? WHERE wallet = ? AND branch = 0 AND idx = ?")
            .bind(at)
            .bind(&handed_for)
            .bind(wallet)
            .bind(i64::from(own.index))
            .execute(&mut *tx)
            .await?;
        self.commit(tx, "hand_out").await?;
        Ok(HandOut::New(own))
    }

    async fn next_change(&self, wallet: &str, branch: u32) -> Stored<Option<OwnScript>> {
        let found = sqlx::query(
            "SELECT wallet, branch, idx, script, public_key FROM script s WHERE wallet = ?1 AND branch = ?2 AND handed_at IS NULL \
             AND NOT EXISTS (SELECT 1 FROM coin c WHERE c.wallet = s.wallet AND c.branch = s.branch AND c.idx = s.idx) ORDER BY idx LIMIT 1",
        )
        .bind(wallet)
        .bind(i64::from(branch))
        .fetch_optional(&self.read)
        .await?;
        let found = match found {
            Some(unused) => Some(unused),
            None => {
                sqlx::query(
                    "SELECT wallet, branch, idx, script, public_key FROM script s WHERE wallet = ?1 AND branch = ?2 AND NOT EXISTS \
                     (SELECT 1 FROM coin c WHERE c.wallet = s.wallet AND c.branch = s.branch AND c.idx = s.idx AND c.spent_height IS NULL) \
                     AND EXISTS (SELECT 1 FROM coin c WHERE c.wallet = s.wallet AND c.branch = s.branch AND c.idx = s.idx) \
                     ORDER BY handed_at, idx LIMIT 1",
                )
                .bind(wallet)
                .bind(i64::from(branch))
                .fetch_optional(&self.read)
                .await?
            }
        };
        found.as_ref().map(row::own_script).transpose()
    }
}

pub(super) async fn insert_scripts(tx: &mut Tx, scripts: &[OwnScript]) -> Stored<()> {
    for s in scripts {
        sqlx::query("INSERT INTO script (wallet, branch, idx, script, public_key) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(&s.wallet)
            .bind(i64::from(s.branch))
            .bind(i64::from(s.index))
            .bind(s.script.as_bytes())
            .bind(&s.public_key)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}
