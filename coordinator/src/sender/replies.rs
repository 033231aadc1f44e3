//! Lets replies take effect, each in one durable step.

use postern_protocol::{
    canonical,
    refusal::Refusal,
    reply::{Address, ReplyBody, Signed},
};

use super::refusal::{Consequence, consequence};
use crate::{
    app::{App, Step, StepError, random_id},
    attestation,
    component::Progress,
    draft,
    store::{Blocked, BlockedKind, FamilyState, NewRequest, Outcome, ReplyEffect, RequestKind, RequestRow},
};

/// Replies in one step.
const REPLIES: u32 = 100;

pub(super) async fn apply(app: &App, now: i64) -> Step<Progress> {
    let replies = app.store.unapplied(REPLIES).await?;
    for request in &replies {
        let effect = effect(app, request, now).await?;
        app.store.apply(&request.id, effect, now).await?;
    }
    Ok(if replies.is_empty() { Progress::Idle } else { Progress::More })
}

async fn effect(app: &App, request: &RequestRow, now: i64) -> Step<ReplyEffect> {
    let reply: Result<ReplyBody, _> = canonical::from_slice(request.reply.as_deref().unwrap_or_default());
    let Ok(reply) = reply else { return Ok(ReplyEffect::Ignored) };
    match (request.kind, reply) {
        (RequestKind::Sign, ReplyBody::Signed(signed)) => signatures(app, request, &signed).await,
        (RequestKind::Sign, ReplyBody::Refused(refusal)) => refused(app, request, &refusal, now).await,
        (RequestKind::Addresses, ReplyBody::Addresses(addresses)) => scripts(app, request, &addresses),
        (RequestKind::Addresses, ReplyBody::Refused(refusal)) => {
            tracing::warn!(
                signer = request.signer,
                wallet = request.wallet,
                code = refusal.code.as_str(),
                "no addresses: {}",
                refusal.code.meaning()
            );
            Ok(ReplyEffect::Ignored)
        }
        (RequestKind::Attest, reply) => attestation::effect(app, request, &reply, now).await,
        _ => {
            tracing::error!(signer = request.signer, request = request.id, "the reply answers another question");
            Ok(ReplyEffect::Ignored)
        }
    }
}

async fn signatures(app: &App, request: &RequestRow, signed: &Signed) -> Step<ReplyEffect> {
    let Some(id) = request.member else { return Ok(ReplyEffect::Ignored) };
    let Some(member) = app.store.member(id).await? else { return Ok(ReplyEffect::Ignored) };
    let psbt = bitcoin::Psbt::deserialize(&member.psbt).map_err(|_| StepError::Member(id))?;
    match draft::accept(&psbt, signed) {
        Ok(()) => Ok(ReplyEffect::Signed(canonical::to_vec(&signed.signatures))),
        Err(e) => {
            tracing::error!(signer = request.signer, member = id, "{e}");
            let blocked = Blocked::new(BlockedKind::Alarm, "signature.invalid", format!("signer {}: {e}", request.signer));
            Ok(ReplyEffect::Alarm { blocked })
        }
    }
}

async fn refused(app: &App, request: &RequestRow, refusal: &Refusal, now: i64) -> Step<ReplyEffect> {
    let code = refusal.code;
    tracing::warn!(
        signer = request.signer,
        wallet = request.wallet,
        member = request.member,
        code = code.as_str(),
        "refused: {}",
        code.meaning()
    );
    if !is_open(app, request).await? {
        return Ok(ReplyEffect::Ignored);
    }
    let message = refusal.message.clone().unwrap_or_else(|| code.meaning().to_owned());
    let message = format!("signer {}: {message}", request.signer);
    let again = |outcome, kind, wait_ms: i64| {
        let until = now.saturating_add(wait_ms);
        let next = NewRequest {
            id: random_id("s"),
            signer: request.signer.clone(),
            wallet: request.wallet.clone(),
            kind: RequestKind::Sign,
            member: request.member,
            body: request.body.clone(),
            not_before: until,
        };
        ReplyEffect::Again { outcome, next, blocked: Blocked::new(kind, code.as_str(), message.clone()).until(until) }
    };
    Ok(match consequence(refusal) {
        Consequence::Wait(ms) => again(Outcome::Wait, BlockedKind::Wait, ms),
        Consequence::Needs => again(Outcome::Needs, BlockedKind::Needs, app.config.coordinator.needs_retry.ms()),
        Consequence::Never => ReplyEffect::No(Blocked::new(BlockedKind::Forbidden, code.as_str(), message)),
        Consequence::Stop => ReplyEffect::Alarm { blocked: Blocked::new(BlockedKind::Alarm, code.as_str(), message) },
    })
}

/// Whether an answer still matters.
async fn is_open(app: &App, request: &RequestRow) -> Step<bool> {
    let Some(id) = request.member else { return Ok(false) };
    let Some(member) = app.store.member(id).await? else { return Ok(false) };
    let open = app.store.family(member.family).await?.is_some_and(|f| f.state == FamilyState::Open);
    Ok(open && member.final_tx.is_none())
}

/// A pool's addresses, believed only where the descriptor with the key gives the same script.
fn scripts(app: &App, request: &RequestRow, addresses: &[Address]) -> Step<ReplyEffect> {
    let Some(entry) = app.wallets.get(&request.wallet).filter(|e| e.wallet.is_pool()) else { return Ok(ReplyEffect::Ignored) };
    let mut scripts = Vec::new();
    for address in addresses {
        match entry.wallet.script(address.branch, address.index, Some(&address.public_key)) {
            Ok(own) if own.script.as_bytes() == address.script_pubkey => scripts.push(own),
            _ => {
                tracing::error!(
                    signer = request.signer,
                    wallet = request.wallet,
                    "address {}/{} is not what the descriptor gives: [wallet] descriptor differs from the signer's?",
                    address.branch,
                    address.index
                );
                return Ok(ReplyEffect::Ignored);
            }
        }
    }
    Ok(ReplyEffect::Scripts(scripts))
}
