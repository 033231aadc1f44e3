//! The table of derived scripts: what [`super::Wallet::find`] answers from.

use std::{collections::HashMap, sync::Arc};

use bitcoin::{PublicKey, Script, ScriptBuf};

use super::{OwnScript, Position, WalletError};

/// Scripts by their bytes and by their position.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_script: HashMap<ScriptBuf, Arc<OwnScript>>,
    by_pool_key: HashMap<[u8; 33], Position>,
    branches: Vec<Branch>,
}

/// One branch, without holes.
#[derive(Debug, Default)]
pub(super) struct Branch {
    scripts: Vec<Arc<OwnScript>>,
    pool_keys: Vec<PublicKey>,
    last_used: Option<u32>,
}

impl Branch {
    /// The first index that is not in the table.
    pub(super) fn end(&self) -> u32 {
        count(self.scripts.len())
    }
    pub(super) fn last_used(&self) -> Option<u32> {
        self.last_used
    }
    pub(super) fn pool_keys_known(&self) -> u32 {
        count(self.pool_keys.len())
    }
}

impl Table {
    pub(super) fn add_branch(&mut self) {
        self.branches.push(Branch::default());
    }

    pub(super) fn branch(&self, branch: u32) -> Option<&Branch> {
        self.branches.get(place(branch))
    }

    pub(super) fn find(&self, script: &Script) -> Option<Arc<OwnScript>> {
        self.by_script.get(script).cloned()
    }

    pub(super) fn at(&self, position: Position) -> Option<Arc<OwnScript>> {
        self.branch(position.branch)?.scripts.get(place(position.index)).cloned()
    }

    pub(super) fn pool_key(&self, position: Position) -> Option<PublicKey> {
        self.branch(position.branch)?.pool_keys.get(place(position.index)).copied()
    }

    /// Where a pool key stands.
    pub(super) fn pool_position(&self, key: &[u8]) -> Option<Position> {
        self.by_pool_key.get(key).copied()
    }

    /// Appends a script to its branch. One that is there already, or that leaves a hole, is not taken.
    pub(super) fn insert(&mut self, script: OwnScript) -> Result<(), WalletError> {
        let position = script.position;
        if self.branch(position.branch).is_none_or(|branch| branch.end() != position.index) {
            return Ok(());
        }
        if let Some(first) = self.by_script.get(&script.script_pubkey) {
            return Err(WalletError::ScriptTwice { first: first.position, second: position });
        }
        let script = Arc::new(script);
        self.by_script.insert(script.script_pubkey.clone(), Arc::clone(&script));
        if let Some(branch) = self.branches.get_mut(place(position.branch)) {
            branch.scripts.push(script);
        }
        Ok(())
    }

    pub(super) fn note_used(&mut self, position: Position) {
        if let Some(branch) = self.branches.get_mut(place(position.branch)) {
            branch.last_used = branch.last_used.max(Some(position.index));
        }
    }

    pub(super) fn add_pool_keys(&mut self, branch: u32, start: u32, keys: &[PublicKey]) -> Result<(), WalletError> {
        let refuse = |index, reason: &str| Err(WalletError::PoolKeys { branch, index, reason: reason.into() });
        let Some(known) = self.branches.get_mut(place(branch)) else { return refuse(start, "there is no such branch") };
        if start > known.pool_keys_known() {
            return refuse(known.pool_keys_known(), "is missing: keys are added in order");
        }
        for (index, key) in (start..).zip(keys) {
            let position = Position { branch, index };
            match known.pool_keys.get(place(index)) {
                Some(same) if same == key => continue,
                Some(_) => return refuse(index, "differs from the one that is known; the pool's file was changed"),
                None => {}
            }
            if !key.compressed {
                return refuse(index, "is uncompressed");
            }
            let bytes = key.inner.serialize();
            if self.by_pool_key.contains_key(&bytes) {
                return refuse(index, "occurs twice in the pool");
            }
            self.by_pool_key.insert(bytes, position);
            known.pool_keys.push(*key);
        }
        Ok(())
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
