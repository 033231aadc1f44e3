//! Asks as many signers as must sign, and another one for each that refuses, waits or is silent.

use postern_protocol::{
    canonical,
    request::{RequestBody, SignRequest},
};

use super::{Work, refusal};
use crate::{
    app::{Step, random_id},
    store::{Blocked, BlockedKind, Member, NewRequest, Outcome, RequestKind, RequestRow},
};

/// A signer that was asked so long ago and did not answer is not waited for, where another one can sign instead.
const PATIENCE_MS: i64 = 60_000;

/// Where one signer stands with one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Nobody asked, or it may be asked again.
    Free,
    /// Asked, an answer is to come soon.
    Asked,
    /// Asked, and the answer will take its time.
    Slow,
    /// Signed.
    Signed,
    /// Never.
    No,
}

fn stand(requests: &[RequestRow], signer: &str, now: i64) -> Stand {
    let of_signer = || requests.iter().filter(|r| r.signer == signer);
    if of_signer().any(|r| r.outcome == Some(Outcome::Signed)) {
        return Stand::Signed;
    }
    if let Some(open) = of_signer().rev().find(|r| r.outcome.is_none()) {
        let overdue = open.not_before.saturating_add(PATIENCE_MS) < now;
        return if open.not_before > now || overdue { Stand::Slow } else { Stand::Asked };
    }
    match of_signer().next_back().and_then(|r| r.outcome) {
        Some(Outcome::No) => Stand::No,
        _ => Stand::Free,
    }
}

impl Work<'_> {
    /// A signer that gets no orders now may get them later, and another one is asked meanwhile.
    fn stand(&self, requests: &[RequestRow], signer: &str) -> Stand {
        match stand(requests, signer, self.now) {
            Stand::Free | Stand::Asked if self.held.contains_key(signer) => Stand::Slow,
            other => other,
        }
    }

    /// Shows on the orders that too few signers may be asked, and why; or that this is over.
    async fn show_held(&self, stands: &[(&String, Stand)], quorum: usize) -> Step<()> {
        let reason = |(signer, stand): &(&String, Stand)| if *stand == Stand::Signed { None } else { self.held.get(*signer) };
        let able = stands.iter().filter(|stand| stand.1 != Stand::No && reason(stand).is_none()).count();
        match stands.iter().find_map(reason).filter(|_| able < quorum) {
            Some(blocked) => Ok(self.app.store.block_family(self.family.id, Some(blocked), self.now).await?),
            None => Ok(self.app.store.release_family(self.family.id, self.now).await?),
        }
    }

    pub(super) async fn ask(&self, member: &Member) -> Step<()> {
        let requests = self.app.store.member_requests(member.id).await?;
        let signers = &self.entry.table.signers;
        let quorum = self.entry.wallet.quorum(signers.len());
        let stands: Vec<(&String, Stand)> = signers.iter().map(|s| (s, self.stand(&requests, s))).collect();
        let count = |wanted: &[Stand]| stands.iter().filter(|(_, s)| wanted.contains(s)).count();

        if count(&[Stand::Signed]) >= quorum {
            return self.finalise(member).await;
        }
        if count(&[Stand::Signed, Stand::Asked, Stand::Slow, Stand::Free]) < quorum {
            return self.refused(member, &requests).await;
        }
        self.show_held(&stands, quorum).await?;
        let needed = quorum.saturating_sub(count(&[Stand::Signed, Stand::Asked]));
        let next: Vec<&String> = stands.iter().filter(|(_, s)| *s == Stand::Free).map(|(name, _)| *name).take(needed).collect();
        if next.is_empty() {
            return Ok(());
        }
        let body = canonical::to_vec(&RequestBody::Sign(SignRequest { wallet: self.family.wallet.clone(), psbt: member.psbt.clone() }));
        let requests = next
            .into_iter()
            .map(|signer| NewRequest {
                id: random_id("s"),
                signer: signer.clone(),
                wallet: self.family.wallet.clone(),
                kind: RequestKind::Sign,
                member: Some(member.id),
                body: body.clone(),
                not_before: self.now,
            })
            .collect();
        self.app.store.ask_signers(member.id, requests, self.now).await?;
        self.app.requests.notify_waiters();
        Ok(())
    }

    /// Too few signers are left that could sign it.
    async fn refused(&self, member: &Member, requests: &[RequestRow]) -> Step<()> {
        let code = requests.iter().filter(|r| r.outcome == Some(Outcome::No)).rev().find_map(refusal::code_of);
        let code = code.map_or("refused.frame_malformed", |code| code.as_str());
        let blocked = Blocked::new(BlockedKind::Forbidden, code, "the signers never sign this transaction");
        tracing::warn!(family = self.family.id, member = member.id, code, "refused");
        self.app.store.member_refused(member.id, &blocked, self.now).await?;
        Ok(())
    }
}
