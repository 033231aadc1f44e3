//! What signers booted. Each is asked at its first contact, at every interval and after it was restarted. What its first statement says
//! is pinned; a signer whose statement says something else, is not its own, or stays away gets no orders.
//!
//! Which orders a signer may get is decided where they are handed out, in the transaction that hands them out
//! ([`crate::store::SignerStore::take_requests`]); here is what leads there.

use std::collections::HashMap;

use postern_protocol::{
    attest::{Expected, Finding, FormError, Statement, changed_measurements},
    canonical,
    key::PublicKey,
    refusal::{Refusal, RefusalCode, RefusalKind},
    reply::ReplyBody,
    request::{AttestRequest, RequestBody},
};
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};

use crate::{
    app::{App, Step, random_id},
    config::{AttestationTable, Config},
    store::{
        AttestationChange, AttestationProblem, AttestationRow, AttestationStatements, Blocked, BlockedKind, NewRequest, ReplyEffect,
        RequestKind, RequestRow, StoreError,
    },
};

/// Not asked yet, or asked and not answered.
pub const PENDING: &str = "attestation.pending";
/// The signer was restarted and is asked.
pub const RESTARTED: &str = "attestation.restarted";
/// It has not answered for too long.
pub const OVERDUE: &str = "attestation.overdue";
/// Its TPM does not answer now.
pub const UNAVAILABLE: &str = "attestation.unavailable";
/// It says that it has no TPM.
pub const NO_TPM: &str = "attestation.no_tpm";
/// It does not say what it booted, and says why.
pub const REFUSED: &str = "attestation.refused";
/// What came back is no statement of this signer for this question.
pub const BAD: &str = "attestation.bad";
/// Something else was booted. Stays until an operator accepts it.
pub const CHANGED: &str = "attestation.changed";

/// Hex digits of what an operator names to accept a statement: 128 bits.
const SEEN_DIGITS: usize = 32;

/// Changed measurements that a reason names; `signer attestation NAME` shows all.
const EXPLAINED_MAX: usize = 4;

/// Short for what a statement says of the machine: attestation key and PCRs, not nonce and time. What an operator accepts is named so.
#[must_use]
pub fn seen(statement: &Statement) -> String {
    let mut hash = Sha256::new();
    hash.update(statement.key.as_bytes());
    hash.update(canonical::to_vec(&statement.pcrs));
    let mut digits = hex::encode(hash.finalize());
    digits.truncate(SEEN_DIGITS);
    digits
}

/// Why a signer gets no orders now; None when it gets them.
#[must_use]
pub fn held(config: &Config, signer: &str, row: Option<&AttestationRow>, now: i64) -> Option<Blocked> {
    if !config.attests(signer) || row.is_some_and(|row| row.trusted_until > now) {
        return None;
    }
    let (code, message) = match row {
        Some(AttestationRow { problem: Some(problem), .. }) => (problem.code.as_str(), problem.message.clone()),
        Some(AttestationRow { pinned_at: Some(_), verified_at: Some(_), .. }) => (OVERDUE, overdue(signer)),
        _ => (PENDING, format!("signer {signer} is asked what it booted and has not answered yet")),
    };
    let kind = match code {
        CHANGED | BAD => BlockedKind::Alarm,
        PENDING | RESTARTED | UNAVAILABLE => BlockedKind::Wait,
        _ => BlockedKind::Needs,
    };
    Some(Blocked::new(kind, code, message))
}

fn overdue(signer: &str) -> String {
    format!("signer {signer} has not said for too long what it booted: look at its link and its log")
}

/// All signers that wallets name and that get no orders now, and why.
///
/// # Errors
/// [`crate::app::StepError`].
pub async fn all_held(app: &App, now: i64) -> Step<HashMap<String, Blocked>> {
    let rows = app.store.attestations().await?;
    let names = app.wallets.values().flat_map(|entry| &entry.table.signers);
    let held = |name: &String| {
        let row = rows.iter().find(|row| row.signer == *name);
        held(&app.config, name, row, now).map(|blocked| (name.clone(), blocked))
    };
    Ok(names.filter_map(held).collect())
}

/// Why too few of a wallet's signers get orders; None when enough do.
#[must_use]
pub fn too_few(entry: &crate::app::WalletEntry, held: &HashMap<String, Blocked>) -> Option<Blocked> {
    let signers = &entry.table.signers;
    let able = signers.iter().filter(|name| !held.contains_key(*name)).count();
    let missing = able < entry.wallet.quorum(signers.len());
    missing.then(|| signers.iter().find_map(|name| held.get(name).cloned())).flatten()
}

/// Asks whom it is time to ask.
///
/// # Errors
/// [`crate::app::StepError`].
pub async fn step(app: &App, now: i64) -> Step<()> {
    let rows = app.store.attestations().await?;
    for signer in app.store.signers().await?.into_iter().filter(|signer| app.config.attests(&signer.name)) {
        let row = rows.iter().find(|row| row.signer == signer.name);
        if let Some(row) = row.filter(|row| row.verified_at.is_some() && row.trusted_until > 0 && row.trusted_until <= now) {
            let problem = AttestationProblem { code: OVERDUE.into(), message: overdue(&row.signer), at: now };
            tracing::error!(signer = row.signer, code = OVERDUE, "no orders any more: {}", problem.message);
            app.store.distrust(&row.signer, &problem, false).await?;
        }
        if due(row, &app.config.attestation, now) {
            let mut nonce = [0_u8; 32];
            rand::rngs::OsRng.fill_bytes(&mut nonce);
            let request = NewRequest {
                id: random_id("a"),
                signer: signer.name,
                wallet: String::new(),
                kind: RequestKind::Attest,
                member: None,
                body: canonical::to_vec(&RequestBody::Attest(AttestRequest { nonce: hex::encode(nonce) })),
                not_before: now,
            };
            app.store.ask_attestation(request, now).await?;
            app.requests.notify_waiters();
        }
    }
    Ok(())
}

/// A signer was restarted: what it booted this time is not known until it says so.
///
/// # Errors
/// [`crate::store::StoreError`].
pub async fn restarted(app: &App, signer: &str, now: i64) -> Result<(), StoreError> {
    if !app.config.attests(signer) {
        return Ok(());
    }
    let problem = AttestationProblem {
        code: RESTARTED.into(),
        message: format!("signer {signer} was restarted and is asked what it booted"),
        at: now,
    };
    if app.store.distrust(signer, &problem, true).await? {
        tracing::info!(signer, "it was restarted and is asked what it booted");
        app.work.notify_waiters();
    }
    Ok(())
}

fn due(row: Option<&AttestationRow>, table: &AttestationTable, now: i64) -> bool {
    let Some((row, asked_at)) = row.and_then(|row| Some((row, row.asked_at?))) else { return true };
    let after = match row {
        // Its nonce grows old: the answer proves less and less.
        AttestationRow { request: Some(_), .. } => table.patience,
        AttestationRow { problem: None, .. } if row.trusted_until > now => table.every,
        _ => table.retry,
    };
    asked_at.saturating_add(after.ms()) <= now
}

/// What an answer means.
///
/// # Errors
/// [`crate::app::StepError`].
pub async fn effect(app: &App, request: &RequestRow, reply: &ReplyBody, now: i64) -> Step<ReplyEffect> {
    let signers = app.store.signers().await?;
    let rows = app.store.attestations().await?;
    let signer = signers.iter().find(|signer| signer.name == request.signer);
    // An answer to a question that is not open any more says nothing.
    let row = rows.iter().find(|row| row.signer == request.signer && row.request.as_ref() == Some(&request.id));
    let (Some(signer), Some(row)) = (signer, row) else { return Ok(ReplyEffect::Ignored) };
    let Ok(RequestBody::Attest(AttestRequest { nonce })) = canonical::from_slice(&request.body) else { return Ok(ReplyEffect::Ignored) };
    let asked = Asked {
        signer: &signer.name,
        key: signer.signer_key,
        nonce: &nonce,
        statements: app.store.attestation_statements(&signer.name).await?,
        held_as_changed: row.problem.as_ref().is_some_and(|problem| problem.code == CHANGED),
        trusted_until: app.config.attestation.trusted_until(row.asked_at.unwrap_or_default()),
    };
    let change = asked.judge(reply, now);
    log(&signer.name, row, &change);
    Ok(ReplyEffect::Attested(change))
}

fn log(signer: &str, row: &AttestationRow, change: &AttestationChange) {
    let known = |problem: &AttestationProblem| row.problem.as_ref().is_some_and(|before| before.message == problem.message);
    match change {
        AttestationChange::Pinned { .. } => tracing::warn!(signer, "what it booted is pinned: `signer attestation {signer}` shows it"),
        AttestationChange::Verified { .. } if row.problem.is_some() => tracing::warn!(signer, "it booted what is pinned; orders go on"),
        AttestationChange::Verified { .. } => tracing::info!(signer, "it booted what is pinned"),
        AttestationChange::Changed { problem, .. } | AttestationChange::Bad(problem) | AttestationChange::Later(problem)
            if known(problem) =>
        {
            tracing::debug!(signer, code = problem.code, "{}", problem.message);
        }
        AttestationChange::Changed { problem, .. } | AttestationChange::Bad(problem) => {
            tracing::error!(signer, code = problem.code, "ALARM, no orders any more: {}", problem.message);
        }
        AttestationChange::Later(problem) => tracing::warn!(signer, code = problem.code, "{}", problem.message),
    }
}

/// What was asked, and what is known of who answers.
struct Asked<'a> {
    signer: &'a str,
    key: PublicKey,
    nonce: &'a str,
    statements: AttestationStatements,
    held_as_changed: bool,
    trusted_until: i64,
}

impl Asked<'_> {
    fn judge(&self, reply: &ReplyBody, now: i64) -> AttestationChange {
        let problem = |code: &str, message: String| AttestationProblem { code: code.into(), message, at: now };
        match reply {
            ReplyBody::Attested(statement) => match self.wrong(statement) {
                Err(why) => self.bad(problem(BAD, self.not_its_own(&why))),
                Ok(()) => self.compare(statement, problem),
            },
            ReplyBody::Refused(refusal) => self.refused(refusal, problem),
            _ => self.bad(problem(BAD, self.not_its_own("it answers another question"))),
        }
    }

    /// What was noted as changed stays so until somebody has looked.
    fn bad(&self, problem: AttestationProblem) -> AttestationChange {
        if self.held_as_changed { AttestationChange::Later(self.still_changed(&problem)) } else { AttestationChange::Bad(problem) }
    }

    fn still_changed(&self, newest: &AttestationProblem) -> AttestationProblem {
        let offered = self.statements.offered.as_deref().and_then(|json| Statement::parse(json.as_bytes()).ok());
        let hint = offered.map_or_else(String::new, |offered| self.how_to_accept(&offered));
        AttestationProblem {
            code: CHANGED.into(),
            message: format!("signer {} booted something else than what is pinned, and now: {}.{hint}", self.signer, newest.message),
            at: newest.at,
        }
    }

    fn not_its_own(&self, why: &str) -> String {
        format!(
            "what the link brought is no statement of signer {} for this question: {why}. Its link may be in other hands; it is asked again",
            self.signer
        )
    }

    /// What does not hold of any statement that answers us.
    fn wrong(&self, statement: &Statement) -> Result<(), String> {
        match statement.verify(&statement.expected_of_itself(self.nonce, self.key)) {
            Err(e) => Err(e.to_string()),
            Ok(findings) => failing(&findings).map_or(Ok(()), Err),
        }
    }

    fn compare(&self, statement: &Statement, problem: impl Fn(&str, String) -> AttestationProblem) -> AttestationChange {
        let Ok(json) = serde_json::to_string(statement) else {
            return self.bad(problem(BAD, self.not_its_own("it cannot be kept")));
        };
        let Some(pinned) = &self.statements.pinned else {
            return AttestationChange::Pinned { statement: json, trusted_until: self.trusted_until };
        };
        let message = match Statement::parse(pinned.as_bytes()).and_then(|pinned| self.differences(&pinned, statement)) {
            Ok(None) if !self.held_as_changed => return AttestationChange::Verified { trusted_until: self.trusted_until },
            Ok(None) => format!("signer {} booted something else meanwhile, and what is pinned now", self.signer),
            Ok(Some(differences)) => format!("signer {} booted something else than what is pinned: {differences}", self.signer),
            Err(e) => format!("what is pinned of signer {} cannot be read ({e})", self.signer),
        };
        AttestationChange::Changed { offered: json, problem: problem(CHANGED, format!("{message}.{}", self.how_to_accept(statement))) }
    }

    fn how_to_accept(&self, statement: &Statement) -> String {
        format!(" Find out why; if it is as you want it, `postern-coordinator signer accept {} --seen {}`", self.signer, seen(statement))
    }

    /// What is not as pinned, in the words of `postern attest verify`.
    fn differences(&self, pinned: &Statement, statement: &Statement) -> Result<Option<String>, FormError> {
        let against = |key: &str| Expected { key: key.into(), ..pinned.expected_of_itself(self.nonce, self.key) };
        let mut findings = statement.verify(&against(&pinned.key))?;
        if statement.key != pinned.key {
            // Another key ends the look; what was booted is asked all the same.
            findings.extend(statement.verify(&against(&statement.key))?);
        }
        let mut words = failing(&findings);
        if let Some(words) = &mut words {
            for line in changed_measurements(statement, pinned).iter().take(EXPLAINED_MAX) {
                words.push_str("; ");
                words.push_str(line);
            }
        }
        Ok(words)
    }

    fn refused(&self, refusal: &Refusal, problem: impl Fn(&str, String) -> AttestationProblem) -> AttestationChange {
        let said = refusal.message.as_deref().unwrap_or(refusal.code.meaning());
        let name = self.signer;
        match refusal.code {
            RefusalCode::AttestNoTpm if self.statements.pinned.is_none() => self.bad(problem(
                NO_TPM,
                format!(
                    "signer {name} has no TPM and cannot say what it booted: give it a [keystore.NAME] of kind \"tpm\", or write \
                     [signer.{name}] attestation = \"none\" in coordinator.toml and restart the coordinator"
                ),
            )),
            RefusalCode::AttestNoTpm => self.bad(problem(
                NO_TPM,
                format!("signer {name} says that it has no TPM, and a statement of one is pinned: look at its configuration"),
            )),
            code if code.kind() == RefusalKind::Wait => {
                let waiting = problem(UNAVAILABLE, format!("signer {name} cannot say now what it booted: {said}"));
                AttestationChange::Later(if self.held_as_changed { self.still_changed(&waiting) } else { waiting })
            }
            _ => self.bad(problem(REFUSED, format!("signer {name} does not say what it booted: {said}"))),
        }
    }
}

fn failing(findings: &[Finding]) -> Option<String> {
    let words: Vec<&str> = findings.iter().filter(|finding| !finding.holds).map(|finding| finding.words.as_str()).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

#[cfg(test)]
mod tests;
