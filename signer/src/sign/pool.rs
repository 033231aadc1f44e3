//! A pool wallet's scripts follow the keys that its keystore has made. The token may be away when the signer starts, so
//! they are read when they are first needed.

use std::sync::{Mutex, PoisonError};

use postern_protocol::{
    refusal::{Refusal, RefusalCode},
    reply::ADDRESSES_MAX,
};

use super::WalletRoom;

/// Whether a pool wallet's scripts are known here.
#[derive(Debug, Default)]
pub struct PoolRoom {
    loaded: Mutex<bool>,
}

impl PoolRoom {
    /// Whether [`Self::load`] has nothing to do. Waits for nobody.
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.try_lock().is_ok_and(|loaded| *loaded)
    }

    /// Reads the keys that exist, once.
    ///
    /// # Errors
    /// Why the keystore cannot tell; tried again at the next request.
    pub(super) fn load(&self, room: &WalletRoom) -> Result<(), Refusal> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if !*loaded {
            for branch in 0..room.wallet.branches() {
                let held = room.keystore.extend_pool(room.wallet.name(), branch, 0)?;
                follow(room, branch, held)?;
            }
            *loaded = true;
        }
        Ok(())
    }

    /// Makes keys until the branch holds `size` of them, at most [`ADDRESSES_MAX`] at a time.
    ///
    /// # Errors
    /// `address_out_of_range`, or why the keystore makes none.
    pub(crate) fn grow(&self, room: &WalletRoom, branch: u32, size: u32) -> Result<(), Refusal> {
        self.load(room)?;
        let name = room.wallet.name();
        let held = room.keystore.extend_pool(name, branch, 0)?;
        if size > held.saturating_add(ADDRESSES_MAX) {
            let message = format!("wallet {name} has {held} keys on branch {branch}; ask for the next ones first, they are made in order");
            return Err(Refusal::new(RefusalCode::AddressOutOfRange, message));
        }
        let held = if size > held { room.keystore.extend_pool(name, branch, size)? } else { held };
        follow(room, branch, held)
    }
}

/// Adds the scripts of the keys that the keystore holds and the wallet does not know.
fn follow(room: &WalletRoom, branch: u32, held: u32) -> Result<(), Refusal> {
    let wallet = &room.wallet;
    loop {
        let known = wallet.pool_keys_known(branch);
        let count = held.saturating_sub(known).min(ADDRESSES_MAX);
        if count == 0 {
            return Ok(());
        }
        let keys = room.keystore.pool_keys(wallet.name(), branch, known, count)?;
        let added = if keys.is_empty() {
            Err("shows none of them".to_owned())
        } else {
            wallet.add_pool_keys(branch, known, &keys).map_err(|e| e.to_string())
        };
        if let Err(e) = added {
            let message = format!("wallet {}: the keystore holds {held} keys on branch {branch}, known are {known}: {e}", wallet.name());
            return Err(Refusal::new(RefusalCode::KeyMismatch, message));
        }
    }
}
