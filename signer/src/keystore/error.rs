//! Why a keystore says no.

use std::path::PathBuf;

use postern_protocol::refusal::{Refusal, RefusalCode};

/// Why a keystore cannot do what was asked. Holds no secret, whatever went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeystoreError {
    /// The token does not answer or is missing. It is opened again with back-off; ask again.
    #[error("keystore `{keystore}` is not available: {reason}")]
    Unavailable {
        /// Its name in the configuration.
        keystore: String,
        /// What was seen.
        reason: String,
    },
    /// The token refused the PIN, or would lock at the next wrong one. Nothing more is tried by this process.
    #[error("keystore `{keystore}`: {reason}; nothing more is tried until the signer restarts with the right PIN")]
    Pin {
        /// Its name in the configuration.
        keystore: String,
        /// What the token said.
        reason: String,
    },
    /// The token's key is not the pinned one, its signature does not verify, or what is stored beside it was changed.
    #[error("wallet `{wallet}`: {reason}")]
    KeyMismatch {
        /// The wallet.
        wallet: String,
        /// What differs.
        reason: String,
    },
    /// The token answers and the key is not on it, or its file is gone. Restore them; nothing is created in their place.
    #[error("wallet `{wallet}`: {reason}; restore it from the backup")]
    KeyMissing {
        /// The wallet.
        wallet: String,
        /// What is missing.
        reason: String,
    },
    /// No wallet of that name is bound to this keystore, or it is of another kind.
    #[error("wallet `{wallet}` {reason}")]
    WalletUnknown {
        /// The wallet.
        wallet: String,
        /// What it is not.
        reason: String,
    },
    /// The kind of wallet cannot make this kind of signature.
    #[error("wallet `{wallet}` cannot sign this: {reason}")]
    Unsupported {
        /// The wallet.
        wallet: String,
        /// Why.
        reason: String,
    },
    /// Keys of that name exist already; they are never overwritten. Choose another wallet name.
    #[error("{what} exists already and is never overwritten; choose another wallet name")]
    Exists {
        /// The object or file.
        what: String,
    },
    /// The library of token or TPM cannot be loaded. Mend `module` in the configuration, or install it.
    #[error("library {path}: {reason}", path = path.display())]
    Module {
        /// The module.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// The PIN cannot be read. Mend `pin` in the configuration or the file behind it.
    #[error("PIN for keystore `{keystore}`: {reason}")]
    PinSource {
        /// The keystore.
        keystore: String,
        /// What went wrong, without the PIN.
        reason: String,
    },
    /// A file in the state folder cannot be read or written.
    #[error("{path}: {reason}", path = path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The token does not do what was asked: a mechanism or a template that it lacks.
    #[error("the token refused {function}: {reason}")]
    Token {
        /// The PKCS#11 function.
        function: String,
        /// Its return value.
        reason: String,
    },
    /// A source of randomness is visibly none. The daemon does not start, and no key is made.
    #[error("keystore `{keystore}`: {reason}; no key can be made with that, and nothing that was can be trusted")]
    Random {
        /// Its name in the configuration.
        keystore: String,
        /// What was seen.
        reason: String,
    },
    /// No memory that is kept off the swap and out of core dumps. Raise the limit (`LimitMEMLOCK=`, `ulimit -l`).
    #[error("no locked memory for secrets: {reason}; raise LimitMEMLOCK (ulimit -l)")]
    Memory {
        /// What the system said.
        reason: String,
    },
}

impl KeystoreError {
    /// The code that the asker is told.
    #[must_use]
    pub const fn code(&self) -> RefusalCode {
        match self {
            Self::Unavailable { .. }
            | Self::Module { .. }
            | Self::Storage { .. }
            | Self::Token { .. }
            | Self::Random { .. }
            | Self::Memory { .. } => RefusalCode::KeystoreUnavailable,
            Self::Pin { .. } | Self::PinSource { .. } => RefusalCode::KeystorePin,
            Self::KeyMismatch { .. } => RefusalCode::KeyMismatch,
            Self::KeyMissing { .. } | Self::Unsupported { .. } | Self::Exists { .. } => RefusalCode::KeyMissing,
            Self::WalletUnknown { .. } => RefusalCode::WalletUnknown,
        }
    }

    /// The refusal that the asker is told, with the reason in words for the local log.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.code(), self.to_string())
    }
}

impl From<KeystoreError> for Refusal {
    fn from(error: KeystoreError) -> Self {
        error.refusal()
    }
}
