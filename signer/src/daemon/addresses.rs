//! Hands out addresses. Whatever was handed out is recognised from then on, over restarts too; what was not asked for in
//! order is refused, so that no asker can make the signer derive without end.

use postern_protocol::{
    refusal::{Refusal, RefusalCode},
    reply::{ADDRESSES_MAX, Address},
    request::AddressRequest,
};

use super::handed_out::HandedOut;
use crate::{sign::WalletRoom, wallet::Position};

/// The one place that hands out addresses.
pub(super) struct AddressRoom {
    handed_out: HandedOut,
}

impl AddressRoom {
    pub(super) fn new(handed_out: HandedOut) -> Self {
        Self { handed_out }
    }

    /// A run of addresses of one branch. A pool grows to hold it.
    ///
    /// # Errors
    /// `addresses_too_many`, `address_out_of_range`, or why the pool cannot grow.
    pub(super) fn hand_out(&self, room: &WalletRoom, request: &AddressRequest) -> Result<Vec<Address>, Refusal> {
        let refuse = |code, message: String| Err(Refusal::new(code, message));
        let AddressRequest { branch, start, count, .. } = *request;
        if count > ADDRESSES_MAX {
            return refuse(RefusalCode::AddressesTooMany, format!("{count} addresses; at most {ADDRESSES_MAX} are handed out at once"));
        }
        let Some(end) = start.checked_add(count).filter(|_| count > 0) else {
            return refuse(RefusalCode::AddressOutOfRange, format!("{count} addresses from {start} on are none, or past the last index"));
        };
        let (wallet, name) = (&room.wallet, room.wallet.name());
        if branch >= wallet.branches() {
            return refuse(RefusalCode::AddressOutOfRange, format!("wallet {name} has no branch {branch}"));
        }
        if end > room.addresses_max {
            let most = room.addresses_max;
            return refuse(RefusalCode::AddressesTooMany, format!("wallet {name} hands out at most {most} addresses on a branch"));
        }
        match &room.pool {
            Some(pool) => pool.grow(room, branch, end)?,
            None if start > wallet.end(branch) => {
                let message =
                    format!("wallet {name} recognises branch {branch} up to {}; ask for the next addresses first", wallet.end(branch));
                return refuse(RefusalCode::AddressOutOfRange, message);
            }
            None => {}
        }
        let mut addresses = Vec::new();
        for index in start..end {
            let script = wallet.at(Position { branch, index }).map_err(|e| Refusal::new(RefusalCode::AddressOutOfRange, e.to_string()))?;
            let public_key = if room.pool.is_some() { script.keys.first().map(|key| key.public_key.to_bytes()) } else { None };
            addresses.push(Address {
                branch,
                index,
                script_pubkey: script.script_pubkey.to_bytes(),
                public_key: public_key.unwrap_or_default(),
            });
        }
        let last = Position { branch, index: end.saturating_sub(1) };
        let note = self.handed_out.note(name, last);
        note.map_err(|e| {
            Refusal::new(RefusalCode::LedgerUnavailable, format!("the addresses cannot be noted, so none is handed out: {e}"))
        })?;
        wallet.note_used(last);
        Ok(addresses)
    }
}
