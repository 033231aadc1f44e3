//! Managers' commands: a canonical CBOR [`Command`] in a COSE_Sign (RFC 9052 §4.1) with one Ed25519 signature for each
//! manager. Small enough for one QR code. Whoever carries it cannot change it, replay it or use it elsewhere.

use coset::{CborSerializable, CoseSign, CoseSignBuilder, CoseSignatureBuilder, HeaderBuilder, iana};
use ed25519_dalek::{Signer as _, SigningKey};
use minicbor::{Decode, Encode};

use crate::{canonical, key::PublicKey};

/// Domain tag: external additional data of every signature.
pub const DOMAIN: &[u8] = b"postern/command/1";
/// Largest command with all its signatures, in bytes.
pub const COMMAND_MAX: usize = 700;
/// Longest time that a command may be valid, in seconds: 90 days.
pub const VALIDITY_MAX_S: u64 = 90 * 24 * 3600;

/// What managers order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Command {
    /// Identity key of the signer that it is for, 32 bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub signer: [u8; 32],
    /// bitcoin, testnet4, signet or regtest.
    #[n(1)]
    pub network: String,
    /// Used once, ever. Chosen at random by `postern command new`.
    #[n(2)]
    pub serial: u64,
    /// Wall clock, seconds since 1970, after which it is void.
    #[n(3)]
    pub expires: u64,
    /// What to do.
    #[n(4)]
    pub action: Action,
    /// The challenge of the ledger's last re-base; None when there was none. Commands of before are void, since the ledger may have
    /// forgotten that they were used.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub base: Option<Challenge>,
}

/// What a signer shows when it needs a re-base: random, never the same twice.
pub type Challenge = [u8; 16];

/// The kinds of command. Freezing needs one manager, everything else the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Action {
    /// Lets this much more out than the total allowed so far.
    #[n(0)]
    AddTotal(#[n(0)] Scope, #[n(1)] u64),
    /// Lets exactly this much out from now on, whatever was left.
    #[n(1)]
    SetTotal(#[n(0)] Scope, #[n(1)] u64),
    /// Replaces the rates.
    #[n(2)]
    SetRate(#[n(0)] Scope, #[n(1)] Vec<Rate>),
    /// Nothing is signed until an unfreeze.
    #[n(3)]
    Freeze(#[n(0)] Scope),
    /// Ends a freeze or a lock.
    #[n(4)]
    Unfreeze(#[n(0)] Scope),
    /// Ledger and anchor do not agree: go on from this ledger, with this anchor.
    #[n(5)]
    Rebase {
        /// What the signer shows. It forgets it when it stops.
        #[cbor(n(0), with = "minicbor::bytes")]
        challenge: Challenge,
        /// What counts as spent, ever, in satoshi: at least what ledger and anchor know of.
        #[n(1)]
        spent_sat: u64,
    },
}

/// What an action is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Scope {
    /// The whole signer.
    #[n(0)]
    Signer,
    /// One wallet.
    #[n(1)]
    Wallet(#[n(0)] String),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scope::Signer => f.write_str("signer"),
            Scope::Wallet(name) => write!(f, "wallet {name}"),
        }
    }
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Rate {
    /// Satoshi that come back in each `per_ms`.
    #[n(0)]
    pub amount_sat: u64,
    /// Milliseconds.
    #[n(1)]
    pub per_ms: u64,
    /// Capacity in satoshi.
    #[n(2)]
    pub burst_sat: u64,
}

/// Why bytes are not a command, or not one that these managers ordered.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Over [`COMMAND_MAX`].
    #[error("{0} bytes; a command has at most {COMMAND_MAX}")]
    TooLarge(usize),
    /// Not COSE_Sign, or not in the one form that `postern command` writes.
    #[error("not a COSE_Sign message in canonical form: {0}")]
    Cose(String),
    /// The payload is not a canonical command.
    #[error("the payload is not a command: {0}")]
    Payload(#[from] canonical::CanonicalError),
    /// A signature's key is no manager's.
    #[error("signature {0} is by a key that is no manager's")]
    UnknownKey(usize),
    /// A signature does not verify.
    #[error("signature {0} does not verify")]
    Forged(usize),
    /// The same manager signed twice.
    #[error("manager {0} signed twice")]
    Twice(String),
}

/// A command with its signatures, parsed and not yet believed.
#[derive(Debug, Clone)]
pub struct SignedCommand {
    cose: CoseSign,
    command: Command,
}

impl SignedCommand {
    /// A command that nobody signed yet.
    #[must_use]
    pub fn new(command: Command) -> Self {
        let cose = CoseSignBuilder::new().payload(canonical::to_vec(&command)).build();
        Self { cose, command }
    }

    /// Parses; believes nothing.
    ///
    /// # Errors
    /// [`CommandError::TooLarge`], [`CommandError::Cose`], [`CommandError::Payload`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CommandError> {
        if bytes.len() > COMMAND_MAX {
            return Err(CommandError::TooLarge(bytes.len()));
        }
        let cose = CoseSign::from_slice(bytes).map_err(|e| CommandError::Cose(e.to_string()))?;
        let payload = cose.payload.as_deref().ok_or_else(|| CommandError::Cose("no payload".into()))?;
        let command = canonical::from_slice(payload)?;
        let parsed = Self { cose, command };
        if parsed.to_bytes()? != bytes {
            return Err(CommandError::Cose("another encoding of the same message".into()));
        }
        Ok(parsed)
    }

    /// The bytes that travel.
    ///
    /// # Errors
    /// [`CommandError::Cose`], [`CommandError::TooLarge`] when more managers signed than fit.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CommandError> {
        let bytes = self.cose.clone().to_vec().map_err(|e| CommandError::Cose(e.to_string()))?;
        if bytes.len() > COMMAND_MAX { Err(CommandError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// What it says. Whether managers said it is for [`Self::verify`].
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// How many signatures it carries.
    #[must_use]
    pub fn signatures(&self) -> usize {
        self.cose.signatures.len()
    }

    /// The key ids that the signatures name, unchecked.
    pub fn key_ids(&self) -> impl Iterator<Item = &[u8]> {
        self.cose.signatures.iter().map(|s| s.protected.header.key_id.as_slice())
    }

    /// Adds a manager's signature.
    ///
    /// # Errors
    /// [`CommandError::Twice`].
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), CommandError> {
        let public = PublicKey::from(key.verifying_key());
        if self.key_ids().any(|id| id == public.id()) {
            return Err(CommandError::Twice(public.to_string()));
        }
        let header = HeaderBuilder::new().algorithm(iana::Algorithm::EdDSA).key_id(public.id().to_vec()).build();
        let mut signature = CoseSignatureBuilder::new().protected(header).build();
        let to_sign = coset::sig_structure_data(
            coset::SignatureContext::CoseSignature,
            self.cose.protected.clone(),
            Some(signature.protected.clone()),
            DOMAIN,
            self.cose.payload.as_deref().unwrap_or_default(),
        );
        signature.signature = key.sign(&to_sign).to_bytes().to_vec();
        self.cose.signatures.push(signature);
        Ok(())
    }

    /// The managers (by index) who really signed. One wrong signature makes the whole command a forgery.
    ///
    /// # Errors
    /// [`CommandError::UnknownKey`], [`CommandError::Forged`], [`CommandError::Twice`].
    pub fn verify(&self, managers: &[PublicKey]) -> Result<Vec<usize>, CommandError> {
        let mut signed = Vec::new();
        for (n, signature) in self.cose.signatures.iter().enumerate() {
            let id = &signature.protected.header.key_id;
            let Some((index, key)) = managers.iter().enumerate().find(|(_, k)| k.id().as_slice() == id.as_slice()) else {
                return Err(CommandError::UnknownKey(n));
            };
            self.cose
                .verify_signature(n, DOMAIN, |bytes, data| if key.verifies(data, bytes) { Ok(()) } else { Err(()) })
                .map_err(|()| CommandError::Forged(n))?;
            if signed.contains(&index) {
                return Err(CommandError::Twice(key.to_string()));
            }
            signed.push(index);
        }
        Ok(signed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn command() -> Command {
        let rate = Rate { amount_sat: 4_000_000, per_ms: 60_000, burst_sat: 40_000_000 };
        Command {
            signer: [7; 32],
            network: "regtest".into(),
            serial: u64::MAX,
            expires: 1_800_000_000,
            action: Action::SetRate(Scope::Wallet("hot".into()), vec![rate; 3]),
            base: Some([0xff; 16]),
        }
    }

    #[test]
    fn a_command_signed_by_five_managers_fits_one_qr_code() {
        let mut signed = SignedCommand::new(command());
        for n in 1..=5 {
            signed.sign(&key(n)).unwrap();
        }
        let bytes = signed.to_bytes().unwrap();
        assert!(bytes.len() <= COMMAND_MAX, "{}", bytes.len());
        let managers: Vec<PublicKey> = (1..=5).map(|n| key(n).verifying_key().into()).collect();
        let parsed = SignedCommand::from_bytes(&bytes).unwrap();
        assert_eq!(parsed.verify(&managers).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(parsed.command(), &command());
    }

    #[test]
    fn any_changed_bit_of_a_signed_command_is_noticed() {
        let mut signed = SignedCommand::new(command());
        signed.sign(&key(1)).unwrap();
        let bytes = signed.to_bytes().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let believed = SignedCommand::from_bytes(&changed).ok().and_then(|c| c.verify(&[key(1).verifying_key().into()]).ok());
            assert!(believed.is_none_or(|who| who.is_empty()), "bit {bit}");
        }
    }

    #[test]
    fn a_manager_cannot_sign_twice_to_make_a_quorum() {
        let mut signed = SignedCommand::new(command());
        signed.sign(&key(1)).unwrap();
        assert!(matches!(signed.sign(&key(1)), Err(CommandError::Twice(_))));
        let again = signed.cose.signatures[0].clone();
        signed.cose.signatures.push(again);
        assert!(matches!(signed.verify(&[key(1).verifying_key().into()]), Err(CommandError::Twice(_))));
    }
}
