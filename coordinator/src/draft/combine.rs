//! Signatures of several signers put together. Each is verified before it is believed: a link in between may have made it up.

use bitcoin::{
    Psbt, PublicKey, TapLeafHash, Transaction, XOnlyPublicKey, ecdsa,
    hashes::Hash as _,
    secp256k1::{Message, Secp256k1, VerifyOnly},
    sighash::SighashCache,
    taproot,
};
use miniscript::psbt::{PsbtExt as _, PsbtSighashMsg};
use postern_protocol::reply::{InputSignature, SignaturePlace, Signed};

/// Why signatures are not believed.
#[derive(Debug, thiserror::Error)]
pub enum CombineError {
    /// They are for another transaction.
    #[error("the signatures are for another transaction")]
    Transaction,
    /// There is none.
    #[error("there is no signature")]
    Empty,
    /// One does not verify.
    #[error("the signature of input {input} does not verify: {problem}")]
    Signature {
        /// Index of the input.
        input: u32,
        /// What is wrong.
        problem: &'static str,
    },
    /// Finished, it is another transaction.
    #[error("the finished transaction is not the one that was to be signed")]
    Changed,
}

fn check(
    psbt: &Psbt,
    cache: &mut SighashCache<&Transaction>,
    secp: &Secp256k1<VerifyOnly>,
    s: &InputSignature,
) -> Result<(), &'static str> {
    let index = usize::try_from(s.input).map_err(|_| "no such input")?;
    let input = psbt.inputs.get(index).ok_or("no such input")?;
    let message =
        |cache: &mut SighashCache<&Transaction>, leaf| psbt.sighash_msg(index, cache, leaf).map_err(|_| "the input has no signature hash");
    match &s.place {
        SignaturePlace::Partial => {
            let key = PublicKey::from_slice(&s.public_key).map_err(|_| "not a public key")?;
            let signature = ecdsa::Signature::from_slice(&s.signature).map_err(|_| "not an ECDSA signature")?;
            if signature.sighash_type != ecdsa::Signature::sighash_all(signature.signature).sighash_type {
                return Err("not SIGHASH_ALL");
            }
            if !input.bip32_derivation.contains_key(&key.inner) {
                return Err("not a key of this input");
            }
            let hash = message(cache, None)?;
            if matches!(hash, PsbtSighashMsg::TapSighash(_)) {
                return Err("an ECDSA signature for a Taproot input");
            }
            secp.verify_ecdsa(&hash.to_secp_msg(), &signature.signature, &key.inner).map_err(|_| "wrong")
        }
        SignaturePlace::TapKey => {
            let output = input.witness_utxo.as_ref().ok_or("not a Taproot input")?;
            let program =
                output.script_pubkey.as_bytes().get(2..).filter(|_| output.script_pubkey.is_p2tr()).ok_or("not a Taproot input")?;
            let key = XOnlyPublicKey::from_slice(program).map_err(|_| "not a public key")?;
            if s.public_key != key.serialize() {
                return Err("not the output's key");
            }
            schnorr(secp, &message(cache, None)?, &s.signature, &key)
        }
        SignaturePlace::TapLeaf(leaf) => {
            let leaf = TapLeafHash::from_byte_array(*leaf);
            let key = XOnlyPublicKey::from_slice(&s.public_key).map_err(|_| "not a public key")?;
            if !input.tap_key_origins.get(&key).is_some_and(|(leaves, _)| leaves.contains(&leaf)) {
                return Err("not a key of this leaf");
            }
            schnorr(secp, &message(cache, Some(leaf))?, &s.signature, &key)
        }
    }
}

fn schnorr(secp: &Secp256k1<VerifyOnly>, hash: &PsbtSighashMsg, bytes: &[u8], key: &XOnlyPublicKey) -> Result<(), &'static str> {
    let PsbtSighashMsg::TapSighash(hash) = hash else { return Err("a Schnorr signature for an input that is not Taproot") };
    let signature = taproot::Signature::from_slice(bytes).map_err(|_| "not a BIP 340 signature")?;
    if signature.sighash_type != bitcoin::TapSighashType::Default {
        return Err("not SIGHASH_DEFAULT");
    }
    secp.verify_schnorr(&signature.signature, &Message::from_digest(hash.to_byte_array()), key).map_err(|_| "wrong")
}

/// Believes a signer's signatures of a transaction, all of them or none.
///
/// # Errors
/// [`CombineError`].
pub fn accept(psbt: &Psbt, signed: &Signed) -> Result<(), CombineError> {
    if psbt.unsigned_tx.compute_txid().to_byte_array() != signed.unsigned_txid {
        return Err(CombineError::Transaction);
    }
    if signed.signatures.is_empty() {
        return Err(CombineError::Empty);
    }
    let secp = Secp256k1::verification_only();
    let mut cache = SighashCache::new(&psbt.unsigned_tx);
    signed
        .signatures
        .iter()
        .try_for_each(|s| check(psbt, &mut cache, &secp, s).map_err(|problem| CombineError::Signature { input: s.input, problem }))
}

/// Puts a signature, believed before, where it belongs.
fn place(psbt: &mut Psbt, s: &InputSignature) -> Option<()> {
    let input = psbt.inputs.get_mut(usize::try_from(s.input).ok()?)?;
    match &s.place {
        SignaturePlace::Partial => {
            input.partial_sigs.insert(PublicKey::from_slice(&s.public_key).ok()?, ecdsa::Signature::from_slice(&s.signature).ok()?);
        }
        SignaturePlace::TapKey => input.tap_key_sig = Some(taproot::Signature::from_slice(&s.signature).ok()?),
        SignaturePlace::TapLeaf(leaf) => {
            let key = XOnlyPublicKey::from_slice(&s.public_key).ok()?;
            let signature = taproot::Signature::from_slice(&s.signature).ok()?;
            input.tap_script_sigs.insert((key, TapLeafHash::from_byte_array(*leaf)), signature);
        }
    }
    Some(())
}

/// The complete transaction, or `None` while signatures are missing.
///
/// # Errors
/// [`CombineError::Changed`], which would be a bug.
pub fn finalise(psbt: &Psbt, signatures: &[InputSignature]) -> Result<Option<Transaction>, CombineError> {
    let secp = Secp256k1::verification_only();
    let mut psbt = psbt.clone();
    let unsigned_txid = psbt.unsigned_tx.compute_txid();
    for s in signatures {
        let input = s.input;
        place(&mut psbt, s).ok_or(CombineError::Signature { input, problem: "malformed" })?;
    }
    if psbt.finalize_mut(&secp).is_err() {
        return Ok(None);
    }
    let Ok(transaction) = psbt.extract(&secp) else { return Ok(None) };
    let mut bare = transaction.clone();
    for input in &mut bare.input {
        input.script_sig = bitcoin::ScriptBuf::new();
        input.witness.clear();
    }
    if bare.compute_txid() == unsigned_txid { Ok(Some(transaction)) } else { Err(CombineError::Changed) }
}
