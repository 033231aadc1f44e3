//! API keys and leases.

use async_trait::async_trait;

use super::{
    super::{KeyRow, KeyStore, NewKey, Stored},
    SqliteStore, row,
};

#[async_trait]
impl KeyStore for SqliteStore {
    async fn add_key(&self, key: NewKey) -> Stored<()> {
        let mut tx = self.begin("add_key").await?;
        sqlx::query("INSERT INTO api_key (id, person, hash, scopes, created_at) VALUES (?, ?, ?, ?, ?)")
            .bind(&key.id)
            .bind(&key.person)
            .bind(key.hash.as_slice())
            .bind(&key.scopes)
            .bind(key.at)
            .execute(&mut *tx)
            .await?;
        self.commit(tx, "add_key").await
    }

    async fn key(&self, id: &str) -> Stored<Option<KeyRow>> {
        let found = sqlx::query("SELECT * FROM api_key WHERE id = ? AND revoked_at IS NULL").bind(id).fetch_optional(&self.read).await?;
        found.as_ref().map(row::key).transpose()
    }

    async fn keys(&self) -> Stored<Vec<KeyRow>> {
        let rows = sqlx::query("SELECT * FROM api_key ORDER BY created_at, id").fetch_all(&self.read).await?;
        rows.iter().map(row::key).collect()
    }

    async fn revoke_key(&self, id: &str, at: i64) -> Stored<bool> {
        let mut tx = self.begin("revoke_key").await?;
        let gone = sqlx::query("UPDATE api_key SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
            .bind(at)
            .bind(id)
            .execute(&mut *tx)
            .await?;
        self.commit(tx, "revoke_key").await?;
        Ok(gone.rows_affected() == 1)
    }

    async fn lease(&self, name: &str, holder: &str, now: i64, until: i64) -> Stored<bool> {
        let mut tx = self.begin("lease").await?;
        let taken = sqlx::query(
            "INSERT INTO lease (name, holder, until_ms) VALUES (?1, ?2, ?4) ON CONFLICT (name) DO UPDATE SET holder = ?2, until_ms = ?4 \
             WHERE holder = ?2 OR until_ms <= ?3",
        )
        .bind(name)
        .bind(holder)
        .bind(now)
        .bind(until)
        .execute(&mut *tx)
        .await?;
        self.commit(tx, "lease").await?;
        Ok(taken.rows_affected() == 1)
    }

    async fn release(&self, name: &str, holder: &str) -> Stored<()> {
        let mut tx = self.begin("release").await?;
        sqlx::query("DELETE FROM lease WHERE name = ? AND holder = ?").bind(name).bind(holder).execute(&mut *tx).await?;
        self.commit(tx, "release").await
    }
}
