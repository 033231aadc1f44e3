//! Every refusal, once: in the log with code, numbers and reason, and the newest ones in the status.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use postern_protocol::{
    refusal::{Refusal, RefusalKind},
    reply::PastRefusal,
};

use super::server::About;

/// How many are kept for the status.
const KEPT: usize = 50;
/// Characters kept of a message. Messages name numbers and positions; what a peer sent is in them only in part.
const MESSAGE_MAX: usize = 400;
/// Characters kept of a wallet's name, which a peer may have invented.
const WALLET_MAX: usize = 64;

/// The newest refusals.
#[derive(Default)]
pub(super) struct Refusals {
    newest: Mutex<VecDeque<PastRefusal>>,
}

impl Refusals {
    /// Logs a refusal and keeps it. `wall_s` is the wall clock in seconds since 1970.
    pub(super) fn note(&self, refusal: &Refusal, about: &About<'_>, wall_s: u64) {
        let message = printable(refusal.message.as_deref().unwrap_or(refusal.code.meaning()), MESSAGE_MAX);
        let wallet = printable(about.wallet.unwrap_or_default(), WALLET_MAX);
        let level = match refusal.kind {
            RefusalKind::Alarm => log::Level::Error,
            RefusalKind::Malformed | RefusalKind::Forbidden | RefusalKind::Needs => log::Level::Warn,
            RefusalKind::Wait => log::Level::Info,
        };
        let alarm = if refusal.kind == RefusalKind::Alarm { "ALARM: " } else { "" };
        log::log!(
            level,
            code = refusal.code.as_str(), wallet = wallet.as_str(), request = about.request, what = about.what, uid = about.uid,
            wait_ms = refusal.wait_ms.unwrap_or_default();
            "{alarm}{}: {message}", refusal.code
        );
        let past = PastRefusal { at: wall_s, wallet, code: refusal.code.as_str().into(), message };
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.truncate(KEPT.saturating_sub(1));
        newest.push_front(past);
    }

    /// Newest first.
    pub(super) fn newest(&self) -> Vec<PastRefusal> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// A text that may hold what a peer sent: cut, and without characters that would forge lines or move a cursor.
fn printable(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_protocol::refusal::RefusalCode;

    #[test]
    fn the_newest_refusals_are_kept_newest_first_and_cut() {
        let refusals = Refusals::default();
        for n in 0..200u64 {
            let wallet = "w\n".repeat(1_000);
            let about = About { uid: 1, request: n, what: "sign", wallet: Some(&wallet) };
            refusals.note(&Refusal::new(RefusalCode::Busy, "x".repeat(10_000)), &about, n);
        }
        let newest = refusals.newest();
        assert_eq!(newest.len(), KEPT);
        assert_eq!(newest.iter().map(|r| r.at).collect::<Vec<_>>(), (150..200).rev().collect::<Vec<_>>());
        assert!(newest.iter().all(|r| r.message.len() <= MESSAGE_MAX && !r.wallet.contains('\n')));
    }

    #[test]
    fn a_refusal_without_a_reason_says_what_its_code_means() {
        let refusals = Refusals::default();
        refusals.note(&Refusal::new(RefusalCode::Frozen, "").undisclosed(), &About::frame(), 0);
        assert_eq!(refusals.newest()[0].message, RefusalCode::Frozen.meaning());
    }
}
