//! Refusals: a typed "no" with a stable code. The table below is the whole list; the codes stand in the documentation,
//! in the log, in metrics and in the tests.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// The five kinds of refusal: what the asker can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum RefusalKind {
    /// Not a well-formed request. Mend the sender.
    #[n(0)]
    Malformed,
    /// Well-formed, and never passes under this policy.
    #[n(1)]
    Forbidden,
    /// Passes later; the refusal says when, where that is known.
    #[n(2)]
    Wait,
    /// Passes after a command or an approval; the refusal says which.
    #[n(3)]
    Needs,
    /// Looks like fraud or tampering. Look at it before anything else.
    #[n(4)]
    Alarm,
}

macro_rules! refusal_codes {
    ($($variant:ident, $code:literal, $kind:ident, $meaning:literal;)+) => {
        /// Every reason for which the signer says no. The text form is stable for ever.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum RefusalCode { $(#[doc = $meaning] $variant,)+ }

        impl RefusalCode {
            /// All codes, in the order of the table.
            pub const ALL: &'static [RefusalCode] = &[$(RefusalCode::$variant,)+];
            /// The stable text, `refused.…`.
            #[must_use] pub const fn as_str(self) -> &'static str { match self { $(RefusalCode::$variant => $code,)+ } }
            /// Its kind.
            #[must_use] pub const fn kind(self) -> RefusalKind { match self { $(RefusalCode::$variant => RefusalKind::$kind,)+ } }
            /// What it means and what mends it, for people.
            #[must_use] pub const fn meaning(self) -> &'static str { match self { $(RefusalCode::$variant => $meaning,)+ } }
            /// From the stable text.
            #[must_use] pub fn parse(text: &str) -> Option<Self> { match text { $($code => Some(RefusalCode::$variant),)+ _ => None } }
        }
    };
}

refusal_codes! {
    // Intake.
    FrameTooLarge, "refused.frame_too_large", Malformed, "The frame is larger than [socket] frame_max; send a smaller PSBT or raise it.";
    FrameMalformed, "refused.frame_malformed", Malformed, "The frame is not a canonical CBOR request of this protocol.";
    VersionUnsupported, "refused.version_unsupported", Malformed, "The request speaks another protocol version; update the older side.";
    NotPermitted, "refused.not_permitted", Forbidden, "This peer's user may not ask this; [socket] operators and gates say who may.";
    WalletUnknown, "refused.wallet_unknown", Forbidden, "No [wallet.NAME] of that name is configured.";
    Busy, "refused.busy", Wait, "Too many requests are in flight; ask again.";
    ShuttingDown, "refused.shutting_down", Wait, "The signer is stopping; ask again when it runs.";
    AddressesTooMany, "refused.addresses_too_many", Forbidden, "More addresses than one request or the wallet's pool may hold.";
    AddressOutOfRange, "refused.address_out_of_range", Forbidden, "The branch or index does not exist in this wallet, or lies past its gap.";
    // Attestation.
    AttestNoTpm, "refused.attest_no_tpm", Forbidden, "No [keystore.NAME] of kind \"tpm\" is configured: nothing here can say what was booted.";
    AttestKey, "refused.attest_key", Needs, "There is no attestation key that this TPM can use; `postern init` makes one, which is then pinned anew.";
    AttestUnavailable, "refused.attest_unavailable", Wait, "The TPM does not answer, or has answered as often as it is asked in a minute; ask again.";
    // Analysis: shape.
    PsbtTooLarge, "refused.psbt_too_large", Malformed, "The PSBT is larger than allowed.";
    PsbtMalformed, "refused.psbt_malformed", Malformed, "The bytes are not a PSBT (BIP 174).";
    PsbtTrailingBytes, "refused.psbt_trailing_bytes", Malformed, "Bytes follow the PSBT.";
    PsbtVersion, "refused.psbt_version", Malformed, "Only PSBT version 0 is accepted; this one is, or has fields of, another.";
    PsbtDuplicateKey, "refused.psbt_duplicate_key", Malformed, "A key occurs twice in one map of the PSBT.";
    TxNoInputs, "refused.tx_no_inputs", Malformed, "The transaction has no input.";
    TxNoOutputs, "refused.tx_no_outputs", Malformed, "The transaction has no output.";
    TxVersion, "refused.tx_version", Forbidden, "Only transaction versions 1, 2 and 3 are standard.";
    TxDuplicateOutpoint, "refused.tx_duplicate_outpoint", Malformed, "Two inputs spend the same outpoint.";
    TxCoinbasePrevout, "refused.tx_coinbase_prevout", Malformed, "An input spends the null outpoint.";
    TxTooHeavy, "refused.tx_too_heavy", Forbidden, "The signed transaction would pass 400,000 weight units.";
    TxSigned, "refused.tx_signed", Malformed, "The unsigned transaction carries a script signature or witness.";
    TxLocktime, "refused.tx_locktime", Forbidden, "The lock time or a sequence is not sane: further ahead than the policy allows.";
    AmountOutOfRange, "refused.amount_out_of_range", Malformed, "An amount is over 21,000,000 BTC or a sum overflows.";
    AmountNegativeFee, "refused.amount_negative_fee", Malformed, "The outputs are worth more than the inputs.";
    // Analysis: inputs.
    PrevtxMissing, "refused.prevtx_missing", Malformed, "An input lacks its full previous transaction (non_witness_utxo), needed unless all inputs are P2TR.";
    PrevtxMismatch, "refused.prevtx_mismatch", Alarm, "A previous transaction's txid is not the one the input spends.";
    PrevtxIndex, "refused.prevtx_index", Malformed, "An input spends an output that its previous transaction does not have.";
    AmountConflict, "refused.amount_conflict", Alarm, "witness_utxo contradicts the full previous transaction.";
    ForeignInput, "refused.foreign_input", Forbidden, "An input is not this wallet's, or its index lies past the gap.";
    ForeignInputUnproven, "refused.foreign_input_unproven", Malformed, "A foreign input's amount and script are not given.";
    NothingToSign, "refused.nothing_to_sign", Forbidden, "No input of the transaction is this wallet's.";
    SighashForbidden, "refused.sighash_forbidden", Alarm, "Only SIGHASH_ALL (and DEFAULT for Taproot) is ever signed.";
    ForeignSignatureSighash, "refused.foreign_signature_sighash", Alarm, "A signature already present uses a sighash other than ALL or DEFAULT.";
    RedeemScriptMismatch, "refused.redeem_script_mismatch", Alarm, "The redeem script is not the one the descriptor derives.";
    WitnessScriptMismatch, "refused.witness_script_mismatch", Alarm, "The witness script is not the one the descriptor derives.";
    TaprootMismatch, "refused.taproot_mismatch", Alarm, "Internal key, merkle root, leaf or control block is not the one the descriptor derives.";
    AnnexForbidden, "refused.annex_forbidden", Forbidden, "An annex is never signed.";
    InputFinal, "refused.input_final", Malformed, "An input is already final.";
    // Analysis: outputs.
    ChangeBeyondGap, "refused.change_beyond_gap", Forbidden, "A change output's index lies past the last used one plus the gap.";
    ChangeTooMany, "refused.change_too_many", Forbidden, "More than ten change outputs.";
    ChangeClaimFalse, "refused.change_claim_false", Alarm, "An output claims this wallet's key and does not derive from it.";
    OutputScriptForbidden, "refused.output_script_forbidden", Forbidden, "An output's script is not p2pkh, p2sh, p2wpkh, p2wsh or p2tr.";
    OutputOpReturn, "refused.output_op_return", Forbidden, "OP_RETURN outputs are refused unless the wallet allows them.";
    OutputDust, "refused.output_dust", Forbidden, "An output is below the dust limit and would not be relayed.";
    // Analysis: fee.
    FeeAbsolute, "refused.fee_absolute", Forbidden, "The fee is over [wallet.NAME] fee.max.";
    FeeRate, "refused.fee_rate", Forbidden, "The fee rate is over [wallet.NAME] fee.max_rate.";
    FeeTooLow, "refused.fee_too_low", Forbidden, "The fee is below 0.1 sat/vB: no node relays the transaction, and it would cost nothing to ask for many.";
    FeeShare, "refused.fee_share", Forbidden, "The fee is over [wallet.NAME] fee.max_share of what is paid.";
    // Policy.
    DestinationForbidden, "refused.destination_forbidden", Forbidden, "An output pays to a script that is not in [wallet.NAME] destinations.";
    RateBurst, "refused.rate_burst", Forbidden, "The outflow is larger than a rate's burst: it can never pass; split it or raise the limit by a command.";
    RateWait, "refused.rate_wait", Wait, "The outflow does not fit the rate now; it will at the time given.";
    TotalReached, "refused.total_reached", Needs, "The outflow does not fit the total; a command signed by the managers lets more out.";
    Frozen, "refused.frozen", Needs, "Frozen by a manager's command; a quorum's unfreeze command ends it.";
    Locked, "refused.locked", Needs, "Locked after a forgery; a quorum's unfreeze command ends it.";
    // Ledger and anchor.
    LedgerUnavailable, "refused.ledger_unavailable", Wait, "The ledger cannot be written (disk full or read-only?); nothing was charged.";
    LedgerStale, "refused.ledger_stale", Needs, "Ledger and anchor do not agree, so the ledger may be an old copy: nothing is charged until the managers' re-base.";
    // Keystore.
    KeystoreUnavailable, "refused.keystore_unavailable", Wait, "The token does not answer or is missing; it is re-opened with back-off. The charge stands; the retry is free.";
    KeystorePin, "refused.keystore_pin", Needs, "The token refused the PIN; nothing more is tried until the signer restarts with the right one.";
    KeyMismatch, "refused.key_mismatch", Alarm, "The token's key is not the one pinned by its public key, or its signature does not verify.";
    KeyMissing, "refused.key_missing", Needs, "The token answers and the pinned key is not on it; restore the token.";
    // Managers' commands.
    CommandMalformed, "refused.command_malformed", Malformed, "Not a command in COSE_Sign over canonical CBOR, or over 700 bytes.";
    CommandSigner, "refused.command_signer", Forbidden, "The command is for another signer.";
    CommandNetwork, "refused.command_network", Forbidden, "The command is for another network.";
    CommandExpired, "refused.command_expired", Forbidden, "The command has expired, or would be valid longer than allowed.";
    CommandSerialUsed, "refused.command_serial_used", Forbidden, "A command with this serial was applied before.";
    CommandForged, "refused.command_forged", Alarm, "A signature on the command does not verify, or its key is no manager's.";
    CommandQuorum, "refused.command_quorum", Needs, "Fewer managers signed than [commands] quorum asks for.";
    CommandBase, "refused.command_base", Forbidden, "The command was made before the ledger's last re-base; make a new one.";
    CommandRebase, "refused.command_rebase", Forbidden, "No re-base is asked for, or the command answers another challenge or counts too little as spent.";
    CommandScope, "refused.command_scope", Forbidden, "The command names a wallet or limit that this signer does not have.";
}

impl std::fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for RefusalCode {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for RefusalCode {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("unknown refusal code `{text}`")))
    }
}

impl<C> Encode<C> for RefusalCode {
    fn encode<W: minicbor::encode::Write>(&self, e: &mut minicbor::Encoder<W>, _: &mut C) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(self.as_str())?;
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for RefusalCode {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        Self::parse(d.str()?).ok_or_else(|| minicbor::decode::Error::message("unknown refusal code").at(at))
    }
}

/// A typed "no".
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, thiserror::Error)]
#[error("{code}{}{}", if message.is_some() { ": " } else { "" }, message.as_deref().unwrap_or_default())]
#[cbor(map)]
pub struct Refusal {
    /// Why.
    #[n(0)]
    pub code: RefusalCode,
    /// What kind of no.
    #[n(1)]
    pub kind: RefusalKind,
    /// For [`RefusalKind::Wait`]: milliseconds until the same request would pass, where that is known.
    #[n(2)]
    pub wait_ms: Option<u64>,
    /// Numbers and reasons, for the local log and the operators; leaves to a gate only with `disclose = "full"`.
    #[n(3)]
    pub message: Option<String>,
}

impl Refusal {
    /// A refusal with its reason in words: what, where, and what to do.
    #[must_use]
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, kind: code.kind(), wait_ms: None, message: Some(message.into()) }
    }

    /// The same with the time after which it would pass.
    #[must_use]
    pub fn wait_ms(mut self, wait_ms: u64) -> Self {
        self.wait_ms = Some(wait_ms);
        self
    }

    /// Without numbers and reasons, for a gate's peer.
    #[must_use]
    pub fn undisclosed(mut self) -> Self {
        self.message = None;
        self
    }
}
