//! What signers booted.

use async_trait::async_trait;
use sqlx::Row as _;

use super::{
    super::{AttestationChange, AttestationProblem, AttestationRow, AttestationStatements, AttestationStore, NewRequest, Stored},
    SqliteStore, Tx, signers,
};

/// An answer takes effect; only one to the open request does.
pub(super) async fn apply(tx: &mut Tx, signer: &str, request: &str, change: &AttestationChange, at: i64) -> Stored<()> {
    let (statement, offered, trusted_until, problem) = match change {
        AttestationChange::Pinned { statement, trusted_until } => (Some(statement), None, Some(*trusted_until), None),
        AttestationChange::Verified { trusted_until } => (None, None, Some(*trusted_until), None),
        AttestationChange::Changed { offered, problem } => (None, Some(offered), Some(0), Some(problem)),
        AttestationChange::Bad(problem) => (None, None, Some(0), Some(problem)),
        AttestationChange::Later(problem) => (None, None, None, Some(problem)),
    };
    let verified = matches!(change, AttestationChange::Pinned { .. } | AttestationChange::Verified { .. });
    sqlx::query(
        "UPDATE attestation SET request = NULL, pinned = COALESCE(?1, pinned), pinned_at = CASE WHEN ?1 IS NULL THEN pinned_at ELSE ?2 END, \
         offered = CASE WHEN ?3 THEN NULL ELSE COALESCE(?4, offered) END, verified_at = CASE WHEN ?3 THEN ?2 ELSE verified_at END, \
         trusted_until = COALESCE(?5, trusted_until), problem_code = ?6, problem_message = ?7, problem_at = ?8 WHERE signer = ?9 AND request = ?10",
    )
    .bind(statement)
    .bind(at)
    .bind(verified)
    .bind(offered)
    .bind(trusted_until)
    .bind(problem.map(|p| &p.code))
    .bind(problem.map(|p| &p.message))
    .bind(problem.map(|p| p.at))
    .bind(signer)
    .bind(request)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn forget_requests(tx: &mut Tx, signer: &str) -> Stored<()> {
    sqlx::query("DELETE FROM signer_request WHERE kind = 'attest' AND signer = ?").bind(signer).execute(&mut **tx).await?;
    Ok(())
}

/// All that is known goes with the pairing.
pub(super) async fn forget(tx: &mut Tx, signer: &str) -> Stored<()> {
    forget_requests(tx, signer).await?;
    sqlx::query("DELETE FROM attestation WHERE signer = ?").bind(signer).execute(&mut **tx).await?;
    Ok(())
}

#[async_trait]
impl AttestationStore for SqliteStore {
    async fn attestations(&self) -> Stored<Vec<AttestationRow>> {
        let rows = sqlx::query(
            "SELECT signer, asked_at, request, pinned_at, verified_at, trusted_until, problem_code, problem_message, problem_at \
             FROM attestation ORDER BY signer",
        )
        .fetch_all(&self.read)
        .await?;
        rows.iter()
            .map(|row| {
                let code: Option<String> = row.try_get("problem_code")?;
                let problem = match code {
                    None => None,
                    Some(code) => Some(AttestationProblem {
                        code,
                        message: row.try_get::<Option<String>, _>("problem_message")?.unwrap_or_default(),
                        at: row.try_get::<Option<i64>, _>("problem_at")?.unwrap_or_default(),
                    }),
                };
                Ok(AttestationRow {
                    signer: row.try_get("signer")?,
                    asked_at: row.try_get("asked_at")?,
                    request: row.try_get("request")?,
                    pinned_at: row.try_get("pinned_at")?,
                    verified_at: row.try_get("verified_at")?,
                    trusted_until: row.try_get("trusted_until")?,
                    problem,
                })
            })
            .collect()
    }

    async fn attestation_statements(&self, signer: &str) -> Stored<AttestationStatements> {
        let found = sqlx::query("SELECT pinned, offered FROM attestation WHERE signer = ?").bind(signer).fetch_optional(&self.read).await?;
        Ok(match found {
            None => AttestationStatements::default(),
            Some(row) => AttestationStatements { pinned: row.try_get("pinned")?, offered: row.try_get("offered")? },
        })
    }

    async fn ask_attestation(&self, request: NewRequest, at: i64) -> Stored<()> {
        let mut tx = self.begin("ask_attestation").await?;
        // One is open at a time. What older ones were answered with has had its effect.
        forget_requests(&mut tx, &request.signer).await?;
        signers::insert_request(&mut tx, &request, at).await?;
        sqlx::query(
            "INSERT INTO attestation (signer, asked_at, request) VALUES (?1, ?2, ?3) \
             ON CONFLICT (signer) DO UPDATE SET asked_at = excluded.asked_at, request = excluded.request",
        )
        .bind(&request.signer)
        .bind(at)
        .bind(&request.id)
        .execute(&mut *tx)
        .await?;
        self.commit(tx, "ask_attestation").await
    }

    async fn distrust(&self, signer: &str, problem: &AttestationProblem, ask: bool) -> Stored<bool> {
        let mut tx = self.begin("distrust").await?;
        let done = sqlx::query(
            "UPDATE attestation SET trusted_until = 0, problem_code = ?1, problem_message = ?2, problem_at = ?3, \
             asked_at = CASE WHEN ?4 THEN NULL ELSE asked_at END, request = CASE WHEN ?4 THEN NULL ELSE request END \
             WHERE signer = ?5 AND pinned IS NOT NULL AND problem_code IS NOT 'attestation.changed'",
        )
        .bind(&problem.code)
        .bind(&problem.message)
        .bind(problem.at)
        .bind(ask)
        .bind(signer)
        .execute(&mut *tx)
        .await?;
        self.commit(tx, "distrust").await?;
        Ok(done.rows_affected() == 1)
    }

    async fn accept_attestation(&self, signer: &str, offered: &str, at: i64) -> Stored<bool> {
        let mut tx = self.begin("accept_attestation").await?;
        // Accepting is no trust: a new statement must be as accepted.
        let done = sqlx::query(
            "UPDATE attestation SET pinned = offered, pinned_at = ?1, offered = NULL, verified_at = NULL, trusted_until = 0, asked_at = NULL, request = NULL, \
             problem_code = NULL, problem_message = NULL, problem_at = NULL WHERE signer = ?2 AND offered = ?3",
        )
        .bind(at)
        .bind(signer)
        .bind(offered)
        .execute(&mut *tx)
        .await?;
        self.commit(tx, "accept_attestation").await?;
        Ok(done.rows_affected() == 1)
    }
}
