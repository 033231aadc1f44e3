//! What an approval names, and what needs none.

use bitcoin::Network;
use sha2::{Digest as _, Sha256};

use crate::{
    config::ApprovalTable,
    store::{ApprovalLimit, Order},
};

const DAY_MS: i64 = 24 * 3_600 * 1_000;
const DOMAIN: &[u8] = b"postern/order/1";

/// The rule as the store applies it, now.
#[must_use]
pub fn rule(table: &ApprovalTable, now: i64) -> ApprovalLimit {
    ApprovalLimit {
        up_to_sat: table.automatic_up_to.0,
        window_sat: table.automatic_per_day.map_or(u64::MAX, |amount| amount.0),
        since: now.saturating_sub(DAY_MS),
    }
}

/// SHA-256, in hex, over everything that an approval approves. Whoever approves sends it back, and so approves what was shown and nothing
/// that was changed since.
#[must_use]
pub fn hash(network: Network, id: &str, external_id: &str, wallet: &str, script: &[u8], amount_sat: u64) -> String {
    let mut hasher = Sha256::new();
    hasher.update(DOMAIN);
    for part in
        [network.to_string().as_bytes(), id.as_bytes(), external_id.as_bytes(), wallet.as_bytes(), script, &amount_sat.to_be_bytes()]
    {
        // With its length, so that no two orders give the same bytes.
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(part);
    }
    hex::encode(hasher.finalize())
}

/// Whether an order still is what was approved.
#[must_use]
pub fn holds(network: Network, order: &Order) -> bool {
    let script = order.script.as_bytes();
    order.approval_hash == hash(network, &order.id, &order.external_id, &order.wallet, script, order.amount_sat)
}
