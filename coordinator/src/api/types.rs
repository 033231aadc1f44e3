//! The JSON bodies of answers, and the queries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::store::{Balance, Blocked, OrderState, WalletStop};

/// An order.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OrderBody {
    /// Its id.
    pub id: String,
    /// Your own.
    pub external_id: String,
    /// Pays from.
    pub wallet: String,
    /// Pays to.
    pub address: String,
    /// How much arrives.
    pub amount_sat: u64,
    /// For people.
    pub note: Option<String>,
    /// Where it is on its way.
    pub state: OrderState,
    /// Why it waits or ended; none while nothing is in its way.
    pub blocked: Option<Blocked>,
    /// SHA-256 over what an approval approves.
    pub approval_hash: String,
    /// When it was made.
    pub created_at: i64,
    /// By whom.
    pub created_by: String,
    /// When it was approved.
    pub approved_at: Option<i64>,
    /// By which key's id, or `rule`.
    pub approved_by: Option<String>,
    /// Last change.
    pub changed_at: i64,
    /// Its transaction, once there is one.
    pub payment: Option<PaymentBody>,
}

/// An order's transaction.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PaymentBody {
    /// Once it is complete. A fee bump changes it.
    pub txid: Option<String>,
    /// The output that pays.
    pub vout: u32,
    /// Fee of the whole transaction, which may pay other orders too.
    pub fee_sat: u64,
    /// The block's height.
    pub height: Option<u32>,
    /// Confirmations, 0 while it is in no block.
    pub confirmations: u32,
}

/// Which orders to list.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListOrders {
    /// Of this wallet.
    pub wallet: Option<String>,
    /// In this state.
    pub state: Option<OrderState>,
    /// With this external id.
    pub external_id: Option<String>,
    /// After the order of this id.
    pub after: Option<String>,
    /// At most so many, 1 to 1000; 100 without it.
    pub limit: Option<u32>,
}

/// Orders, oldest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OrderList {
    /// The orders; `payment` is left out, ask for each one.
    pub orders: Vec<OrderBody>,
}

/// A deposit address.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AddressBody {
    /// Of this wallet.
    pub wallet: String,
    /// What it is for.
    pub reference: String,
    /// The address.
    pub address: String,
    /// Its index on the deposit branch.
    pub index: u32,
}

/// Which deposits to list.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListDeposits {
    /// To this wallet.
    pub wallet: Option<String>,
    /// At most so many, 1 to 1000; 100 without it.
    pub limit: Option<u32>,
}

/// Where a deposit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DepositState {
    /// In the mempool, or in a block that is not deep enough.
    Pending,
    /// Deep enough to be spent.
    Confirmed,
    /// It was seen, and is neither in the chain nor in the mempool any more.
    Vanished,
}

/// A deposit.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DepositBody {
    /// Transaction.
    pub txid: String,
    /// Output.
    pub vout: u32,
    /// To this wallet.
    pub wallet: String,
    /// To this address.
    pub address: String,
    /// What the address was handed out for.
    pub reference: Option<String>,
    /// How much.
    pub amount_sat: u64,
    /// Where it stands.
    pub state: DepositState,
    /// Confirmations.
    pub confirmations: u32,
    /// When it was first seen.
    pub first_seen: i64,
}

/// Deposits, newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DepositList {
    /// The deposits.
    pub deposits: Vec<DepositBody>,
}

/// A wallet.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WalletBody {
    /// Its name.
    pub name: String,
    /// Its money.
    pub balance: Balance,
    /// Its address, where it has only one.
    pub address: Option<String>,
    /// Its signers.
    pub signers: Vec<String>,
    /// Why it stands still, if it does.
    pub stopped: Option<WalletStop>,
}

/// All wallets.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WalletList {
    /// Height of the newest block that was followed.
    pub height: Option<u32>,
    /// The wallets.
    pub wallets: Vec<WalletBody>,
}

/// A paired signer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SignerBody {
    /// Its name.
    pub name: String,
    /// Its identity key.
    pub signer_key: String,
    /// When its link last asked for work.
    pub last_pull_at: Option<i64>,
    /// When its last signed report came.
    pub heartbeat_at: Option<i64>,
    /// The report: limits, totals, policy hash, ledger head, frozen scopes.
    #[schema(value_type = Option<Object>)]
    pub heartbeat: Option<serde_json::Value>,
    /// What it booted.
    pub attestation: AttestationBody,
}

/// Whether a signer is believed to have booted what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttestationState {
    /// It is configured to have no TPM and is not asked.
    None,
    /// It booted what is pinned, and gets orders.
    Good,
    /// It gets no orders; `problem` says why.
    Held,
}

/// What a signer booted.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AttestationBody {
    /// Whether it gets orders.
    pub state: AttestationState,
    /// The pinned attestation key.
    pub key: Option<String>,
    /// The pinned PCRs (SHA-256) and their values in hex.
    pub pcrs: BTreeMap<String, String>,
    /// When they were pinned.
    pub pinned_at: Option<i64>,
    /// When it was asked last.
    pub asked_at: Option<i64>,
    /// When a statement was last as pinned.
    pub verified_at: Option<i64>,
    /// Orders are handed out until then.
    pub trusted_until: Option<i64>,
    /// What is wrong, and the command that mends it.
    pub problem: Option<Blocked>,
}

/// All paired signers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SignerList {
    /// The signers.
    pub signers: Vec<SignerBody>,
}
