//! What the configuration and the managers allow, as values.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::ScriptBuf;
pub use postern_protocol::command::Rate;

/// Levels 2 and 3 of one scope (the signer, or a wallet). Amounts in satoshi.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Limits {
    /// Token buckets; all hold. None: no rate limit.
    pub rates: Vec<Rate>,
    /// Lifetime sum. None: no total.
    pub total_sat: Option<u64>,
}

/// Who may raise a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Raise {
    /// Only a command signed by the managers' quorum (`limits.raise = "command"`, the default).
    #[default]
    Command,
    /// Whoever can edit the configuration file.
    Config,
}

/// A wallet's fee caps; all that are given hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeeCaps {
    /// Satoshi for a transaction.
    pub max_sat: Option<u64>,
    /// Satoshi per 1,000 virtual bytes.
    pub max_rate_sat_per_kvb: Option<u64>,
    /// Parts per million of what is paid to others.
    pub max_share_ppm: Option<u32>,
}

/// Where a wallet's money may go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Destinations {
    /// Anywhere that the limits allow.
    #[default]
    Any,
    /// Only to these output scripts.
    Scripts(BTreeSet<ScriptBuf>),
}

/// What a wallet's analysis accepts beyond the strict default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpendRules {
    /// Fee caps.
    pub fee: FeeCaps,
    /// OP_RETURN outputs of value zero and at most 80 bytes of data pass.
    pub allow_op_return: bool,
    /// Inputs of others pass, when proven like own ones.
    pub allow_foreign_inputs: bool,
    /// Latest absolute lock time by height that is signed; a `nLockTime` by time stamp is refused. None: any height.
    pub max_locktime_height: Option<u32>,
}

/// One wallet's part of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WalletPolicy {
    /// The wallet's own limits; the signer's hold as well.
    pub limits: Limits,
    /// Where its money may go.
    pub destinations: Destinations,
}

/// The limits as the configuration states them. What is in force may differ: managers' commands change it, and under
/// [`Raise::Command`] a looser configuration is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyRules {
    /// Who may raise a limit.
    pub raise: Raise,
    /// The signer's own limits.
    pub signer: Limits,
    /// Each wallet's, by name.
    pub wallets: BTreeMap<String, WalletPolicy>,
}
