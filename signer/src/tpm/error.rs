//! What a TPM's return codes mean for who asks.

use tss_esapi::{
    Error, WrapperErrorKind,
    constants::response_code::{Tss2ResponseCode, Tss2ResponseCodeKind as Kind},
};

use super::Lockout;
use crate::secret::LockedMemoryError;

/// Why a TPM did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// It does not answer, or is not started up. Ask again on a new connection.
    #[error("the TPM does not answer: {0}")]
    Unavailable(String),
    /// It refused the auth value. Each such try counts towards its lockout: never repeat it by yourself.
    #[error("the TPM refused the auth value; mend `auth` in the configuration, and mind that wrong tries lock it")]
    Auth,
    /// Too many auth values were wrong: it takes none for a while, not even the right one.
    #[error("{0}")]
    Lockout(Lockout),
    /// The same, before anybody asked when it ends.
    #[error("the TPM is locked out after wrong auth values")]
    LockedOut,
    /// The PCRs are not the ones of the policy.
    #[error("the TPM's PCRs are not those that the secret is sealed to: something else was booted")]
    Policy,
    /// What it was given was made by another TPM, or by this one before it was cleared.
    #[error("this was sealed by another TPM, or by this one before it was cleared")]
    Foreign,
    /// There is no NV index of this number.
    #[error("there is nothing at this NV index")]
    Absent,
    /// It answers, and does not do this.
    #[error("the TPM refused {command}: {reason}")]
    Refused {
        /// The TPM 2.0 command.
        command: &'static str,
        /// Its return code.
        reason: String,
    },
    /// No memory for a secret.
    #[error("no locked memory for secrets: {0}; raise LimitMEMLOCK (ulimit -l)")]
    Memory(String),
}

/// TSS 2.0 Overview §3.2.1.2: which part of the software says it; the TPM itself is 0.
const LAYER_TPM: u32 = 0;
/// The kernel's resource manager, in the TPM's words.
const LAYER_RESOURCE_TPM: u32 = 12;
const LAYER_TCTI: u32 = 10;
const LAYER_RESOURCE: u32 = 11;

impl TpmError {
    /// Turns the library's error into ours, for `map_err`.
    pub(super) fn of(command: &'static str) -> impl Fn(Error) -> Self {
        move |error| Self::new(command, error)
    }

    /// The TPM kept its return code and not its promise.
    pub(super) fn broken(command: &'static str, reason: impl Into<String>) -> Self {
        Self::Refused { command, reason: reason.into() }
    }

    fn new(command: &'static str, error: Error) -> Self {
        let code = match error {
            Error::WrapperError(WrapperErrorKind::WrongValueFromTpm) => return Self::broken(command, "it answered nonsense"),
            Error::WrapperError(kind) => return Self::broken(command, kind.to_string()),
            Error::Tss2Error(code) => code,
        };
        let raw = raw(code);
        let words = || format!("{code} ({raw:#x})");
        let layer = raw >> 16 & 0xff;
        if layer == LAYER_TCTI || layer == LAYER_RESOURCE {
            return Self::Unavailable(format!("{command}: {}", transport(raw)));
        }
        if layer != LAYER_TPM && layer != LAYER_RESOURCE_TPM {
            return Self::broken(command, words());
        }
        match code.kind() {
            Some(Kind::AuthFail | Kind::BadAuth) => Self::Auth,
            Some(Kind::Lockout) => Self::LockedOut,
            Some(Kind::PolicyFail | Kind::PcrChanged) => Self::Policy,
            Some(Kind::Integrity) => Self::Foreign,
            Some(Kind::Initialize | Kind::Failure | Kind::Retry | Kind::Yielded | Kind::Testing | Kind::NvRate | Kind::NvUnavailable) => {
                Self::Unavailable(format!("{command}: {}", words()))
            }
            _ => Self::broken(command, words()),
        }
    }
}

/// The number behind a code: the library keeps it to itself, and prints it.
fn raw(code: Tss2ResponseCode) -> u32 {
    let text = match code {
        Tss2ResponseCode::Success => return 0,
        Tss2ResponseCode::FormatZero(code) => code.to_string(),
        Tss2ResponseCode::FormatOne(code) => code.to_string(),
    };
    let digits = text.rsplit("0x").next().unwrap_or_default();
    // A number that cannot be read is no layer's: a refusal, and nothing is tried again for it.
    u32::from_str_radix(digits, 16).unwrap_or(u32::MAX)
}

/// What transports say (TSS 2.0 Overview §3.2.1.3).
fn transport(raw: u32) -> String {
    let words = match raw & 0xffff {
        3 => "it cannot be called",
        8 => "it has no such place",
        9 => "it timed out",
        10 => "input/output error",
        11 => "it answered too little",
        23 => "permission denied; is the signer's user in the group `tss`?",
        _ => return format!("transport error {raw:#x}"),
    };
    words.into()
}

impl From<LockedMemoryError> for TpmError {
    fn from(error: LockedMemoryError) -> Self {
        Self::Memory(error.to_string())
    }
}
