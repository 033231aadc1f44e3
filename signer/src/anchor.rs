//! A small memory in hardware that makes a rolled-back ledger visible. It knows no transaction, only how much was ever
//! charged (an upper bound), how many commands were applied, whose ledger that is, and, after a clean stop, the
//! journal's last hash.
//!
//! The bound is raised by a whole lease before a charge passes it, so that hardware is written once per lease and not
//! once per payment. What is spent is never less than the bound: an old ledger gains nothing, and a crash
//! burns at most one lease and the charges in flight.

mod label;
mod nv;

pub use label::{LabelAnchor, LabelStore};
pub use nv::{NV_INDEX_DEFAULT, NvAnchor};

/// What an anchor remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnchorState {
    /// The ledger that it belongs to.
    pub ledger: [u8; 16],
    /// At least the sum of everything ever charged, in satoshi.
    pub bound_sat: u64,
    /// Commands (and locks) ever applied.
    pub commands: u64,
    /// After a clean stop: the first half of the hash of the journal's last entry.
    pub clean: Option<[u8; 16]>,
}

/// Why an anchor cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// The hardware does not answer. Passes when it does.
    #[error("the anchor does not answer: {0}")]
    Unavailable(String),
    /// The hardware refused PIN or auth value, or takes none. Each further try may lock it: nothing more is tried by this process.
    #[error("the anchor is closed: {0}")]
    Closed(String),
    /// It holds something else. Whoever wrote it is not this signer.
    #[error("the anchor holds {0:?}, which is not an anchor of this signer; was it written by somebody else?")]
    Damaged(String),
}

/// An anchor. Writes are durable when [`Anchor::write`] returns.
pub trait Anchor: Send {
    /// `none`, `pkcs11-label`, `tpm-nv`
    fn kind(&self) -> &'static str;

    /// What it remembers; None when it was never written.
    ///
    /// # Errors
    /// [`AnchorError`].
    fn read(&mut self) -> Result<Option<AnchorState>, AnchorError>;

    /// Replaces what it remembers.
    ///
    /// # Errors
    /// [`AnchorError`]; then the old or the new state is held.
    fn write(&mut self, state: &AnchorState) -> Result<(), AnchorError>;

    /// False when nothing is remembered at all.
    fn remembers(&self) -> bool {
        true
    }
}

/// No anchor: an old ledger put back is not noticed, so after every restart the buckets start empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAnchor;

impl Anchor for NoAnchor {
    fn kind(&self) -> &'static str {
        "none"
    }
    fn read(&mut self) -> Result<Option<AnchorState>, AnchorError> {
        Ok(None)
    }
    fn write(&mut self, _: &AnchorState) -> Result<(), AnchorError> {
        Ok(())
    }
    fn remembers(&self) -> bool {
        false
    }
}
