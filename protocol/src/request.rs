//! What is asked of the signer.

use minicbor::{Decode, Encode};

/// One request, one frame.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Request {
    /// [`crate::PROTOCOL_VERSION`].
    #[n(0)]
    pub version: u16,
    /// Chosen by the asker; the reply carries it. Says nothing to the signer.
    #[n(1)]
    pub id: u64,
    /// What is asked.
    #[n(2)]
    pub body: RequestBody,
}

/// The kinds of request. New kinds are new variants.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RequestBody {
    /// Sign a transaction within the limits. Repeating it is free and gives the same signatures.
    #[n(0)]
    Sign(#[n(0)] SignRequest),
    /// Scripts and public keys to receive at.
    #[n(1)]
    Addresses(#[n(0)] AddressRequest),
    /// The wallets' public halves.
    #[n(2)]
    Wallets,
    /// Everything an operator wants to see. For operators only: it holds numbers.
    #[n(3)]
    Status,
    /// A signed report for the coordinator.
    #[n(4)]
    Heartbeat(#[n(0)] HeartbeatRequest),
    /// A manager's command, as in [`crate::command`].
    #[n(5)]
    Command(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// What was booted, as the TPM says it: a [`crate::attest::Statement`].
    #[n(6)]
    Attest(#[n(0)] AttestRequest),
}

/// Asks for the signatures of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignRequest {
    /// The wallet's name in the signer's configuration.
    #[n(0)]
    pub wallet: String,
    /// A PSBT, version 0 (BIP 174), raw bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub psbt: Vec<u8>,
}

/// Asks for a run of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AddressRequest {
    /// The wallet's name.
    #[n(0)]
    pub wallet: String,
    /// 0 to receive, 1 for change.
    #[n(1)]
    pub branch: u32,
    /// The first index.
    #[n(2)]
    pub start: u32,
    /// How many, at most [`crate::reply::ADDRESSES_MAX`]. A `pool` wallet makes missing keys, up to its configured size.
    #[n(3)]
    pub count: u32,
}

/// Asks for a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HeartbeatRequest {
    /// The coordinator's nonce; proves that the report is new.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub nonce: Vec<u8>,
}

/// Asks for a statement about the boot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AttestRequest {
    /// Whoever asks proves with it that the statement is new: as [`crate::attest::check_nonce`] says.
    #[n(0)]
    pub nonce: String,
}
