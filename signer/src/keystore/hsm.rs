//! Kind `hsm`: one key pair, born in the token, sensitive and never extractable.

use bitcoin::PublicKey;
use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
};

use super::{KeystoreError, fault::Fault, signature, work::Token};

/// The curve's OID 1.3.132.0.10 in DER.
const SECP256K1: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

/// The label of a wallet's objects.
pub(super) fn label(wallet: &str) -> String {
    format!("postern:{wallet}")
}

/// A fresh object id.
pub(super) fn random_id() -> Result<[u8; 16], Fault> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| Fault::call("getrandom", error.to_string()))?;
    Ok(id)
}

/// Makes the wallet's key pair and returns its public half, after the token has shown that it made the key itself, that the key
/// never leaves, and that it signs.
pub(super) fn create(token: &mut Token<'_>, wallet: &str) -> Result<PublicKey, Fault> {
    let label = label(wallet);
    if !token.session.find_objects(&[Attribute::Label(label.clone().into_bytes())])?.is_empty() {
        return Err(KeystoreError::Exists { what: format!("an object labelled `{label}` on the token") }.into());
    }
    token.prove_presence()?;
    let id = random_id()?;
    let public = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::EcParams(SECP256K1.to_vec()),
        Attribute::Label(label.clone().into_bytes()),
        Attribute::Id(id.to_vec()),
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
    ];
    let private = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::Label(label.into_bytes()),
        Attribute::Id(id.to_vec()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Derive(false),
        Attribute::Copyable(false),
    ];
    let (public, private) = token.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    token.remember(private);
    let key = read_point(token, public)?.ok_or_else(|| Fault::call("C_GenerateKeyPair", "the public key has no secp256k1 point"))?;
    for wanted in [Attribute::Local(true), Attribute::AlwaysSensitive(true), Attribute::NeverExtractable(true)] {
        if token.session.get_attributes(private, &[wanted.attribute_type()])?.first() != Some(&wanted) {
            return Err(Fault::call("C_GenerateKeyPair", format!("the new key is not {wanted:?}")));
        }
    }
    test(token, private, wallet, &key)?;
    Ok(key)
}

/// Makes a key pair that lives in this session only, its private half fit to be wrapped.
pub(super) fn create_in_session(token: &mut Token<'_>) -> Result<(PublicKey, ObjectHandle), Fault> {
    let public = [Attribute::EcParams(SECP256K1.to_vec()), Attribute::Token(false), Attribute::Private(false), Attribute::Verify(true)];
    let private = [
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(true),
        Attribute::Sign(true),
        Attribute::Derive(false),
    ];
    let (public, private) = token.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    let key = read_point(token, public)?.ok_or_else(|| Fault::call("C_GenerateKeyPair", "the public key has no secp256k1 point"))?;
    token.session.destroy_object(public)?;
    Ok((key, private))
}

/// Finds the private key of a pinned public key and has it sign something. The public key object with this very point leads to
/// the private key of the same id; labels are not asked.
pub(super) fn find(token: &mut Token<'_>, wallet: &str, pinned: &PublicKey) -> Result<ObjectHandle, Fault> {
    let mut ids = Vec::new();
    for form in signature::point_forms(pinned) {
        for public in token.session.find_objects(&[Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::EcPoint(form)])? {
            if let Some(Attribute::Id(id)) = token.session.get_attributes(public, &[AttributeType::Id])?.into_iter().next()
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        }
    }
    token.prove_presence()?;
    if ids.is_empty() {
        return Err(not_found(token, wallet, pinned));
    }
    let mut refused = None;
    for id in ids {
        let private =
            [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC), Attribute::Token(true), Attribute::Id(id)];
        for private in token.session.find_objects(&private)? {
            match usable(token, private, wallet).and_then(|()| test(token, private, wallet, pinned)) {
                Ok(()) => return Ok(private),
                Err(Fault::Decided(error)) => refused = Some(error),
                Err(fault) => return Err(fault),
            }
        }
    }
    token.prove_presence()?;
    Err(refused
        .unwrap_or_else(|| KeystoreError::KeyMissing {
            wallet: wallet.into(),
            reason: format!("the token has the public key {pinned} and not its private key"),
        })
        .into())
}

/// Neither the pinned key nor, under the wallet's label, another one: missing. Another one: a mismatch.
fn not_found(token: &Token<'_>, wallet: &str, pinned: &PublicKey) -> Fault {
    let labelled = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Label(label(wallet).into_bytes())];
    match token.session.find_objects(&labelled) {
        Err(error) => error.into(),
        Ok(found) if found.is_empty() => {
            KeystoreError::KeyMissing { wallet: wallet.into(), reason: format!("the token has no key {pinned}") }.into()
        }
        Ok(_) => KeystoreError::KeyMismatch {
            wallet: wallet.into(),
            reason: format!("the token's key labelled `{}` is not the pinned {pinned}", label(wallet)),
        }
        .into(),
    }
}

/// A key that can be read out is not what `hsm` promises.
fn usable(token: &Token<'_>, private: ObjectHandle, wallet: &str) -> Result<(), Fault> {
    for wanted in [Attribute::Sensitive(true), Attribute::Extractable(false)] {
        if token.session.get_attributes(private, &[wanted.attribute_type()])?.first() != Some(&wanted) {
            return Err(KeystoreError::KeyMismatch {
                wallet: wallet.into(),
                reason: format!("the token's private key is not {wanted:?}: it can leave the token"),
            }
            .into());
        }
    }
    Ok(())
}

/// A signature that verifies against the pinned key, over a digest that is no transaction's.
pub(super) fn test(token: &mut Token<'_>, private: ObjectHandle, wallet: &str, pinned: &PublicKey) -> Result<(), Fault> {
    sign(token, private, wallet, &test_digest(wallet), pinned).map(|_| ())
}

/// What start-up test signatures are made over: a tagged hash (BIP 340) that no transaction can have.
pub(super) fn test_digest(wallet: &str) -> [u8; 32] {
    use bitcoin::hashes::{Hash as _, HashEngine as _, sha256};
    let tag = sha256::Hash::hash(b"postern/self-test");
    let mut engine = sha256::Hash::engine();
    engine.input(tag.as_ref());
    engine.input(tag.as_ref());
    engine.input(wallet.as_bytes());
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// One signature: made, normalised, verified.
pub(super) fn sign(
    token: &mut Token<'_>,
    private: ObjectHandle,
    wallet: &str,
    digest: &[u8; 32],
    pinned: &PublicKey,
) -> Result<bitcoin::secp256k1::ecdsa::Signature, Fault> {
    let raw = token.calls.ecdsa(token.session, private, digest)?;
    signature::ecdsa_checked(&raw, digest, pinned)
        .map_err(|error| KeystoreError::KeyMismatch { wallet: wallet.into(), reason: format!("{error} {pinned}") }.into())
}

fn read_point(token: &Token<'_>, public: ObjectHandle) -> Result<Option<PublicKey>, Fault> {
    let attributes = token.session.get_attributes(public, &[AttributeType::EcPoint])?;
    Ok(attributes.iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(point) => signature::point(point),
        _ => None,
    }))
}
