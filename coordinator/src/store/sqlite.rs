//! [`Store`](super::Store) on SQLite: WAL, `synchronous=FULL`, one connection that writes, `BEGIN IMMEDIATE`.

mod attestation;
mod chain;
mod families;
mod keys;
mod orders;
mod row;
mod settle;
mod signers;

use std::{path::Path, time::Duration};

use bitcoin::Network;
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{StoreError, Stored};
use crate::failpoint;

/// The database in a file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    write: SqlitePool,
    read: SqlitePool,
    #[cfg(test)]
    crash: crate::failpoint::CrashPlan,
}

type Tx = Transaction<'static, Sqlite>;

impl SqliteStore {
    /// Opens or makes the database and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Network`] when it was made for another network.
    pub async fn open(path: &Path, network: Network) -> Stored<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(15))
            .pragma("trusted_schema", "OFF");
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(60))
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await?;
        sqlx::migrate!("src/store/migrations").run(&write).await?;
        let read = SqlitePoolOptions::new().max_connections(4).connect_with(options.read_only(true).create_if_missing(false)).await?;
        let store = Self {
            write,
            read,
            #[cfg(test)]
            crash: crate::failpoint::CrashPlan::default(),
        };
        store.claim_network(network).await?;
        Ok(store)
    }

    async fn claim_network(&self, network: Network) -> Stored<()> {
        let wanted = network.to_string();
        let mut tx = self.begin("network").await?;
        sqlx::query("INSERT INTO meta (key, value) VALUES ('network', ?) ON CONFLICT (key) DO NOTHING")
            .bind(&wanted)
            .execute(&mut *tx)
            .await?;
        let (found,): (String,) = sqlx::query_as("SELECT value FROM meta WHERE key = 'network'").fetch_one(&mut *tx).await?;
        self.commit(tx, "network").await?;
        if found == wanted { Ok(()) } else { Err(StoreError::Network { found, wanted }) }
    }

    /// Every durable step begins and ends here; tests end the process on either side of the commit.
    async fn begin(&self, step: &'static str) -> Stored<Tx> {
        failpoint::hit(step, "begin");
        Ok(self.write.begin_with("BEGIN IMMEDIATE").await?)
    }

    async fn commit(&self, tx: Tx, step: &'static str) -> Stored<()> {
        failpoint::hit(step, "before");
        #[cfg(test)]
        self.crash.before(step)?;
        tx.commit().await?;
        failpoint::hit(step, "after");
        #[cfg(test)]
        self.crash.after(step)?;
        Ok(())
    }

    /// The plan of a test that ends the process at a chosen step.
    #[cfg(test)]
    pub(crate) fn crash_plan(&self) -> &crate::failpoint::CrashPlan {
        &self.crash
    }

    /// Closes the database; what was committed is on disk.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

#[cfg(test)]
mod tests;
