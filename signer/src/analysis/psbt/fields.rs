//! The fields that exist, and the shape of each (BIPs 174, 370, 371, 373 and 375).

use super::{super::bytes::Bytes, map::Place};

/// Global fields.
pub(super) mod global {
    pub(in super::super) const UNSIGNED_TX: u64 = 0x00;
    pub(super) const XPUB: u64 = 0x01;
    pub(super) const VERSION: u64 = 0xfb;
}

/// Fields of an input.
pub(super) mod input {
    pub(in super::super) const NON_WITNESS_UTXO: u64 = 0x00;
    pub(in super::super) const WITNESS_UTXO: u64 = 0x01;
    pub(in super::super) const PARTIAL_SIG: u64 = 0x02;
    pub(in super::super) const SIGHASH_TYPE: u64 = 0x03;
    pub(in super::super) const REDEEM_SCRIPT: u64 = 0x04;
    pub(in super::super) const WITNESS_SCRIPT: u64 = 0x05;
    pub(in super::super) const BIP32_DERIVATION: u64 = 0x06;
    pub(in super::super) const FINAL_SCRIPTSIG: u64 = 0x07;
    pub(in super::super) const FINAL_SCRIPTWITNESS: u64 = 0x08;
    pub(super) const POR_COMMITMENT: u64 = 0x09;
    pub(super) const RIPEMD160: u64 = 0x0a;
    pub(super) const SHA256: u64 = 0x0b;
    pub(super) const HASH160: u64 = 0x0c;
    pub(super) const HASH256: u64 = 0x0d;
    pub(in super::super) const TAP_KEY_SIG: u64 = 0x13;
    pub(in super::super) const TAP_SCRIPT_SIG: u64 = 0x14;
    pub(in super::super) const TAP_LEAF_SCRIPT: u64 = 0x15;
    pub(in super::super) const TAP_BIP32_DERIVATION: u64 = 0x16;
    pub(in super::super) const TAP_INTERNAL_KEY: u64 = 0x17;
    pub(in super::super) const TAP_MERKLE_ROOT: u64 = 0x18;
    pub(super) const OWNERSHIP_PROOF: u64 = 0x19;
    pub(super) const MUSIG2_PARTICIPANTS: u64 = 0x1a;
    pub(super) const MUSIG2_PUB_NONCE: u64 = 0x1b;
    pub(super) const MUSIG2_PARTIAL_SIG: u64 = 0x1c;

    /// A field of BIP 371.
    pub(in super::super) const fn is_taproot(kind: u64) -> bool {
        matches!(kind, TAP_KEY_SIG..=TAP_MERKLE_ROOT)
    }
}

/// Fields of an output.
pub(super) mod output {
    pub(in super::super) const REDEEM_SCRIPT: u64 = 0x00;
    pub(in super::super) const WITNESS_SCRIPT: u64 = 0x01;
    pub(in super::super) const BIP32_DERIVATION: u64 = 0x02;
    pub(in super::super) const TAP_INTERNAL_KEY: u64 = 0x05;
    pub(super) const TAP_TREE: u64 = 0x06;
    pub(in super::super) const TAP_BIP32_DERIVATION: u64 = 0x07;
    pub(super) const MUSIG2_PARTICIPANTS: u64 = 0x08;
}

/// What a field is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As it should be, or unknown.
    Good,
    /// Not as its BIP says.
    Bad,
    /// It exists in version 2 only, or announces another version.
    OtherVersion,
}

impl From<bool> for Shape {
    fn from(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }
}

/// The shape of a field.
pub(super) fn shape(place: Place, kind: u64, key: &[u8], value: &[u8]) -> Shape {
    match place {
        Place::Global => global_shape(kind, key, value),
        Place::Input(_) => input_shape(kind, key, value),
        Place::Output(_) => output_shape(kind, key, value),
    }
}

fn global_shape(kind: u64, key: &[u8], value: &[u8]) -> Shape {
    match kind {
        global::UNSIGNED_TX => key.is_empty().into(),
        global::XPUB => (key.len() == 78 && is_origin(value)).into(),
        global::VERSION if key.is_empty() && value.len() == 4 => {
            if value == [0; 4] {
                Shape::Good
            } else {
                Shape::OtherVersion
            }
        }
        global::VERSION => Shape::Bad,
        // Version, lock time, counts and modifiable flags of BIP 370; shares and proofs of BIP 375.
        0x02..=0x08 => Shape::OtherVersion,
        _ => Shape::Good,
    }
}

fn input_shape(kind: u64, key: &[u8], value: &[u8]) -> Shape {
    use input::{
        BIP32_DERIVATION, FINAL_SCRIPTSIG, FINAL_SCRIPTWITNESS, HASH160, HASH256, MUSIG2_PARTIAL_SIG, MUSIG2_PARTICIPANTS,
        MUSIG2_PUB_NONCE, NON_WITNESS_UTXO, OWNERSHIP_PROOF, PARTIAL_SIG, POR_COMMITMENT, REDEEM_SCRIPT, RIPEMD160, SHA256, SIGHASH_TYPE,
        TAP_BIP32_DERIVATION, TAP_INTERNAL_KEY, TAP_KEY_SIG, TAP_LEAF_SCRIPT, TAP_MERKLE_ROOT, TAP_SCRIPT_SIG, WITNESS_SCRIPT,
        WITNESS_UTXO,
    };
    let schnorr = matches!(value.len(), 64 | 65);
    match kind {
        NON_WITNESS_UTXO | WITNESS_UTXO | REDEEM_SCRIPT | WITNESS_SCRIPT | FINAL_SCRIPTSIG | FINAL_SCRIPTWITNESS | POR_COMMITMENT
        | OWNERSHIP_PROOF => key.is_empty().into(),
        PARTIAL_SIG => (is_key(key) && matches!(value.len(), 9..=73)).into(),
        SIGHASH_TYPE => (key.is_empty() && value.len() == 4).into(),
        BIP32_DERIVATION => (is_key(key) && is_origin(value)).into(),
        RIPEMD160 | HASH160 => (key.len() == 20).into(),
        SHA256 | HASH256 => (key.len() == 32).into(),
        // BIP 370; shares and proofs of BIP 375.
        0x0e..=0x12 | 0x1d | 0x1e => Shape::OtherVersion,
        TAP_KEY_SIG => (key.is_empty() && schnorr).into(),
        TAP_SCRIPT_SIG => (key.len() == 64 && schnorr).into(),
        TAP_LEAF_SCRIPT => (is_control_block(key) && !value.is_empty()).into(),
        TAP_BIP32_DERIVATION => (key.len() == 32 && is_tap_origin(value)).into(),
        TAP_INTERNAL_KEY | TAP_MERKLE_ROOT => (key.is_empty() && value.len() == 32).into(),
        MUSIG2_PARTICIPANTS => is_participants(key, value).into(),
        MUSIG2_PUB_NONCE => (is_participant(key) && value.len() == 66).into(),
        MUSIG2_PARTIAL_SIG => (is_participant(key) && value.len() == 32).into(),
        _ => Shape::Good,
    }
}

fn output_shape(kind: u64, key: &[u8], value: &[u8]) -> Shape {
    use output::{BIP32_DERIVATION, MUSIG2_PARTICIPANTS, REDEEM_SCRIPT, TAP_BIP32_DERIVATION, TAP_INTERNAL_KEY, TAP_TREE, WITNESS_SCRIPT};
    match kind {
        REDEEM_SCRIPT | WITNESS_SCRIPT => key.is_empty().into(),
        BIP32_DERIVATION => (is_key(key) && is_origin(value)).into(),
        // Amount and script of BIP 370; keys and labels of BIP 375.
        0x03 | 0x04 | 0x09 | 0x0a => Shape::OtherVersion,
        TAP_INTERNAL_KEY => (key.is_empty() && value.len() == 32).into(),
        TAP_TREE => (key.is_empty() && is_tap_tree(value)).into(),
        TAP_BIP32_DERIVATION => (key.len() == 32 && is_tap_origin(value)).into(),
        MUSIG2_PARTICIPANTS => is_participants(key, value).into(),
        _ => Shape::Good,
    }
}

/// The form of a public key. Whether it is on the curve does not matter: keys are only compared with ours.
fn is_key(bytes: &[u8]) -> bool {
    matches!((bytes.first(), bytes.len()), (Some(2 | 3), 33) | (Some(4), 65))
}

fn is_compressed_key(bytes: &[u8]) -> bool {
    matches!((bytes.first(), bytes.len()), (Some(2 | 3), 33))
}

/// Fingerprint and path, in steps of four bytes.
fn is_origin(bytes: &[u8]) -> bool {
    bytes.len() >= 4 && bytes.len().is_multiple_of(4)
}

fn is_tap_origin(bytes: &[u8]) -> bool {
    let mut rest = Bytes(bytes);
    let hashes = rest.compact_size().ok().and_then(|count| count.checked_mul(32));
    hashes.is_some_and(|length| rest.take(length).is_ok()) && is_origin(rest.0)
}

/// Version and parity, internal key, at most 128 hashes (BIP 341).
fn is_control_block(bytes: &[u8]) -> bool {
    matches!(bytes.len(), 33..=4129) && bytes.len().checked_rem(32) == Some(1)
}

fn is_tap_tree(bytes: &[u8]) -> bool {
    let mut rest = Bytes(bytes);
    while !rest.is_empty() {
        let leaf = rest.take(2).and_then(|depth_and_version| rest.sized().map(|_| depth_and_version));
        if !leaf.is_ok_and(|d| matches!(d.first(), Some(0..=128))) {
            return false;
        }
    }
    !bytes.is_empty()
}

fn is_participants(key: &[u8], value: &[u8]) -> bool {
    let (participants, rest) = value.as_chunks::<33>();
    is_compressed_key(key) && rest.is_empty() && participants.iter().all(|p| is_compressed_key(p))
}

/// Participant, aggregate key, and for a script the leaf's hash.
fn is_participant(bytes: &[u8]) -> bool {
    let key = |range| bytes.get(range).is_some_and(is_compressed_key);
    matches!(bytes.len(), 66 | 98) && key(0..33) && key(33..66)
}
