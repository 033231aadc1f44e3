//! Nonces for signers' reports. In memory: after a restart the link gets new ones with its next pull.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use rand::RngCore as _;

/// Polls that overlap have nonces of their own.
const KEPT: usize = 32;
/// A report older than this proves nothing about now.
const VALID_MS: i64 = 10 * 60_000;

/// Nonces with the time they were given, oldest first.
type Given = VecDeque<(Vec<u8>, i64)>;

#[derive(Debug, Default)]
pub(super) struct Nonces(Mutex<HashMap<Arc<str>, Given>>);

impl Nonces {
    fn with<T>(&self, signer: &Arc<str>, f: impl FnOnce(&mut Given) -> T) -> T {
        f(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(signer.clone()).or_default())
    }

    /// A new one.
    pub(super) fn give(&self, signer: &Arc<str>, now: i64) -> Vec<u8> {
        let mut nonce = vec![0; 16];
        rand::rngs::OsRng.fill_bytes(&mut nonce);
        self.with(signer, |kept| {
            kept.retain(|(_, at)| at.saturating_add(VALID_MS) > now);
            if kept.len() >= KEPT {
                kept.pop_front();
            }
            kept.push_back((nonce.clone(), now));
        });
        nonce
    }

    /// Those that a report may answer.
    pub(super) fn recent(&self, signer: &Arc<str>) -> Vec<Vec<u8>> {
        self.with(signer, |kept| kept.iter().map(|(nonce, _)| nonce.clone()).collect())
    }

    /// When it was given: once.
    pub(super) fn spend(&self, signer: &Arc<str>, nonce: &[u8]) -> Option<i64> {
        self.with(signer, |kept| {
            let place = kept.iter().position(|(known, _)| known == nonce)?;
            kept.remove(place).map(|(_, at)| at)
        })
    }
}
