//! The JSON bodies of requests, and whether they make sense by themselves: without the configuration, the database or the chain. It
//! stands on libraries alone, so that it can be fuzzed alone.

use bitcoin::{Address, Network, ScriptBuf, address::NetworkUnchecked};
use postern_protocol::units::MAX_MONEY_SAT;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest external id and reference, in characters.
pub const ID_MAX: usize = 128;
/// Longest note, in characters.
pub const NOTE_MAX: usize = 500;

/// An order to pay.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOrder {
    /// Your own id of this payment, 1 to 128 characters. One external id is paid once, for ever.
    pub external_id: String,
    /// Pay from this wallet.
    pub wallet: String,
    /// Pay to this address, of the coordinator's network.
    pub address: String,
    /// So many satoshi arrive; the fee comes on top.
    pub amount_sat: u64,
    /// For people, at most 500 characters.
    #[serde(default)]
    pub note: Option<String>,
}

/// An approval.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveOrder {
    /// The order's `approval_hash`, as it was shown to who approves.
    pub approval_hash: String,
}

/// A wish for a deposit address.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAddress {
    /// Of this wallet.
    pub wallet: String,
    /// What it is for, 1 to 128 characters. The same reference always gets the same address, another one never does.
    pub reference: String,
}

/// Why a request makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Senseless {
    /// A field is not of the form that it has.
    Field(String),
    /// This is paid to by nobody: what is wrong, and what to do.
    Address(String, &'static str),
    /// No such amount can be paid.
    Amount(String),
}

impl CreateOrder {
    /// The script to pay, of a kind that signers sign for, if everything makes sense.
    ///
    /// # Errors
    /// [`Senseless`], with the field's name.
    pub fn script(&self, network: Network) -> Result<ScriptBuf, Senseless> {
        check_id("external_id", &self.external_id)?;
        if self.note.as_ref().is_some_and(|note| note.chars().count() > NOTE_MAX) {
            return Err(Senseless::Field(format!("note has at most {NOTE_MAX} characters")));
        }
        let script = destination(&self.address, network)?;
        check_amount(&script, self.amount_sat)?;
        Ok(script)
    }
}

impl CreateAddress {
    /// Whether everything makes sense.
    ///
    /// # Errors
    /// [`Senseless::Field`].
    pub fn check(&self) -> Result<(), Senseless> {
        check_id("reference", &self.reference)
    }
}

fn check_id(field: &str, text: &str) -> Result<(), Senseless> {
    let good = !text.is_empty() && text.chars().count() <= ID_MAX && !text.chars().any(char::is_control);
    if good { Ok(()) } else { Err(Senseless::Field(format!("{field} has 1 to {ID_MAX} characters, none of them control characters"))) }
}

fn destination(text: &str, network: Network) -> Result<ScriptBuf, Senseless> {
    let wrong = |message: String, hint| Senseless::Address(message, hint);
    let address: Address<NetworkUnchecked> = text.parse().map_err(|e| wrong(format!("`{text}` is not an address: {e}"), ""))?;
    let address = address.require_network(network).map_err(|_| {
        wrong(format!("`{text}` is not an address of {network}"), "check that you call the coordinator of the right network")
    })?;
    let script = address.script_pubkey();
    let signed = script.is_p2pkh() || script.is_p2sh() || script.is_p2wpkh() || script.is_p2wsh() || script.is_p2tr();
    if signed { Ok(script) } else { Err(wrong(format!("`{text}`: signers do not pay to this kind of address"), "")) }
}

fn check_amount(script: &ScriptBuf, amount_sat: u64) -> Result<(), Senseless> {
    let least = script.minimal_non_dust().to_sat();
    if (least..=MAX_MONEY_SAT).contains(&amount_sat) {
        return Ok(());
    }
    Err(Senseless::Amount(format!(
        "amount_sat: {amount_sat} is not between {least}, below which nothing is relayed to this address, and 21,000,000 BTC"
    )))
}
