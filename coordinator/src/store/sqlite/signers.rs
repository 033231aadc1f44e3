//! Signers, their requests and their reports.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row as _};

use super::{
    super::{MemberId, NewRequest, NewSigner, Outcome, ReplyEffect, RequestRow, SignerRow, SignerStore, Stored},
    SqliteStore, Tx, attestation, chain, families, row,
};

/// WHERE for what may be handed out: takes whether its signer must be believed, and the time.
const MAY_HAVE: &str = "wallet NOT IN (SELECT wallet FROM wallet_stop) AND (kind = 'attest' OR NOT ? OR EXISTS \
     (SELECT 1 FROM attestation a WHERE a.signer = signer_request.signer AND a.trusted_until > ?))";

pub(super) async fn insert_request(tx: &mut Tx, request: &NewRequest, at: i64) -> Stored<()> {
    sqlx::query(
        "INSERT INTO signer_request (id, signer, wallet, kind, member, body, created_at, not_before) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(&request.id)
    .bind(&request.signer)
    .bind(&request.wallet)
    .bind(request.kind.as_str())
    .bind(request.member)
    .bind(&request.body)
    .bind(at)
    .bind(request.not_before)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn outcome(tx: &mut Tx, request: &str, outcome: Outcome) -> Stored<bool> {
    let done = sqlx::query("UPDATE signer_request SET outcome = ? WHERE id = ? AND outcome IS NULL AND reply IS NOT NULL")
        .bind(outcome.as_str())
        .bind(request)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

#[async_trait]
impl SignerStore for SqliteStore {
    async fn add_signer(&self, signer: NewSigner) -> Stored<bool> {
        let mut tx = self.begin("add_signer").await?;
        let added = sqlx::query(
            "INSERT INTO signer (name, tls_pin, client_auth, signer_key, added_at) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (name) DO UPDATE SET tls_pin = excluded.tls_pin, client_auth = excluded.client_auth, signer_key = excluded.signer_key, \
             added_at = excluded.added_at, removed_at = NULL WHERE removed_at IS NOT NULL \
             OR (tls_pin = excluded.tls_pin AND client_auth = excluded.client_auth AND signer_key = excluded.signer_key)",
        )
        .bind(&signer.name)
        .bind(&signer.tls_pin)
        .bind(&signer.client_auth)
        .bind(signer.signer_key.to_string())
        .bind(signer.at)
        .execute(&mut *tx)
        .await;
        match added {
            Ok(done) if done.rows_affected() == 1 => {
                self.commit(tx, "add_signer").await?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(sqlx::Error::Database(e)) if e.is_unique_violation() => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    async fn remove_signer(&self, name: &str, at: i64) -> Stored<bool> {
        let mut tx = self.begin("remove_signer").await?;
        // Its keys are free for another pairing; its requests stay, for what they may have led to.
        let gone = sqlx::query(
            "UPDATE signer SET removed_at = ?1, tls_pin = tls_pin || ' removed ' || ?1, signer_key = signer_key || ' removed ' || ?1 WHERE name = ?2 AND removed_at IS NULL",
        )
        .bind(at)
        .bind(name)
        .execute(&mut *tx)
        .await?;
        if gone.rows_affected() == 1 {
            attestation::forget(&mut tx, name).await?;
        }
        self.commit(tx, "remove_signer").await?;
        Ok(gone.rows_affected() == 1)
    }

    async fn signers(&self) -> Stored<Vec<SignerRow>> {
        let rows = sqlx::query("SELECT * FROM signer WHERE removed_at IS NULL ORDER BY name").fetch_all(&self.read).await?;
        rows.iter().map(row::signer).collect()
    }

    async fn add_request(&self, request: NewRequest, at: i64) -> Stored<()> {
        let mut tx = self.begin("request").await?;
        insert_request(&mut tx, &request, at).await?;
        self.commit(tx, "request").await
    }

    async fn take_requests(
        &self,
        signer: &str,
        attested: bool,
        capacity: u32,
        bytes_max: usize,
        in_flight: &[String],
        at: i64,
    ) -> Stored<Vec<(String, Vec<u8>)>> {
        // Reading first: an idle poll writes nothing.
        let due = sqlx::query(AssertSqlSafe(format!(
            "SELECT id, body FROM signer_request WHERE signer = ? AND reply IS NULL AND not_before <= ? \
             AND {MAY_HAVE} ORDER BY not_before, created_at, id LIMIT ?"
        )))
        .bind(signer)
        .bind(at)
        .bind(attested)
        .bind(at)
        .bind(i64::from(capacity).saturating_add(i64::try_from(in_flight.len()).unwrap_or(0)))
        .fetch_all(&self.read)
        .await?;
        let mut taken: Vec<(String, Vec<u8>)> = Vec::new();
        let mut bytes = 0_usize;
        for found in due {
            let (id, body): (String, Vec<u8>) = (found.try_get("id")?, found.try_get("body")?);
            if in_flight.contains(&id) {
                continue;
            }
            bytes = bytes.saturating_add(body.len());
            if taken.len() >= usize::try_from(capacity).unwrap_or(usize::MAX) || (bytes > bytes_max && !taken.is_empty()) {
                break;
            }
            taken.push((id, body));
        }
        if taken.is_empty() {
            return Ok(taken);
        }
        let mut tx = self.begin("hand").await?;
        let mut handed = Vec::new();
        for (id, body) in taken {
            // Still there, still open, still not stopped, and its signer still believed.
            let done = sqlx::query(AssertSqlSafe(format!(
                "UPDATE signer_request SET handed = handed + 1, handed_at = ? WHERE id = ? AND reply IS NULL AND {MAY_HAVE}"
            )))
            .bind(at)
            .bind(&id)
            .bind(attested)
            .bind(at)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 1 {
                handed.push((id, body));
            }
        }
        self.commit(tx, "hand").await?;
        Ok(handed)
    }

    async fn pulled(&self, signer: &str, at: i64) -> Stored<()> {
        let mut tx = self.begin("pulled").await?;
        sqlx::query("UPDATE signer SET last_pull_at = ? WHERE name = ?").bind(at).bind(signer).execute(&mut *tx).await?;
        self.commit(tx, "pulled").await
    }

    async fn request(&self, id: &str) -> Stored<Option<RequestRow>> {
        let found = sqlx::query("SELECT * FROM signer_request WHERE id = ?").bind(id).fetch_optional(&self.read).await?;
        found.as_ref().map(row::request).transpose()
    }

    async fn reply(&self, id: &str, signer: &str, reply: &[u8], at: i64) -> Stored<bool> {
        let mut tx = self.begin("reply").await?;
        let kept =
            sqlx::query("UPDATE signer_request SET reply = ?, replied_at = ? WHERE id = ? AND signer = ? AND reply IS NULL AND handed > 0")
                .bind(reply)
                .bind(at)
                .bind(id)
                .bind(signer)
                .execute(&mut *tx)
                .await?;
        self.commit(tx, "reply").await?;
        Ok(kept.rows_affected() == 1)
    }

    async fn unapplied(&self, limit: u32) -> Stored<Vec<RequestRow>> {
        let rows = sqlx::query("SELECT * FROM signer_request WHERE reply IS NOT NULL AND outcome IS NULL ORDER BY replied_at, id LIMIT ?")
            .bind(i64::from(limit))
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(row::request).collect()
    }

    async fn member_requests(&self, member: MemberId) -> Stored<Vec<RequestRow>> {
        let rows = sqlx::query("SELECT * FROM signer_request WHERE member = ? ORDER BY created_at, rowid")
            .bind(member)
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(row::request).collect()
    }

    async fn open_request_for(&self, body: &[u8]) -> Stored<bool> {
        let (open,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM signer_request WHERE outcome IS NULL AND member IS NULL AND body = ?")
            .bind(body)
            .fetch_one(&self.read)
            .await?;
        Ok(open > 0)
    }

    async fn apply(&self, request: &str, effect: ReplyEffect, at: i64) -> Stored<()> {
        let Some(known) = self.request(request).await? else { return Ok(()) };
        let mut tx = self.begin("apply").await?;
        let (word, blocked) = match &effect {
            ReplyEffect::Signed(_) => (Outcome::Signed, None),
            ReplyEffect::Again { outcome, blocked, .. } => (*outcome, Some(blocked)),
            ReplyEffect::No(blocked) => (Outcome::No, Some(blocked)),
            ReplyEffect::Alarm { blocked } => (Outcome::Alarm, Some(blocked)),
            ReplyEffect::Scripts(_) | ReplyEffect::Attested(_) | ReplyEffect::Ignored => (Outcome::Done, None),
        };
        if !outcome(&mut tx, request, word).await? {
            return Ok(());
        }
        match &effect {
            ReplyEffect::Signed(body) => {
                if let Some(member) = known.member {
                    sqlx::query(
                        "INSERT INTO signature (member, signer, body, at) VALUES (?, ?, ?, ?) ON CONFLICT (member, signer) DO NOTHING",
                    )
                    .bind(member)
                    .bind(&known.signer)
                    .bind(body)
                    .bind(at)
                    .execute(&mut *tx)
                    .await?;
                }
            }
            ReplyEffect::Again { next, .. } => insert_request(&mut tx, next, at).await?,
            ReplyEffect::Alarm { blocked } => {
                families::stop_in(&mut tx, &known.wallet, &blocked.code, blocked.message.as_deref().unwrap_or_default(), at).await?;
            }
            ReplyEffect::Attested(change) => attestation::apply(&mut tx, &known.signer, request, change, at).await?,
            ReplyEffect::Scripts(scripts) => chain::insert_scripts(&mut tx, scripts).await?,
            ReplyEffect::No(_) | ReplyEffect::Ignored => {}
        }
        if let (Some(member), Some(blocked)) = (known.member, blocked) {
            families::block(&mut tx, families::PAID_BY, member, Some(blocked), at).await?;
        }
        self.commit(tx, "apply").await
    }

    async fn wake_needs(&self, signer: &str, at: i64) -> Stored<u64> {
        let mut tx = self.begin("wake").await?;
        // The waiting request follows, in the same member, one whose reply was "needs".
        let woken = sqlx::query(
            "UPDATE signer_request SET not_before = ?1 WHERE signer = ?2 AND reply IS NULL AND handed = 0 AND not_before > ?1 AND EXISTS \
             (SELECT 1 FROM signer_request p WHERE p.member = signer_request.member AND p.signer = signer_request.signer AND p.outcome = 'needs')",
        )
        .bind(at)
        .bind(signer)
        .execute(&mut *tx)
        .await?;
        self.commit(tx, "wake").await?;
        Ok(woken.rows_affected())
    }

    async fn heartbeat(&self, signer: &str, json: &str, at: i64) -> Stored<()> {
        let mut tx = self.begin("heartbeat").await?;
        sqlx::query("UPDATE signer SET heartbeat = ?, heartbeat_at = ? WHERE name = ?")
            .bind(json)
            .bind(at)
            .bind(signer)
            .execute(&mut *tx)
            .await?;
        self.commit(tx, "heartbeat").await
    }
}
