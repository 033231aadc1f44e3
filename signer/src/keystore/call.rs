//! The PKCS#11 calls that are worth making by hand: signing in one call into a fixed buffer, decrypting straight into
//! locked memory, and generating a wrapping key with an unwrap template. Everything else goes through `cryptoki`.

#![allow(unsafe_code)] // Calls C. Every pointer passed lives on this page, for the length of the call.

use std::{path::Path, ptr};

use cryptoki::{object::ObjectHandle, session::Session};
use cryptoki_sys as sys;

use super::fault::Fault;
use crate::secret::LockedBytes;

/// Length of a secp256k1 signature from a token: r and s.
pub(super) const SIGNATURE_LEN: usize = 64;
/// Length of an AES-GCM nonce (SP 800-38D §8.2).
pub(super) const GCM_NONCE_LEN: usize = 12;
/// Length of an AES-GCM tag.
pub(super) const GCM_TAG_LEN: usize = 16;

type SignInit = unsafe extern "C" fn(sys::CK_SESSION_HANDLE, *mut sys::CK_MECHANISM, sys::CK_OBJECT_HANDLE) -> sys::CK_RV;
type Sign = unsafe extern "C" fn(sys::CK_SESSION_HANDLE, *mut u8, sys::CK_ULONG, *mut u8, *mut sys::CK_ULONG) -> sys::CK_RV;
type GenerateKey = unsafe extern "C" fn(
    sys::CK_SESSION_HANDLE,
    *mut sys::CK_MECHANISM,
    *mut sys::CK_ATTRIBUTE,
    sys::CK_ULONG,
    *mut sys::CK_OBJECT_HANDLE,
) -> sys::CK_RV;

/// The functions that are called by hand. Valid as long as the process: the library is never unloaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls {
    sign_init: SignInit,
    sign: Sign,
    decrypt_init: SignInit,
    decrypt: Sign,
    generate_key: GenerateKey,
}

impl Calls {
    /// Looks the functions up in a module. The same file is loaded once a process, whoever asks, so these are the functions of
    /// the `cryptoki` context of the same path.
    pub(super) fn load(module: &Path) -> Result<Self, String> {
        // SAFETY: loading a library runs its initialisers; that is what naming it in the configuration asks for.
        let library = unsafe { sys::Pkcs11::new(module) }.map_err(|error| error.to_string())?;
        let get_list = *library.C_GetFunctionList.as_ref().map_err(ToString::to_string)?;
        let mut list: *mut sys::CK_FUNCTION_LIST = ptr::null_mut();
        // SAFETY: the function's only argument is where to put the pointer (PKCS#11 v2.40 §5.4).
        let rv = unsafe { get_list(&mut list) };
        // The functions must outlive this call: keep the library loaded for ever.
        std::mem::forget(library);
        if rv != sys::CKR_OK || list.is_null() {
            return Err(format!("C_GetFunctionList returned {rv:#x}"));
        }
        // SAFETY: not null, and the module promises a function list that lives as long as it is loaded.
        let list = unsafe { &*list };
        let lacks = |name: &str| format!("the module has no {name}");
        Ok(Self {
            sign_init: list.C_SignInit.ok_or_else(|| lacks("C_SignInit"))?,
            sign: list.C_Sign.ok_or_else(|| lacks("C_Sign"))?,
            decrypt_init: list.C_DecryptInit.ok_or_else(|| lacks("C_DecryptInit"))?,
            decrypt: list.C_Decrypt.ok_or_else(|| lacks("C_Decrypt"))?,
            generate_key: list.C_GenerateKey.ok_or_else(|| lacks("C_GenerateKey"))?,
        })
    }

    /// `C_SignInit` and one `C_Sign` with CKM_ECDSA over exactly 32 bytes: r and s, as the token made them.
    pub(super) fn ecdsa(&self, session: &Session, key: ObjectHandle, digest: &[u8; 32]) -> Result<[u8; SIGNATURE_LEN], Fault> {
        let mut signature = [0; SIGNATURE_LEN];
        self.sign_with(session, sys::CKM_ECDSA, key, digest, &mut signature)?;
        Ok(signature)
    }

    /// HMAC-SHA256 (CKM_SHA256_HMAC) of a message under a token key.
    pub(super) fn hmac_sha256(&self, session: &Session, key: ObjectHandle, message: &[u8]) -> Result<[u8; 32], Fault> {
        let mut mac = [0; 32];
        self.sign_with(session, sys::CKM_SHA256_HMAC, key, message, &mut mac)?;
        Ok(mac)
    }

    fn sign_with(
        &self,
        session: &Session,
        mechanism: sys::CK_MECHANISM_TYPE,
        key: ObjectHandle,
        message: &[u8],
        out: &mut [u8],
    ) -> Result<(), Fault> {
        let mut mechanism = sys::CK_MECHANISM { mechanism, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        // SAFETY: a live session of this process, a mechanism on this stack frame, and a handle that the token checks.
        let rv = unsafe { (self.sign_init)(session.handle(), &mut mechanism, key.handle()) };
        Fault::check("C_SignInit", rv)?;
        let (message_len, out_len) = (ulong(message.len())?, ulong(out.len())?);
        let mut written = out_len;
        // SAFETY: both buffers are valid for the lengths given; the module only reads the first (PKCS#11 v2.40 §5.11).
        let rv = unsafe { (self.sign)(session.handle(), message.as_ptr().cast_mut(), message_len, out.as_mut_ptr(), &mut written) };
        Fault::check("C_Sign", rv)?;
        if written != out_len {
            return Err(Fault::call("C_Sign", format!("{written} bytes where {out_len} were wanted")));
        }
        Ok(())
    }

    /// AES-256-GCM decryption of `sealed` (ciphertext, then the 16-byte tag) into locked memory. The output is `sealed.len() - 16`
    /// bytes, in a buffer as long as `sealed`, since some modules want room for the tag.
    pub(super) fn open_gcm(
        &self,
        session: &Session,
        key: ObjectHandle,
        nonce: &[u8; GCM_NONCE_LEN],
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<LockedBytes, Fault> {
        let plain_len = sealed.len().checked_sub(GCM_TAG_LEN).ok_or_else(|| Fault::call("C_Decrypt", "no room for the tag"))?;
        let mut plain = LockedBytes::zeroed(sealed.len()).map_err(Fault::memory)?;
        let mut nonce = *nonce;
        let mut parameters = sys::CK_GCM_PARAMS {
            pIv: nonce.as_mut_ptr(),
            ulIvLen: ulong(nonce.len())?,
            ulIvBits: ulong(nonce.len().saturating_mul(8))?,
            pAAD: associated.as_ptr().cast_mut(),
            ulAADLen: ulong(associated.len())?,
            ulTagBits: ulong(GCM_TAG_LEN.saturating_mul(8))?,
        };
        let mut mechanism = sys::CK_MECHANISM {
            mechanism: sys::CKM_AES_GCM,
            pParameter: ptr::from_mut(&mut parameters).cast(),
            ulParameterLen: ulong(size_of::<sys::CK_GCM_PARAMS>())?,
        };
        // SAFETY: mechanism, parameters, nonce and associated data live on this frame until both calls are over.
        let rv = unsafe { (self.decrypt_init)(session.handle(), &mut mechanism, key.handle()) };
        Fault::check("C_DecryptInit", rv)?;
        let mut written = ulong(plain.len())?;
        // SAFETY: `sealed` is read only and `plain` is valid for `written` bytes.
        let rv =
            unsafe { (self.decrypt)(session.handle(), sealed.as_ptr().cast_mut(), ulong(sealed.len())?, plain.as_mut_ptr(), &mut written) };
        Fault::check("C_Decrypt", rv)?;
        if written != ulong(plain_len)? {
            return Err(Fault::call("C_Decrypt", format!("{written} bytes where {plain_len} were wanted")));
        }
        Ok(plain)
    }

    /// Makes the AES-256 key under which pool keys are wrapped. It can wrap and unwrap, nothing else, and whatever it unwraps is a
    /// sensitive, non-extractable EC key for signing: its unwrap template says so, and the token refuses any other wish.
    ///
    /// Without that template a thief with the PIN unwraps the same blob as a readable key.
    pub(super) fn generate_wrapping_key(&self, session: &Session, label: &str, id: &[u8]) -> Result<ObjectHandle, Fault> {
        let (yes, no) = (sys::CK_TRUE, sys::CK_FALSE);
        let (class, aes, bytes) = (sys::CKO_SECRET_KEY, sys::CKK_AES, ulong(32)?);
        let (private_key, ec) = (sys::CKO_PRIVATE_KEY, sys::CKK_EC);
        let mut unwrapped = [
            attribute(sys::CKA_CLASS, &private_key)?,
            attribute(sys::CKA_KEY_TYPE, &ec)?,
            attribute(sys::CKA_SENSITIVE, &yes)?,
            attribute(sys::CKA_EXTRACTABLE, &no)?,
            attribute(sys::CKA_PRIVATE, &yes)?,
            attribute(sys::CKA_TOKEN, &no)?,
            attribute(sys::CKA_DERIVE, &no)?,
        ];
        let mut key = [
            attribute(sys::CKA_CLASS, &class)?,
            attribute(sys::CKA_KEY_TYPE, &aes)?,
            attribute(sys::CKA_VALUE_LEN, &bytes)?,
            bytes_attribute(sys::CKA_LABEL, label.as_bytes())?,
            bytes_attribute(sys::CKA_ID, id)?,
            attribute(sys::CKA_TOKEN, &yes)?,
            attribute(sys::CKA_PRIVATE, &yes)?,
            attribute(sys::CKA_SENSITIVE, &yes)?,
            attribute(sys::CKA_EXTRACTABLE, &no)?,
            attribute(sys::CKA_MODIFIABLE, &no)?,
            attribute(sys::CKA_COPYABLE, &no)?,
            attribute(sys::CKA_WRAP, &yes)?,
            attribute(sys::CKA_UNWRAP, &yes)?,
            attribute(sys::CKA_ENCRYPT, &no)?,
            attribute(sys::CKA_DECRYPT, &no)?,
            attribute(sys::CKA_SIGN, &no)?,
            attribute(sys::CKA_VERIFY, &no)?,
            attribute(sys::CKA_DERIVE, &no)?,
            sys::CK_ATTRIBUTE {
                type_: sys::CKA_UNWRAP_TEMPLATE,
                pValue: unwrapped.as_mut_ptr().cast(),
                ulValueLen: ulong(size_of_val(&unwrapped))?,
            },
        ];
        let mut mechanism = sys::CK_MECHANISM { mechanism: sys::CKM_AES_KEY_GEN, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        let mut handle: sys::CK_OBJECT_HANDLE = 0;
        // SAFETY: both templates and every value they point to live on this frame; the count is the array's own.
        let rv = unsafe { (self.generate_key)(session.handle(), &mut mechanism, key.as_mut_ptr(), ulong(key.len())?, &mut handle) };
        Fault::check("C_GenerateKey", rv)?;
        // SAFETY: the token has just given this handle.
        Ok(unsafe { ObjectHandle::new_from_raw(handle) })
    }
}

/// An attribute of a template that the module only reads.
fn attribute<T>(type_: sys::CK_ATTRIBUTE_TYPE, value: &T) -> Result<sys::CK_ATTRIBUTE, Fault> {
    Ok(sys::CK_ATTRIBUTE { type_, pValue: ptr::from_ref(value).cast_mut().cast(), ulValueLen: ulong(size_of::<T>())? })
}

fn bytes_attribute(type_: sys::CK_ATTRIBUTE_TYPE, value: &[u8]) -> Result<sys::CK_ATTRIBUTE, Fault> {
    Ok(sys::CK_ATTRIBUTE { type_, pValue: value.as_ptr().cast_mut().cast(), ulValueLen: ulong(value.len())? })
}

fn ulong(number: usize) -> Result<sys::CK_ULONG, Fault> {
    sys::CK_ULONG::try_from(number).map_err(|_| Fault::call("CK_ULONG", "a length does not fit"))
}
