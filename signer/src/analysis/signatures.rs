//! What is there already must sign the whole transaction, as we do, or nothing is signed beside it.

use postern_protocol::refusal::{Refusal, RefusalCode};

use super::{
    SIGHASH_ALL,
    bytes::{Bytes, BytesFault},
    previous::SpentOutput,
    psbt::InputFields,
    refuse,
};

/// SIGHASH_DEFAULT (BIP 341): like ALL, and written by leaving the byte out.
const DEFAULT: u32 = 0x00;
/// First byte of an annex (BIP 341).
const ANNEX: u8 = 0x50;

/// Sighash types asked for and used, and that the input is not final.
pub(super) fn check(number: usize, fields: &InputFields<'_>, spent: &SpentOutput<'_>) -> Result<(), Refusal> {
    let taproot = spent.script.is_p2tr();
    if let Some(witness) = fields.final_witness
        && taproot
        && has_annex(witness).is_ok_and(|annex| annex)
    {
        return refuse(
            RefusalCode::AnnexForbidden,
            format!("input {number} is final with an annex (BIP 341), whose meaning nobody knows yet"),
        );
    }
    if fields.final_witness.is_some() || fields.final_script_sig {
        return refuse(RefusalCode::InputFinal, format!("input {number} is already final; send the PSBT before it is finalised"));
    }
    match fields.sighash {
        None => {}
        Some(sighash) if sighash == u32::from(SIGHASH_ALL) || (taproot && sighash == DEFAULT) => {}
        Some(sighash) => {
            return refuse(
                RefusalCode::SighashForbidden,
                format!("input {number} asks for sighash type {sighash:#x}, which would not commit to the whole transaction; leave it out"),
            );
        }
    }
    let foreign = |sighash: u8| {
        refuse(
            RefusalCode::ForeignSignatureSighash,
            format!(
                "input {number} carries a signature with sighash type {sighash:#04x}: whoever made it lets others change the transaction"
            ),
        )
    };
    for (_, signature) in fields.partial_signatures() {
        match signature.last() {
            Some(&SIGHASH_ALL) => {}
            other => return foreign(other.copied().unwrap_or_default()),
        }
    }
    for signature in fields.tap_key_signature.into_iter().chain(fields.tap_script_signatures()) {
        match (signature.len(), signature.last()) {
            (64, _) | (65, Some(&SIGHASH_ALL)) => {}
            (_, other) => return foreign(other.copied().unwrap_or_default()),
        }
    }
    Ok(())
}

/// Two items or more, the last of which begins with 0x50.
fn has_annex(witness: &[u8]) -> Result<bool, BytesFault> {
    let mut rest = Bytes(witness);
    let count = rest.compact_size()?;
    let mut last: &[u8] = &[];
    for _ in 0..count {
        last = rest.sized()?;
    }
    Ok(count >= 2 && last.first() == Some(&ANNEX))
}
