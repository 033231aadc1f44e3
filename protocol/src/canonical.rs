//! Deterministic CBOR: one value has one encoding, so a signature or a hash over it means one thing.

use minicbor::{Decode, Encode};

/// Why bytes are not the canonical encoding of a value.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// Not CBOR, or not of this type. Says where.
    #[error("not the CBOR that was expected: {0}")]
    Decode(#[from] minicbor::decode::Error),
    /// Bytes are left after the value.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
    /// Decodes, but is not encoded the one allowed way (RFC 8949 §4.2.1).
    #[error("not in canonical form")]
    NotCanonical,
}

/// The canonical encoding of a value. All types of this crate encode with ascending integer keys and definite
/// lengths, which is what RFC 8949 §4.2.1 asks for.
pub fn to_vec<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing into a Vec cannot fail; an encoder of ours that reports an error would be a bug.
    match minicbor::encode(value, &mut out) {
        Ok(()) => out,
        Err(_) => Vec::new(),
    }
}

/// Decodes a whole buffer and insists on the canonical form.
///
/// # Errors
/// [`CanonicalError`]; never panics, whatever the bytes.
pub fn from_slice<'b, T: Decode<'b, ()> + Encode<()>>(bytes: &'b [u8]) -> Result<T, CanonicalError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value: T = decoder.decode()?;
    let rest = bytes.len().saturating_sub(decoder.position());
    if rest != 0 {
        return Err(CanonicalError::Trailing(rest));
    }
    if to_vec(&value) != bytes {
        return Err(CanonicalError::NotCanonical);
    }
    Ok(value)
}
