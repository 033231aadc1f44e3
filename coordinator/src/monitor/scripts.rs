//! Keeps the table of our scripts ahead of what is handed out and paid to. A pool's public keys are asked of its signer.

use postern_protocol::{
    canonical,
    reply::{ADDRESSES_MAX, BRANCH_MAX},
    request::{AddressRequest, RequestBody},
};
use sha2::{Digest as _, Sha256};

use crate::{
    app::{App, Step, WalletEntry},
    store::{NewRequest, RequestKind},
    wallet::{CHANGE, RECEIVE},
};

/// Scripts added in one transaction.
const CHUNK: u32 = 500;
/// A pool's signer is asked at most this often for the same addresses.
const ASK_MS: i64 = 30_000;

/// Whether any were added.
pub(super) async fn ensure(app: &App, now: i64) -> Step<bool> {
    let mut added = false;
    for (name, entry) in &app.wallets {
        if entry.wallet.is_single() {
            if app.store.last_script(name, RECEIVE).await?.is_none() {
                app.store.add_scripts(&[entry.wallet.script(RECEIVE, 0, None)?]).await?;
                added = true;
            }
            continue;
        }
        for branch in [RECEIVE, CHANGE] {
            added |= ensure_branch(app, name, entry, branch, now).await?;
        }
    }
    Ok(added)
}

async fn ensure_branch(app: &App, name: &str, entry: &WalletEntry, branch: u32, now: i64) -> Step<bool> {
    let used = app.store.last_used(name, branch).await?.handed;
    // Signers recognise none past that.
    let wanted = used.map_or(0, |i| i.saturating_add(1)).saturating_add(entry.table.gap).min(BRANCH_MAX);
    let mut start = app.store.last_script(name, branch).await?.map_or(0, |i| i.saturating_add(1));
    if start >= wanted {
        return Ok(false);
    }
    if entry.wallet.is_pool() {
        ask(app, name, entry, branch, start, wanted.saturating_sub(start).min(ADDRESSES_MAX), now).await?;
        return Ok(false);
    }
    while start < wanted {
        let end = start.saturating_add(CHUNK).min(wanted);
        let scripts = (start..end).map(|index| entry.wallet.script(branch, index, None)).collect::<Result<Vec<_>, _>>()?;
        app.store.add_scripts(&scripts).await?;
        start = end;
    }
    Ok(true)
}

async fn ask(app: &App, name: &str, entry: &WalletEntry, branch: u32, start: u32, count: u32, now: i64) -> Step<()> {
    let Some(signer) = entry.table.signers.first() else { return Ok(()) };
    let body = canonical::to_vec(&RequestBody::Addresses(AddressRequest { wallet: name.to_owned(), branch, start, count }));
    // The same question within the same half minute is the same request.
    let mut hasher = Sha256::new();
    hasher.update(signer.as_bytes());
    hasher.update(&body);
    hasher.update(now.div_euclid(ASK_MS).to_be_bytes());
    let id = format!("a_{}", hex::encode(hasher.finalize().get(..16).unwrap_or_default()));
    let known = app.store.request(&id).await?.is_some();
    if !known && !app.store.open_request_for(&body).await? {
        let request = NewRequest {
            id,
            signer: signer.clone(),
            wallet: name.to_owned(),
            kind: RequestKind::Addresses,
            member: None,
            body,
            not_before: now,
        };
        app.store.add_request(request, now).await?;
        app.requests.notify_waiters();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        store::ChainStore as _,
        testing::{self, FakeNode, account},
    };

    #[tokio::test]
    async fn no_script_is_added_that_signers_do_not_recognise() {
        let folder = testing::folder();
        let descriptor = format!("wpkh({}/<0;1>/*)", account(1));
        let (app, store) = testing::app(folder.path(), FakeNode::new(), &descriptor, &["a"], "").await;
        let wallet = &app.wallets["hot"].wallet;
        for branch in [RECEIVE, CHANGE] {
            store.add_scripts(&[wallet.script(branch, BRANCH_MAX - 4, None).unwrap()]).await.unwrap();
        }
        // The gap is 10, and the last one known was handed out.
        store.hand_out("hot", "d", u32::MAX, 1).await.unwrap();
        assert!(ensure(&app, 2).await.unwrap());
        assert_eq!(store.last_script("hot", RECEIVE).await.unwrap(), Some(BRANCH_MAX - 1));
        assert!(!ensure(&app, 3).await.unwrap());
    }
}
