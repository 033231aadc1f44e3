//! What a signer's "no" means for the coordinator.

use postern_protocol::{
    canonical,
    refusal::{Refusal, RefusalCode, RefusalKind},
    reply::ReplyBody,
};

use crate::store::RequestRow;

/// What follows from a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consequence {
    /// Ask again after so many milliseconds.
    Wait(i64),
    /// Ask again when a report shows a change, or after the configured time.
    Needs,
    /// This transaction never; with fewer or other payments perhaps.
    Never,
    /// Stop the wallet: fraud, or coordinator and signer do not fit together and every payment would fail.
    Stop,
}

/// When a signer does not say when.
const WAIT_DEFAULT_MS: i64 = 5_000;
/// Shortest wait: no more than five requests a second for one transaction.
const WAIT_MIN_MS: i64 = 200;
/// Longest wait: limits may have been raised since.
const WAIT_MAX_MS: i64 = 15 * 60_000;

/// Refusals that come from what is paid, not from how coordinator and signer are set up.
fn is_about_payments(code: RefusalCode) -> bool {
    use RefusalCode as C;
    matches!(
        code,
        C::DestinationForbidden
            | C::OutputScriptForbidden
            | C::OutputOpReturn
            | C::OutputDust
            | C::RateBurst
            | C::FeeShare
            | C::TxTooHeavy
            | C::PsbtTooLarge
            | C::FrameTooLarge
            | C::AmountOutOfRange
    )
}

pub(super) fn consequence(refusal: &Refusal) -> Consequence {
    match refusal.code.kind() {
        RefusalKind::Wait => {
            let wait = refusal.wait_ms.map_or(WAIT_DEFAULT_MS, |ms| i64::try_from(ms).unwrap_or(i64::MAX));
            Consequence::Wait(wait.clamp(WAIT_MIN_MS, WAIT_MAX_MS))
        }
        RefusalKind::Needs => Consequence::Needs,
        RefusalKind::Alarm => Consequence::Stop,
        RefusalKind::Malformed | RefusalKind::Forbidden if is_about_payments(refusal.code) => Consequence::Never,
        RefusalKind::Malformed | RefusalKind::Forbidden => Consequence::Stop,
    }
}

/// The code of a request's refusal.
pub(super) fn code_of(request: &RequestRow) -> Option<RefusalCode> {
    match canonical::from_slice(request.reply.as_deref()?) {
        Ok(ReplyBody::Refused(refusal)) => Some(refusal.code),
        _ => None,
    }
}
