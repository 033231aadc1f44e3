//! What can go wrong while a worker talks to the token, before it is known what that means for the asker.

use cryptoki::error::{Error, Rv, RvError};
use cryptoki_sys::{CK_RV, CKR_OK};

use super::KeystoreError;
use crate::secret::LockedMemoryError;

/// Why a piece of work on a session did not finish.
#[derive(Debug)]
pub(super) enum Fault {
    /// The module was initialised anew since the connection was made; nothing was called.
    Stale,
    /// A PKCS#11 call failed. The session is closed after it, since the next operation on it may fail for ever.
    Call {
        /// The function.
        function: String,
        /// Its return value in words.
        reason: String,
        /// What kind of failure it is.
        kind: Failure,
    },
    /// The outcome is known.
    Decided(KeystoreError),
}

/// What a return value says about the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may be gone, reset or logged out: connect again.
    Lost,
    /// It took offence at the PIN.
    Pin,
    /// Another process or thread is in the way: try again.
    Contended,
    /// It is there and does not do this.
    Refused,
}

impl Fault {
    /// Turns a raw return value into a result.
    pub(super) fn check(function: &str, rv: CK_RV) -> Result<(), Self> {
        if rv == CKR_OK {
            return Ok(());
        }
        let (reason, kind) = match Rv::from(rv) {
            Rv::Ok => return Ok(()),
            Rv::Error(error) => (format!("{error:?} ({rv:#x})"), classify(error)),
        };
        Err(Self::Call { function: function.into(), reason, kind })
    }

    /// A call that kept its return value but not its promise.
    pub(super) fn call(function: &str, reason: impl Into<String>) -> Self {
        Self::Call { function: function.into(), reason: reason.into(), kind: Failure::Refused }
    }

    /// No memory for a secret.
    pub(super) fn memory(error: LockedMemoryError) -> Self {
        Self::Decided(KeystoreError::Memory { reason: error.to_string() })
    }
}

impl From<KeystoreError> for Fault {
    fn from(error: KeystoreError) -> Self {
        Self::Decided(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Pkcs11(rv, function) => {
                Self::Call { function: format!("C_{function:?}"), reason: format!("{rv:?}"), kind: classify(rv) }
            }
            other => Self::Call { function: "cryptoki".into(), reason: other.to_string(), kind: Failure::Refused },
        }
    }
}

fn classify(error: RvError) -> Failure {
    match error {
        RvError::PinIncorrect
        | RvError::PinInvalid
        | RvError::PinLenRange
        | RvError::PinExpired
        | RvError::PinLocked
        | RvError::PinTooWeak
        | RvError::UserPinNotInitialized
        | RvError::UserTypeInvalid => Failure::Pin,
        RvError::OperationActive | RvError::SessionCount | RvError::SessionExists | RvError::CantLock | RvError::MutexBad => {
            Failure::Contended
        }
        RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::TemplateIncomplete
        | RvError::TemplateInconsistent
        | RvError::AttributeReadOnly
        | RvError::AttributeTypeInvalid
        | RvError::AttributeValueInvalid
        | RvError::AttributeSensitive
        | RvError::ActionProhibited
        | RvError::FunctionNotSupported
        | RvError::ArgumentsBad
        | RvError::KeyUnextractable
        | RvError::KeyFunctionNotPermitted
        | RvError::KeyTypeInconsistent
        | RvError::KeySizeRange
        | RvError::KeyNotWrappable
        | RvError::EncryptedDataInvalid
        | RvError::EncryptedDataLenRange
        | RvError::WrappedKeyInvalid
        | RvError::WrappedKeyLenRange
        | RvError::DataInvalid
        | RvError::DataLenRange
        | RvError::CurveNotSupported
        | RvError::TokenWriteProtected
        | RvError::DeviceMemory => Failure::Refused,
        _ => Failure::Lost,
    }
}

impl Fault {
    /// The token is gone, or as good as.
    pub(super) fn lost(reason: impl Into<String>) -> Self {
        Self::Call { function: "token".into(), reason: reason.into(), kind: Failure::Lost }
    }

    /// In words, for a status line.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Stale => "the module is being initialised".into(),
            Self::Call { function, reason, .. } => format!("{function}: {reason}"),
            Self::Decided(error) => error.to_string(),
        }
    }
}
