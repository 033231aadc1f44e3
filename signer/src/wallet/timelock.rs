//! The lock times that a descriptor names: no transaction needs one further ahead.

use miniscript::{
    Descriptor, Miniscript, ScriptContext, Terminal,
    bitcoin::{absolute, relative},
    descriptor::WshInner,
};

use super::key::WalletKey;

/// The furthest lock times in a descriptor; none where it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timelocks {
    /// `older(n)` in blocks.
    pub older_blocks: Option<u16>,
    /// `older(n)` in units of 512 seconds.
    pub older_512s: Option<u16>,
    /// `after(n)` as a block height.
    pub after_height: Option<u32>,
    /// `after(n)` in seconds since 1970.
    pub after_seconds: Option<u32>,
}

impl Timelocks {
    pub(super) fn of(descriptor: &Descriptor<WalletKey>) -> Self {
        let mut locks = Self::default();
        match descriptor {
            Descriptor::Wsh(wsh) => {
                if let WshInner::Ms(script) = wsh.as_inner() {
                    locks.collect(script);
                }
            }
            Descriptor::Tr(tr) => tr.iter_scripts().for_each(|(_, leaf)| locks.collect(leaf)),
            Descriptor::Bare(_) | Descriptor::Pkh(_) | Descriptor::Wpkh(_) | Descriptor::Sh(_) => {}
        }
        locks
    }

    fn collect<C: ScriptContext>(&mut self, script: &Miniscript<WalletKey, C>) {
        for node in script.iter() {
            match node.node {
                Terminal::Older(lock) => match relative::LockTime::from(lock) {
                    relative::LockTime::Blocks(height) => self.older_blocks = self.older_blocks.max(Some(height.value())),
                    relative::LockTime::Time(time) => self.older_512s = self.older_512s.max(Some(time.value())),
                },
                Terminal::After(lock) => match absolute::LockTime::from(lock) {
                    absolute::LockTime::Blocks(height) => {
                        self.after_height = self.after_height.max(Some(height.to_consensus_u32()));
                    }
                    absolute::LockTime::Seconds(time) => {
                        self.after_seconds = self.after_seconds.max(Some(time.to_consensus_u32()));
                    }
                },
                _ => {}
            }
        }
    }
}
