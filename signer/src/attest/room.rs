//! Where statements are asked for over the socket. A gate may ask, and a TPM is slow: so one at a time, and few in a minute.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use postern_protocol::{
    attest::{Statement, check_nonce},
    refusal::{Refusal, RefusalCode},
};

use super::{AttestKeyError, read_key, state};
use crate::{
    clock::Uptime,
    identity::Identity,
    tpm::{PcrSet, Tpm, TpmError},
};

/// Most statements in [`WINDOW`], good or not. The coordinator asks once a day.
const MOST: usize = 6;
/// A minute.
const WINDOW: Duration = Duration::from_secs(60);

/// The TPM that speaks for this signer, and what it is asked.
#[derive(Debug, Clone)]
pub struct Attesting {
    /// The TPM.
    pub tpm: Tpm,
    /// Its PCRs.
    pub pcrs: PcrSet,
    /// Its keystore's name: the attestation key's file is named after it.
    pub keystore: String,
    /// Where the key's file is.
    pub state: PathBuf,
    /// The firmware's event log, as it was read before the sandbox was closed.
    pub event_log: Option<Vec<u8>>,
}

/// Answers who asks what was booted.
pub struct AttestRoom {
    attesting: Option<Attesting>,
    /// When the TPM was asked. Held while it is asked: one at a time.
    asked: Mutex<VecDeque<Uptime>>,
}

impl AttestRoom {
    /// With the TPM that speaks, if there is one.
    #[must_use]
    pub fn new(attesting: Option<Attesting>) -> Self {
        Self { attesting, asked: Mutex::default() }
    }

    /// A statement that answers this nonce.
    ///
    /// # Errors
    /// `frame_malformed`, `attest_no_tpm`, `attest_key`, `attest_unavailable`.
    pub fn answer(&self, nonce: &str, identity: &Identity, now: Uptime) -> Result<Statement, Refusal> {
        check_nonce(nonce).map_err(|e| Refusal::new(RefusalCode::FrameMalformed, e.to_string()))?;
        let Some(Attesting { tpm, pcrs, keystore, state: folder, event_log }) = &self.attesting else {
            let message = "no keystore of kind \"tpm\" is configured; only a TPM says what was booted";
            return Err(Refusal::new(RefusalCode::AttestNoTpm, message));
        };
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        take_turn(&mut asked, now)?;
        let unavailable = |e: &dyn std::fmt::Display| Refusal::new(RefusalCode::AttestUnavailable, format!("[keystore.{keystore}]: {e}"));
        let no_key = |e: &dyn std::fmt::Display| Refusal::new(RefusalCode::AttestKey, format!("[keystore.{keystore}]: {e}"));
        let key = read_key(folder, keystore).map_err(|e| match e {
            AttestKeyError::Missing(_) | AttestKeyError::Form(_) => no_key(&e),
            AttestKeyError::File(_) | AttestKeyError::Tpm(_) => unavailable(&e),
        })?;
        state(tpm, &key, pcrs, identity, nonce, event_log.clone()).map_err(|e| match e {
            TpmError::Foreign => no_key(&e),
            e => unavailable(&e),
        })
    }
}

/// Notes that the TPM is asked, unless it was asked too often.
fn take_turn(asked: &mut VecDeque<Uptime>, now: Uptime) -> Result<(), Refusal> {
    let left = |at: &Uptime| WINDOW.saturating_sub(now.0.saturating_sub(at.0));
    while asked.front().is_some_and(|at| left(at).is_zero()) {
        asked.pop_front();
    }
    if let Some(oldest) = asked.front().filter(|_| asked.len() >= MOST) {
        let wait_ms = u64::try_from(left(oldest).as_millis()).unwrap_or(u64::MAX).max(1);
        let message = format!("the TPM was asked {MOST} times in the last minute; once a day is enough");
        return Err(Refusal::new(RefusalCode::AttestUnavailable, message).wait_ms(wait_ms));
    }
    asked.push_back(now);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_tpm_is_asked_six_times_a_minute_and_who_asks_more_learns_when() {
        let mut asked = VecDeque::new();
        for second in 0..6 {
            take_turn(&mut asked, Uptime::from_millis(second * 1_000)).unwrap();
        }
        let no = take_turn(&mut asked, Uptime::from_millis(10_000)).unwrap_err();
        assert_eq!((no.code, no.wait_ms), (RefusalCode::AttestUnavailable, Some(50_000)));
        assert!(take_turn(&mut asked, Uptime::from_millis(59_999)).is_err());
        take_turn(&mut asked, Uptime::from_millis(60_000)).unwrap();
        // A refused try is none: the next place is free when the second one's minute is over.
        assert_eq!(take_turn(&mut asked, Uptime::from_millis(60_500)).unwrap_err().wait_ms, Some(500));
        take_turn(&mut asked, Uptime::from_millis(61_000)).unwrap();
    }
}
