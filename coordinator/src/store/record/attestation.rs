//! What signers booted, as it is remembered.

/// Where a signer stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttestationRow {
    /// The signer.
    pub signer: String,
    /// When it was asked last; None: it is to be asked now.
    pub asked_at: Option<i64>,
    /// The request that is not answered yet.
    pub request: Option<String>,
    /// When what it booted was pinned.
    pub pinned_at: Option<i64>,
    /// When a statement was last as pinned.
    pub verified_at: Option<i64>,
    /// Orders are handed out until then.
    pub trusted_until: i64,
    /// What is wrong.
    pub problem: Option<AttestationProblem>,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationProblem {
    /// Stable code, `attestation.…`.
    pub code: String,
    /// In words, with what mends it.
    pub message: String,
    /// Since when.
    pub at: i64,
}

/// The statements (JSON) that are kept of a signer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttestationStatements {
    /// What later ones are held against.
    pub pinned: Option<String>,
    /// The newest that is the signer's own and not what is pinned.
    pub offered: Option<String>,
}

/// What an answer changes. Each answers the open request; there is none afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttestationChange {
    /// The first statement: pinned.
    Pinned {
        /// JSON.
        statement: String,
        /// Orders are handed out until then.
        trusted_until: i64,
    },
    /// As pinned.
    Verified {
        /// Orders are handed out until then.
        trusted_until: i64,
    },
    /// The signer's own, and not as pinned: no orders until somebody accepts it.
    Changed {
        /// JSON.
        offered: String,
        /// What to show.
        problem: AttestationProblem,
    },
    /// No statement of the signer's: no orders until there is one.
    Bad(AttestationProblem),
    /// No answer this time; what was known before holds as long as it did.
    Later(AttestationProblem),
}
