//! Auth values: what the TPM wants to hear before it opens something.

use std::fmt;

use sha2::{Digest as _, Sha256};
use tss_esapi::structures::Auth;
use zeroize::Zeroizing;

use super::TpmError;
use crate::secret::{LockedBytes, LockedMemoryError};

/// An auth value, made from the configured secret: 32 hexadecimal digits, since a TPM drops final zero bytes and takes at most
/// 32, and since a low-entropy secret shall not stand in a chip as it is typed.
pub struct AuthValue(LockedBytes);

impl AuthValue {
    /// From the operator's secret. Another purpose gives another value.
    ///
    /// # Errors
    /// When there is no locked memory.
    pub fn derive(secret: &[u8], purpose: &str) -> Result<Self, LockedMemoryError> {
        let hash: Zeroizing<[u8; 32]> =
            Zeroizing::new(Sha256::new().chain_update(purpose.as_bytes()).chain_update([0]).chain_update(secret).finalize().into());
        let mut digits = LockedBytes::zeroed(32)?;
        for (place, byte) in digits.chunks_exact_mut(2).zip(hash.iter()) {
            for (digit, nibble) in place.iter_mut().zip([byte >> 4, byte & 0xf]) {
                *digit = char::from_digit(u32::from(nibble), 16).map_or(0, |digit| u8::try_from(digit).unwrap_or(0));
            }
        }
        Ok(Self(digits))
    }

    /// For one command; the library wipes it.
    pub(super) fn for_command(&self) -> Result<Auth, TpmError> {
        Auth::try_from(&*self.0).map_err(TpmError::of("auth value"))
    }
}

impl fmt::Debug for AuthValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthValue")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_auth_value_is_32_digits_that_depend_on_secret_and_purpose() {
        let value = |secret: &[u8], purpose| AuthValue::derive(secret, purpose).unwrap();
        let one = value(b"correct horse", "seal");
        assert_eq!(one.0.len(), 32);
        assert!(one.0.iter().all(u8::is_ascii_hexdigit));
        assert_eq!(*one.0, *value(b"correct horse", "seal").0);
        assert_ne!(*one.0, *value(b"correct horse", "anchor").0);
        assert_ne!(*one.0, *value(b"correct horsf", "seal").0);
        assert_eq!(format!("{one:?}"), "AuthValue");
    }
}
