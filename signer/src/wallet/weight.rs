//! How heavy a satisfied input is, at most and at least, beyond its 41 bytes × 4 of outpoint, empty scriptSig and sequence.

use bitcoin::VarInt;
use miniscript::{Descriptor, MiniscriptKey as _, descriptor::WshInner, policy::Liftable};

use super::{WalletError, key::WalletKey};

/// A low-S ECDSA signature with a short r, the sighash byte and its length. One in 256 is a byte shorter.
const ECDSA: usize = 1 + 71;
/// A BIP-340 signature and its length.
const SCHNORR: usize = 1 + 64;
/// A compressed key and its length.
const KEY: usize = 1 + 33;
/// The point of unknown discrete logarithm that BIP 341 suggests for a key path that nobody has.
const NOBODYS_KEY: &str = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0";

/// Upper bound, with the count of witness items.
pub(super) fn heaviest(descriptor: &Descriptor<WalletKey>) -> Result<u64, WalletError> {
    let weight = descriptor.max_weight_to_satisfy().map_err(|e| WalletError::NotSane { reason: e.to_string() })?;
    Ok(weight.to_wu().saturating_add(1))
}

/// Lower bound. A fee rate that is checked against it is never higher on the chain.
pub(super) fn lightest(descriptor: &Descriptor<WalletKey>) -> u64 {
    let bytes = match descriptor {
        Descriptor::Pkh(_) => ECDSA.saturating_add(KEY).saturating_mul(4),
        Descriptor::Wpkh(_) => ECDSA.saturating_add(KEY).saturating_add(1),
        // The push of the 22 bytes of redeem script stands in the scriptSig.
        Descriptor::Sh(_) => ECDSA.saturating_add(KEY).saturating_add(1).saturating_add(23 * 4),
        Descriptor::Wsh(wsh) => {
            let script = match wsh.as_inner() {
                WshInner::SortedMulti(multi) => multi.script_size(),
                WshInner::Ms(script) => script.script_size(),
            };
            signatures(wsh).saturating_mul(ECDSA).saturating_add(with_length(script)).saturating_add(1)
        }
        Descriptor::Tr(tr) => {
            let leaves = tr.iter_scripts().map(|(depth, leaf)| {
                let control_block = usize::from(depth).saturating_mul(32).saturating_add(33);
                let scripts = with_length(leaf.script_size()).saturating_add(with_length(control_block));
                signatures(leaf).saturating_mul(SCHNORR).saturating_add(scripts).saturating_add(1)
            });
            let nobodys = tr.internal_key().is_x_only_key() && tr.internal_key().to_string() == NOBODYS_KEY;
            let key_path = (!nobodys).then_some(SCHNORR.saturating_add(1));
            leaves.chain(key_path).min().unwrap_or(0)
        }
        Descriptor::Bare(_) => 0,
    };
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The fewest signatures that satisfy it; sane scripts need one.
fn signatures(script: &impl Liftable<WalletKey>) -> usize {
    script.lift().ok().and_then(|policy| policy.minimum_n_keys()).unwrap_or(1)
}

fn with_length(bytes: usize) -> usize {
    VarInt::from(bytes).size().saturating_add(bytes)
}
