//! An anchor in the label of a data object on a PKCS#11 token. The label is the one attribute of CKO_DATA that most tokens
//! let a program change in place. How far it protects depends on the token: one whose storage can be copied and put back, as
//! SoftHSM's can, only proves that the code works.

use sha2::{Digest, Sha256};

use super::{Anchor, AnchorError, AnchorState};

/// A label that can be read and replaced. The PKCS#11 keystore gives one.
pub trait LabelStore: Send {
    /// The label; None when the object does not exist.
    ///
    /// # Errors
    /// When the token does not answer or refused the PIN.
    fn read(&mut self) -> Result<Option<String>, AnchorError>;

    /// Replaces it; makes the object when it is missing. Durable on return, as far as the token is.
    ///
    /// # Errors
    /// When the token does not answer or refuses.
    fn write(&mut self, label: &str) -> Result<(), AnchorError>;
}

/// Keeps an [`AnchorState`] in a label: `postern1:LEDGER:BOUND:COMMANDS:CLEAN:CHECK`.
#[derive(Debug)]
pub struct LabelAnchor<S> {
    store: S,
}

impl<S: LabelStore> LabelAnchor<S> {
    /// On this label.
    pub fn new(store: S) -> Self {
        Self { store }
    }
}

const PREFIX: &str = "postern1";

impl<S: LabelStore> Anchor for LabelAnchor<S> {
    fn kind(&self) -> &'static str {
        "pkcs11-label"
    }

    fn read(&mut self) -> Result<Option<AnchorState>, AnchorError> {
        let label = self.store.read()?;
        label.map(|label| parse(&label).ok_or(AnchorError::Damaged(label.chars().take(200).collect()))).transpose()
    }

    fn write(&mut self, state: &AnchorState) -> Result<(), AnchorError> {
        let label = format(state);
        self.store.write(&label)?;
        match self.store.read()? {
            Some(read) if read == label => Ok(()),
            other => Err(AnchorError::Unavailable(format!("wrote {label:?} and read back {other:?}"))),
        }
    }
}

fn format(state: &AnchorState) -> String {
    let clean = state.clean.map(hex::encode).unwrap_or_else(|| "-".into());
    let text = format!("{PREFIX}:{}:{}:{}:{clean}", hex::encode(state.ledger), state.bound_sat, state.commands);
    format!("{text}:{}", check(&text))
}

fn parse(label: &str) -> Option<AnchorState> {
    let (text, sum) = label.rsplit_once(':')?;
    let mut parts = text.split(':');
    let (prefix, ledger, bound, commands, clean) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let clean = match clean {
        "-" => None,
        hash => Some(half(hash)?),
    };
    let state = AnchorState { ledger: half(ledger)?, bound_sat: bound.parse().ok()?, commands: commands.parse().ok()?, clean };
    (prefix == PREFIX && parts.next().is_none() && sum == check(text) && format(&state) == label).then_some(state)
}

fn half(text: &str) -> Option<[u8; 16]> {
    hex::decode(text).ok()?.try_into().ok()
}

/// Tells a label that was torn in the middle of a write from a whole one.
fn check(text: &str) -> String {
    hex::encode(Sha256::digest(text).get(..4).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: AnchorState = AnchorState { ledger: [7; 16], bound_sat: 123_456, commands: 3, clean: Some([9; 16]) };

    #[test]
    fn a_label_reads_back_as_written() {
        for state in [STATE, AnchorState { clean: None, bound_sat: u64::MAX, ..STATE }] {
            assert_eq!(parse(&format(&state)), Some(state));
        }
    }

    #[test]
    fn a_torn_or_changed_label_is_no_anchor() {
        let label = format(&STATE);
        for cut in 0..label.len() {
            assert_eq!(parse(&label[..cut]), None, "cut at {cut}");
            let mut changed = label.clone().into_bytes();
            changed[cut] ^= 1;
            assert_eq!(parse(&String::from_utf8_lossy(&changed)), None, "changed at {cut}");
        }
    }
}
