#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ed25519_dalek::{Signer as _, SigningKey};

use super::*;
use crate::canonical;

pub(super) const NONCE: &str = "0123456789abcdef";

/// A TPM and a signer of which the test holds the keys.
pub(super) struct Maker {
    attestation: p256::ecdsa::SigningKey,
    identity: SigningKey,
}

impl Maker {
    pub(super) fn new(n: u8) -> Self {
        Self { attestation: p256::ecdsa::SigningKey::from_slice(&[n; 32]).unwrap(), identity: SigningKey::from_bytes(&[n; 32]) }
    }

    fn signer(&self) -> PublicKey {
        self.identity.verifying_key().into()
    }

    fn says(&self, nonce: &str, pcrs: &[(u8, u8)]) -> Statement {
        self.says_of(nonce, PcrValues(pcrs.iter().map(|(index, value)| (*index, [*value; 32])).collect()))
    }

    pub(super) fn says_of(&self, nonce: &str, pcrs: PcrValues) -> Statement {
        let bits = pcrs.0.keys().fold([0_u8; 3], |mut bits, index| {
            bits[usize::from(index / 8)] |= 1 << (index % 8);
            bits
        });
        let mut attest = [&0xff54_4347_u32.to_be_bytes()[..], &0x8018_u16.to_be_bytes(), &[0, 2, 7, 7], &[0, 32]].concat();
        attest.extend(qualifying(nonce, &self.signer()));
        attest.extend([0; 17 + 8]);
        attest.extend([0, 0, 0, 1, 0, 0x0b, 3]);
        attest.extend(bits);
        attest.extend([0, 32]);
        attest.extend(pcrs.digest());
        self.signs(nonce, pcrs, attest)
    }

    fn signs(&self, nonce: &str, pcrs: PcrValues, attest: Vec<u8>) -> Statement {
        let signature: Signature = self.attestation.sign(&attest);
        let key = format!("p256:{}", hex::encode(self.attestation.verifying_key().to_encoded_point(true).as_bytes()));
        Statement {
            postern_attestation: 1,
            signer: self.signer(),
            nonce: nonce.into(),
            identity_signature: self.identity.sign(&vouched(&key, &attest)).to_bytes().to_vec(),
            key,
            pcrs,
            attest,
            signature: signature.to_bytes().to_vec(),
            event_log: None,
        }
    }
}

fn bad(statement: &Statement, expected: &Expected) -> String {
    let findings = statement.verify(expected).unwrap();
    findings.into_iter().filter(|f| !f.holds).map(|f| f.words).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_nonce_has_a_length_and_a_form() {
    check_nonce(&"ab".repeat(16)).unwrap();
    for nonce in
        ["", "short", "0123456789abcde", "with a space in it", "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}", &"a".repeat(129)]
    {
        assert!(check_nonce(nonce).is_err(), "{nonce}");
    }
}

#[test]
fn rubbish_is_no_statement() {
    for json in [&b""[..], b"{}", b"[]", b"\xff", b"{\"postern_attestation\":1}"] {
        assert!(Statement::parse(json).is_err());
    }
}

#[test]
fn a_statement_says_the_same_in_json_and_in_cbor() {
    let mut statement = Maker::new(7).says(NONCE, &[(7, 1), (11, 2), (23, 3)]);
    for log in [None, Some(vec![1, 2, 3])] {
        statement.event_log = log;
        assert_eq!(Statement::parse(&serde_json::to_vec(&statement).unwrap()).unwrap(), statement);
        assert_eq!(canonical::from_slice::<Statement>(&canonical::to_vec(&statement)).unwrap(), statement);
    }
    let expected = statement.expected_of_itself(NONCE, statement.signer);
    assert_eq!(bad(&statement, &expected), "");
}

#[test]
fn a_tpm_that_the_identity_does_not_vouch_for_is_not_believed() {
    let (ours, theirs) = (Maker::new(7), Maker::new(8));
    // Somebody on the way has a TPM, and knows the nonce and whose answer is waited for.
    let mut swapped = ours.says(NONCE, &[(11, 1)]);
    let signature: Signature = theirs.attestation.sign(&swapped.attest);
    swapped.signature = signature.to_bytes().to_vec();
    swapped.key = theirs.says(NONCE, &[(11, 1)]).key;
    let expected = swapped.expected_of_itself(NONCE, ours.signer());
    assert!(bad(&swapped, &expected).starts_with("not vouched for by the signer's identity"));
}

#[test]
fn every_cut_and_every_changed_byte_of_a_quote_is_refused_and_nothing_panics() {
    let maker = Maker::new(7);
    let good = maker.says(NONCE, &[(7, 1), (11, 2)]);
    let expected = good.expected_of_itself(NONCE, maker.signer());
    for cut in 0..good.attest.len() {
        assert_eq!(quoted(&good.attest[..cut]), None, "{cut}");
        let cut = maker.signs(NONCE, good.pcrs.clone(), good.attest[..cut].to_vec());
        assert_eq!(bad(&cut, &expected), "what is signed is no quote of a TPM");
    }
    let longer = [good.attest.as_slice(), &[0]].concat();
    assert_eq!(quoted(&longer), None);
    // Signed all the same: what a TPM with other PCRs, nonces or banks would say. Its name, clock and version are not judged.
    for at in (0..6).chain(10..44).chain(69..good.attest.len()) {
        let mut changed = good.attest.clone();
        changed[at] ^= 1;
        assert_ne!(bad(&maker.signs(NONCE, good.pcrs.clone(), changed), &expected), "", "byte {at}");
    }
}

#[test]
fn a_pcr_that_does_not_exist_is_in_no_statement() {
    let mut statement = Maker::new(7).says(NONCE, &[(7, 1)]);
    statement.pcrs.0.insert(24, [0; 32]);
    assert!(canonical::from_slice::<Statement>(&canonical::to_vec(&statement)).is_err());
    assert!(Statement::parse(&serde_json::to_vec(&statement).unwrap()).is_err());
}
