//! What a key origin in a PSBT claims. Claims prove nothing; they say where to look, and a false one is worth an alarm.

use bitcoin::bip32::{ChildNumber, Fingerprint};

use super::{Position, Wallet, descriptor::KeySource};

/// What a key with its origin claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Claim {
    /// It names a key of ours: our master fingerprint, or the pinned or numbered key itself.
    pub(crate) ours: bool,
    /// The position that would be meant.
    pub(crate) position: Option<Position>,
}

impl Wallet {
    /// Reads a key (33 bytes, or 32 for Taproot) and its origin: the master key's fingerprint and the path from there.
    pub(crate) fn claim(&self, key: &[u8], fingerprint: Fingerprint, path: &[ChildNumber]) -> Claim {
        let mut claim = Claim::default();
        for source in self.template.sources() {
            match source {
                KeySource::Pool => {
                    if let Some(position) = self.read(|table| table.pool_position(key)) {
                        claim = Claim { ours: true, position: Some(position) };
                    }
                }
                KeySource::Single { key: pinned, ours } => {
                    if *ours && pinned.inner.serialize() == key {
                        claim.ours = true;
                        if self.branches() == 1 {
                            claim.position = Some(Position { branch: 0, index: 0 });
                        }
                    }
                }
                KeySource::Extended(extended) => {
                    if extended.fingerprint != fingerprint {
                        continue;
                    }
                    claim.ours |= extended.ours;
                    for (branch, (prefix, _)) in (0..).zip(&extended.branches) {
                        let index = match path.strip_prefix(prefix.as_ref()) {
                            Some([ChildNumber::Normal { index }]) if extended.wildcard => *index,
                            Some([]) if !extended.wildcard => 0,
                            _ => continue,
                        };
                        claim.position = claim.position.or(Some(Position { branch, index }));
                    }
                }
            }
        }
        claim
    }
}
