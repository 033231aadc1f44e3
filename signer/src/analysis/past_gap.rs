//! Scripts of ours past the end of the table: found only through a claim, and only to refuse with the right reason.

use bitcoin::Script;
use postern_protocol::refusal::{Refusal, RefusalCode};

use super::{psbt::KeyOrigin, refuse};
use crate::wallet::{Position, Wallet};

/// Most positions past the table that one request makes us derive.
const DERIVATIONS_MAX: u32 = 64;

/// What an output claims about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Claimed {
    /// A key of ours is named.
    pub(super) ours: bool,
    /// The position that is meant, if it can be told.
    pub(super) position: Option<Position>,
}

/// Derives claimed positions, but not without end.
#[derive(Debug)]
pub(super) struct PastGap<'w> {
    wallet: &'w Wallet,
    left: u32,
}

impl<'w> PastGap<'w> {
    pub(super) fn new(wallet: &'w Wallet) -> Self {
        Self { wallet, left: DERIVATIONS_MAX }
    }

    /// What key origins claim together: the position is that of our own key, or where ours has none, a cosigner's.
    pub(super) fn claimed<'a>(&self, origins: impl Iterator<Item = KeyOrigin<'a>>) -> Claimed {
        let (mut own, mut cosigners) = (None, None);
        let mut ours = false;
        for origin in origins {
            let claim = self.wallet.claim(origin.key, origin.fingerprint, &origin.path());
            ours |= claim.ours;
            let place = if claim.ours { &mut own } else { &mut cosigners };
            *place = place.or(claim.position);
        }
        Claimed { ours, position: own.or(cosigners) }
    }

    /// The claimed position, when the script truly is the wallet's there.
    pub(super) fn position_of<'a>(
        &mut self,
        script: &Script,
        origins: impl Iterator<Item = KeyOrigin<'a>>,
    ) -> Result<Option<Position>, Refusal> {
        let claimed = self.claimed(origins);
        if !claimed.ours {
            return Ok(None);
        }
        match claimed.position {
            Some(position) if self.derives(script, position)? => Ok(Some(position)),
            _ => Ok(None),
        }
    }

    /// Whether the script is the wallet's at this position.
    pub(super) fn derives(&mut self, script: &Script, position: Position) -> Result<bool, Refusal> {
        let Some(left) = self.left.checked_sub(1) else {
            return refuse(
                RefusalCode::ChangeBeyondGap,
                format!(
                    "more than {DERIVATIONS_MAX} inputs and outputs claim positions past the gap; raise the wallet's gap, or split the transaction"
                ),
            );
        };
        self.left = left;
        Ok(self.wallet.at(position).is_ok_and(|own| own.script_pubkey.as_script() == script))
    }
}
