//! From what a token returns to what leaves: low-S, verified against the pinned key, DER with the sighash byte.

use std::sync::OnceLock;

use bitcoin::{
    PublicKey,
    key::TapTweak as _,
    secp256k1::{All, Message, Secp256k1, XOnlyPublicKey, ecdsa, schnorr},
    sighash::EcdsaSighashType,
};
use postern_protocol::reply::{InputSignature, SignaturePlace};

use crate::analysis::{Scheme, SigningTask};

/// The curve's context, blinded with randomness when it is first used.
pub(super) fn curve() -> &'static Secp256k1<All> {
    static CURVE: OnceLock<Secp256k1<All>> = OnceLock::new();
    CURVE.get_or_init(Secp256k1::new)
}

/// A signature that its pinned key does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a signature does not verify against the pinned public key")]
pub(super) struct NotVerified;

/// Reads CKA_EC_POINT: a DER OCTET STRING around the point (PKCS#11 §2.3.3), or the point itself as some tokens have it.
pub(super) fn point(attribute: &[u8]) -> Option<PublicKey> {
    let point = match attribute.len() {
        67 => attribute.strip_prefix(&[0x04, 0x41])?,
        35 => attribute.strip_prefix(&[0x04, 0x21])?,
        33 | 65 => attribute,
        _ => return None,
    };
    bitcoin::secp256k1::PublicKey::from_slice(point).ok().map(PublicKey::new)
}

/// All forms in which a token may hold a key's point.
pub(super) fn point_forms(key: &PublicKey) -> [Vec<u8>; 4] {
    let (long, short) = (key.inner.serialize_uncompressed(), key.inner.serialize());
    let der = |point: &[u8], tag: [u8; 2]| [tag.as_slice(), point].concat();
    [der(&long, [0x04, 0x41]), long.to_vec(), der(&short, [0x04, 0x21]), short.to_vec()]
}

/// Normalises r and s to low-S (BIP 146) and verifies them.
pub(super) fn ecdsa_checked(raw: &[u8; 64], digest: &[u8; 32], key: &PublicKey) -> Result<ecdsa::Signature, NotVerified> {
    let mut signature = ecdsa::Signature::from_compact(raw).map_err(|_| NotVerified)?;
    signature.normalize_s();
    verify_ecdsa(&signature, digest, key)?;
    Ok(signature)
}

/// Verifies a low-S signature.
pub(super) fn verify_ecdsa(signature: &ecdsa::Signature, digest: &[u8; 32], key: &PublicKey) -> Result<(), NotVerified> {
    curve().verify_ecdsa(&Message::from_digest(*digest), signature, &key.inner).map_err(|_| NotVerified)
}

/// The answer to an ECDSA task.
pub(super) fn ecdsa_answer(task: &SigningTask, signature: &ecdsa::Signature) -> InputSignature {
    let signature = bitcoin::ecdsa::Signature { signature: *signature, sighash_type: EcdsaSighashType::All };
    InputSignature {
        input: task.input,
        public_key: task.key.public_key.inner.serialize().to_vec(),
        signature: signature.to_vec(),
        place: SignaturePlace::Partial,
    }
}

/// Verifies a BIP-340 signature against the key that its scheme says, and makes the answer to the task. None: not a BIP-340 task.
pub(super) fn schnorr_answer(task: &SigningTask, signature: &schnorr::Signature) -> Option<Result<InputSignature, NotVerified>> {
    let internal = XOnlyPublicKey::from(task.key.public_key.inner);
    let (key, place) = match task.scheme {
        Scheme::Ecdsa => return None,
        Scheme::SchnorrKeyPath { merkle_root } => {
            (internal.tap_tweak(curve(), merkle_root).0.to_x_only_public_key(), SignaturePlace::TapKey)
        }
        Scheme::SchnorrLeaf { leaf } => (internal, SignaturePlace::TapLeaf(*<_ as AsRef<[u8; 32]>>::as_ref(&leaf))),
    };
    let verified = curve().verify_schnorr(signature, &Message::from_digest(task.digest), &key).map_err(|_| NotVerified);
    Some(verified.map(|()| InputSignature {
        input: task.input,
        public_key: key.serialize().to_vec(),
        signature: signature.as_ref().iter().copied().chain(task.sighash_byte).collect(),
        place,
    }))
}

/// Whether signatures of an earlier time are what these tasks ask for. ECDSA's are: previous transactions prove what their digests
/// commit to. A P2TR digest commits to amounts that a request may only claim, so an earlier lie left signatures that nobody can use.
pub(crate) fn answers(tasks: &[SigningTask], signatures: &[InputSignature]) -> bool {
    let good = |task: &SigningTask, given: &InputSignature| {
        if task.scheme == Scheme::Ecdsa {
            return true;
        }
        let signature = given.signature.get(..64).and_then(|bytes| schnorr::Signature::from_slice(bytes).ok());
        signature.and_then(|signature| schnorr_answer(task, &signature)).is_some_and(|answer| answer.is_ok_and(|answer| answer == *given))
    };
    tasks.len() == signatures.len() && tasks.iter().zip(signatures).all(|(task, given)| good(task, given))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::secp256k1::SecretKey;

    use super::*;

    /// The curve's order minus s: the other signature that verifies.
    fn high_s(signature: &ecdsa::Signature) -> [u8; 64] {
        let mut raw = signature.serialize_compact();
        let negated = SecretKey::from_slice(&raw[32..]).unwrap().negate();
        raw[32..].copy_from_slice(&negated.secret_bytes());
        raw
    }

    #[test]
    fn a_high_s_signature_leaves_as_low_s() {
        let key = SecretKey::from_slice(&[7; 32]).unwrap();
        let public = PublicKey::new(key.public_key(curve()));
        let digest = [9; 32];
        let low = curve().sign_ecdsa(&Message::from_digest(digest), &key);
        let high = high_s(&low);
        assert_ne!(high, low.serialize_compact());
        assert_eq!(ecdsa_checked(&high, &digest, &public).unwrap(), low);
        assert_eq!(ecdsa_checked(&low.serialize_compact(), &digest, &public).unwrap(), low);
    }

    #[test]
    fn a_signature_by_another_key_or_of_another_digest_does_not_leave() {
        let (key, other) = (SecretKey::from_slice(&[7; 32]).unwrap(), SecretKey::from_slice(&[8; 32]).unwrap());
        let public = PublicKey::new(key.public_key(curve()));
        let raw = curve().sign_ecdsa(&Message::from_digest([9; 32]), &other).serialize_compact();
        assert_eq!(ecdsa_checked(&raw, &[9; 32], &public), Err(NotVerified));
        let raw = curve().sign_ecdsa(&Message::from_digest([9; 32]), &key).serialize_compact();
        assert_eq!(ecdsa_checked(&raw, &[10; 32], &public), Err(NotVerified));
        assert_eq!(ecdsa_checked(&[0; 64], &[9; 32], &public), Err(NotVerified));
        assert_eq!(ecdsa_checked(&[0xff; 64], &[9; 32], &public), Err(NotVerified));
    }

    #[test]
    fn every_form_of_a_point_is_read_and_nothing_else() {
        let public = PublicKey::new(SecretKey::from_slice(&[7; 32]).unwrap().public_key(curve()));
        for form in point_forms(&public) {
            assert_eq!(point(&form), Some(public));
            for cut in 0..form.len() {
                assert_ne!(point(&form[..cut]), Some(public));
            }
        }
        assert_eq!(point(&[]), None);
        assert_eq!(point(&[0x04; 65]), None);
    }
}
