//! A wallet: which scripts are ours, and with which keys they are signed. Public halves only.
//!
//! A [`Wallet`] is made from a descriptor (BIP 380) that is checked once: no private key, the right network, a sane script,
//! our key in it. From then on it answers one question, [`Wallet::find`]: is this output script ours? It answers from a table
//! of derived scripts, so nothing that a request says about paths, fingerprints or keys is ever needed to know it.
//!
//! | kind | descriptor | example |
//! |---|---|---|
//! | `hsm` | the pinned key stands in it | `wpkh(02…)`, `wsh(sortedmulti(2,02…,[d34db33f/48h]xpub…/<0;1>/*))` |
//! | `seed` | account keys with their origin | `tr([d34db33f/86h/0h/0h]xpub…/<0;1>/*)` |
//! | `pool` | the word `pool` stands for the numbered keys | `wsh(and_v(v:pk(pool),older(144)))` |

mod claim;
mod descriptor;
mod error;
mod key;
mod script;
mod table;
mod timelock;
mod weight;

#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};

use bitcoin::{Network, PublicKey, Script};

use self::{
    descriptor::Template,
    table::{Branch, Table},
};
pub use self::{error::WalletError, script::*, timelock::Timelocks};
use crate::keystore::{AccountKey, BoundKeys, WalletBinding};

/// Most scripts that a branch recognises past its last used one.
pub const GAP_MAX: u32 = 100_000;
/// Most scripts that a branch recognises at all, about 1 KB of memory each. Whoever may ask for signatures can move the window by a
/// whole gap with each payment to its end, for nothing but a fee; without an end to it, memory and every later start would be his.
/// Change of a wallet that has come so far goes to an earlier index.
pub use postern_protocol::reply::BRANCH_MAX;

/// A wallet's public half. Shared by reference: finding needs no more than a read lock.
#[derive(Debug)]
pub struct Wallet {
    binding: WalletBinding,
    kind: WalletKind,
    gap: u32,
    template: Template,
    table: RwLock<Table>,
}

impl Wallet {
    /// Checks the descriptor and derives both branches up to the gap.
    ///
    /// `keys` says which of the descriptor's keys are ours, and with that the wallet's kind.
    ///
    /// # Errors
    /// [`WalletError`]: what is wrong with the descriptor and what to write instead. No error holds a private key.
    pub fn new(name: impl Into<String>, network: Network, descriptor: &str, gap: u32, keys: BoundKeys) -> Result<Self, WalletError> {
        if gap == 0 || gap > GAP_MAX {
            return Err(WalletError::Gap { gap });
        }
        let kind = match &keys {
            BoundKeys::Hsm { .. } => WalletKind::Hsm,
            BoundKeys::Seed { .. } => WalletKind::Seed,
            BoundKeys::Pool => WalletKind::Pool,
        };
        let template = Template::new(network, descriptor, &keys)?;
        let mut table = Table::default();
        for branch in 0..template.branches() {
            table.add_branch();
            for index in 0..template.end(None, gap) {
                let position = Position { branch, index };
                if kind == WalletKind::Pool {
                    break;
                }
                table.insert(template.derive(position, None)?)?;
            }
        }
        Ok(Self { binding: WalletBinding { wallet: name.into(), network, keys }, kind, gap, template, table: RwLock::new(table) })
    }

    /// The account keys that stand in a descriptor, each once: what a configuration may name as its own. For a wallet of a
    /// single account it is the only one.
    ///
    /// # Errors
    /// When it is no descriptor, or holds a private key.
    pub fn account_keys(descriptor: &str) -> Result<Vec<AccountKey>, WalletError> {
        descriptor::account_keys(descriptor)
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.binding.wallet
    }

    /// How its private keys are kept.
    #[must_use]
    pub fn kind(&self) -> WalletKind {
        self.kind
    }

    /// The network of its addresses.
    #[must_use]
    pub fn network(&self) -> Network {
        self.binding.network
    }

    /// How far past the last used index scripts are recognised.
    #[must_use]
    pub fn gap(&self) -> u32 {
        self.gap
    }

    /// The public descriptor with its checksum (BIP 380); a pool wallet's holds the word `pool`.
    #[must_use]
    pub fn descriptor(&self) -> String {
        self.template.text()
    }

    /// What its keystore checks.
    #[must_use]
    pub fn binding(&self) -> &WalletBinding {
        &self.binding
    }

    /// How many branches it has: 2, or 1 for a wallet of a single address.
    #[must_use]
    pub fn branches(&self) -> u32 {
        self.template.branches()
    }

    /// True when what returns to this position is change: the change branch, or the only address.
    #[must_use]
    pub fn is_change(&self, position: Position) -> bool {
        position.branch.saturating_add(1) == self.template.branches()
    }

    /// The relative and absolute lock times that its descriptor names.
    #[must_use]
    pub fn timelocks(&self) -> Timelocks {
        self.template.timelocks()
    }

    /// Lower bound of [`OwnScript::satisfaction_weight`], with signatures of 71 bytes (ECDSA) and 64 bytes (BIP 340).
    #[must_use]
    pub fn lightest_satisfaction_weight(&self) -> u64 {
        self.template.lightest_weight()
    }

    /// The script of ours that this is, if it is one: up to the last used index plus the gap.
    #[must_use]
    pub fn find(&self, script: &Script) -> Option<Arc<OwnScript>> {
        self.read(|table| table.find(script))
    }

    /// The script at a position, within the table or past it.
    ///
    /// # Errors
    /// [`WalletError::Position`] when the wallet has no such position, or the pool no such key yet.
    pub fn at(&self, position: Position) -> Result<Arc<OwnScript>, WalletError> {
        if let Some(known) = self.read(|table| table.at(position)) {
            return Ok(known);
        }
        let pool_key = self.read(|table| table.pool_key(position));
        self.template.derive(position, pool_key).map(Arc::new)
    }

    /// The first index of a branch that is not recognised: last used plus gap plus one, or the number of pool keys.
    #[must_use]
    pub fn end(&self, branch: u32) -> u32 {
        self.read(|table| table.branch(branch).map_or(0, Branch::end))
    }

    /// The highest index of a branch that was used.
    #[must_use]
    pub fn last_used(&self, branch: u32) -> Option<u32> {
        self.read(|table| table.branch(branch).and_then(Branch::last_used))
    }

    /// Takes note that a position was handed out or spent from, and moves the end of its branch past it. Positions that the
    /// wallet does not have are ignored.
    pub fn note_used(&self, position: Position) {
        let known =
            self.read(|table| table.branch(position.branch).is_none_or(|b| b.last_used().is_some_and(|last| last >= position.index)));
        if known || !self.template.has_index(position.index) {
            return;
        }
        let mut fresh = Vec::new();
        let end = self.template.end(Some(position.index), self.gap);
        for index in self.end(position.branch)..end {
            let position = Position { branch: position.branch, index };
            let pool_key = self.read(|table| table.pool_key(position));
            if self.kind == WalletKind::Pool && pool_key.is_none() {
                break;
            }
            match self.template.derive(position, pool_key) {
                Ok(script) => fresh.push(script),
                Err(error) => {
                    log::error!("wallet {}: {error}; later positions of branch {} are not recognised", self.name(), position.branch);
                    break;
                }
            }
        }
        self.write(|table| {
            table.note_used(position);
            self.take_in(table, fresh);
        });
    }

    /// Makes pool keys known: `keys` are those of `branch` from index `start` on. Keys that are known already must be the same.
    ///
    /// # Errors
    /// [`WalletError::PoolKeys`] when this is no pool wallet, a key is missing before `start`, or one differs.
    pub fn add_pool_keys(&self, branch: u32, start: u32, keys: &[PublicKey]) -> Result<(), WalletError> {
        if self.kind != WalletKind::Pool {
            return Err(WalletError::PoolKeys { branch, index: start, reason: "this is no pool wallet".into() });
        }
        self.write(|table| table.add_pool_keys(branch, start, keys))?;
        let (from, last_used) = self.read(|table| table.branch(branch).map_or((0, None), |b| (b.end(), b.last_used())));
        let mut fresh = Vec::new();
        for index in from..self.template.end(last_used, self.gap) {
            let position = Position { branch, index };
            let Some(pool_key) = self.read(|table| table.pool_key(position)) else { break };
            fresh.push(self.template.derive(position, Some(pool_key))?);
        }
        self.write(|table| self.take_in(table, fresh));
        Ok(())
    }

    /// How many pool keys of a branch are known.
    #[must_use]
    pub fn pool_keys_known(&self, branch: u32) -> u32 {
        self.read(|table| table.branch(branch).map_or(0, Branch::pool_keys_known))
    }

    fn take_in(&self, table: &mut Table, fresh: Vec<OwnScript>) {
        for script in fresh {
            // Another thread may have been faster: what is in the table already stays.
            if let Err(error) = table.insert(script) {
                log::error!("wallet {}: {error}", self.name());
            }
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Table) -> T) -> T {
        look(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner))
    }
}
