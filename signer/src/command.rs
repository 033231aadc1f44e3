//! Managers' commands, as they arrive at the signer: whoever carried them, only the signatures count.
//!
//! Checked in this order, each with its own refusal: size and form, for this signer, on this network, not expired, every
//! signature, enough of them; then the ledger checks the serial and the scope, and notes both on disk before the effect.

use postern_protocol::{
    command::{Action, CommandError, Scope, SignedCommand, VALIDITY_MAX_S},
    key::PublicKey,
    refusal::{Refusal, RefusalCode},
};

use crate::ledger::VerifiedCommand;

/// A person who may sign commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// The name in the configuration.
    pub name: String,
    /// The key.
    pub key: PublicKey,
}

/// A command that is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotBelieved {
    /// Why.
    pub refusal: Refusal,
    /// Somebody signed it who may not, or changed it: what it was meant to touch.
    pub forged: Option<Scope>,
}

impl From<Refusal> for NotBelieved {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, forged: None }
    }
}

/// Whose commands this signer obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRules {
    /// This signer's identity.
    pub signer: PublicKey,
    /// bitcoin, testnet4, signet or regtest.
    pub network: String,
    /// Everybody who may sign.
    pub managers: Vec<Manager>,
    /// How many of them it takes to loosen anything. A freeze takes one.
    pub quorum: usize,
}

impl CommandRules {
    /// Believes a command, or says why not. `wall_s` is the wall clock in seconds since 1970: an expiry is about people's
    /// calendars, and a wrong clock only makes a command void or lets an unused one be used late.
    ///
    /// # Errors
    /// `command_malformed`, `command_signer`, `command_network`, `command_expired`, `command_forged`, `command_quorum`.
    pub fn verify(&self, bytes: &[u8], wall_s: u64) -> Result<VerifiedCommand, NotBelieved> {
        let signed = SignedCommand::from_bytes(bytes).map_err(|e| Refusal::new(RefusalCode::CommandMalformed, e.to_string()))?;
        let command = signed.command();
        if command.signer != self.signer.to_bytes() {
            let message = format!("the command is for the signer ed25519:{}; this one is {}", hex::encode(command.signer), self.signer);
            return Err(Refusal::new(RefusalCode::CommandSigner, message).into());
        }
        if command.network != self.network {
            let message = format!("the command is for the network {:?}; this signer's is {}", command.network, self.network);
            return Err(Refusal::new(RefusalCode::CommandNetwork, message).into());
        }
        check_expiry(command.expires, wall_s)?;
        let keys: Vec<PublicKey> = self.managers.iter().map(|manager| manager.key).collect();
        let signers = signed.verify(&keys).map_err(|e| {
            let message = format!("command {}: {e}", command.serial);
            match e {
                CommandError::UnknownKey(_) | CommandError::Forged(_) => {
                    let forged = Some(scope(&command.action).clone());
                    NotBelieved { refusal: Refusal::new(RefusalCode::CommandForged, message), forged }
                }
                _ => Refusal::new(RefusalCode::CommandMalformed, message).into(),
            }
        })?;
        let needed = self.needed(&command.action);
        if signers.len() < needed {
            let message = format!("{} of the {needed} managers that this command needs have signed it", signers.len());
            return Err(Refusal::new(RefusalCode::CommandQuorum, message).into());
        }
        let managers = signers.iter().filter_map(|n| self.managers.get(*n)).map(|manager| manager.name.clone()).collect();
        Ok(VerifiedCommand { serial: command.serial, action: command.action.clone(), managers, base: command.base })
    }

    /// How many managers an action needs; at least one, whatever the configuration says.
    fn needed(&self, action: &Action) -> usize {
        match action {
            Action::Freeze(_) => 1,
            Action::AddTotal(..) | Action::SetTotal(..) | Action::SetRate(..) | Action::Unfreeze(_) | Action::Rebase { .. } => {
                self.quorum.max(1)
            }
        }
    }
}

fn scope(action: &Action) -> &Scope {
    match action {
        Action::AddTotal(scope, _)
        | Action::SetTotal(scope, _)
        | Action::SetRate(scope, _)
        | Action::Freeze(scope)
        | Action::Unfreeze(scope) => scope,
        Action::Rebase { .. } => &Scope::Signer,
    }
}

fn check_expiry(expires: u64, wall_s: u64) -> Result<(), Refusal> {
    let message = match expires.checked_sub(wall_s) {
        None | Some(0) => format!("the command expired {} s ago; make a new one", wall_s.saturating_sub(expires)),
        Some(left) if left > VALIDITY_MAX_S => {
            format!("the command would be valid for {} days, longer than the {} allowed", left / 86_400, VALIDITY_MAX_S / 86_400)
        }
        Some(_) => return Ok(()),
    };
    Err(Refusal::new(RefusalCode::CommandExpired, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use postern_protocol::command::Command;

    const NOW: u64 = 1_800_000_000;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn rules() -> CommandRules {
        let managers = (1..=3).map(|n| Manager { name: format!("m{n}"), key: key(n).verifying_key().into() }).collect();
        CommandRules { signer: key(9).verifying_key().into(), network: "regtest".into(), managers, quorum: 2 }
    }

    fn command(action: Action) -> Command {
        Command { signer: rules().signer.to_bytes(), network: "regtest".into(), serial: 77, expires: NOW + 3_600, action, base: None }
    }

    fn add() -> Action {
        Action::AddTotal(Scope::Signer, 5)
    }

    fn signed(command: Command, by: &[u8]) -> Vec<u8> {
        let mut signed = SignedCommand::new(command);
        by.iter().for_each(|n| signed.sign(&key(*n)).unwrap());
        signed.to_bytes().unwrap()
    }

    fn refused(bytes: &[u8]) -> RefusalCode {
        rules().verify(bytes, NOW).unwrap_err().refusal.code
    }

    #[test]
    fn a_quorum_may_loosen_and_one_manager_may_only_freeze() {
        let verified = rules().verify(&signed(command(add()), &[1, 3]), NOW).unwrap();
        assert_eq!((verified.serial, verified.managers), (77, vec!["m1".to_owned(), "m3".to_owned()]));
        for action in [
            add(),
            Action::SetTotal(Scope::Signer, 5),
            Action::SetRate(Scope::Signer, vec![]),
            Action::Unfreeze(Scope::Signer),
            Action::Rebase { challenge: [1; 16], spent_sat: 0 },
        ] {
            assert_eq!(refused(&signed(command(action), &[1])), RefusalCode::CommandQuorum);
        }
        assert!(rules().verify(&signed(command(Action::Freeze(Scope::Signer)), &[2]), NOW).is_ok());
        assert_eq!(refused(&signed(command(Action::Freeze(Scope::Signer)), &[])), RefusalCode::CommandQuorum);
    }

    #[test]
    fn a_quorum_of_zero_lets_nobody_loosen_without_a_signature() {
        let rules = CommandRules { quorum: 0, ..rules() };
        assert_eq!(rules.verify(&signed(command(add()), &[]), NOW).unwrap_err().refusal.code, RefusalCode::CommandQuorum);
    }

    #[test]
    fn a_command_for_another_signer_or_network_is_refused_before_its_signatures_are_looked_at() {
        assert_eq!(refused(&signed(Command { signer: [1; 32], ..command(add()) }, &[7])), RefusalCode::CommandSigner);
        assert_eq!(refused(&signed(Command { network: "bitcoin".into(), ..command(add()) }, &[7])), RefusalCode::CommandNetwork);
    }

    #[test]
    fn a_command_is_valid_until_its_expiry_and_never_longer_than_allowed() {
        let expiring = |expires| signed(Command { expires, ..command(add()) }, &[1, 2]);
        assert!(rules().verify(&expiring(NOW + 1), NOW).is_ok());
        assert!(rules().verify(&expiring(NOW + VALIDITY_MAX_S), NOW).is_ok());
        for expires in [0, NOW - 1, NOW, NOW + VALIDITY_MAX_S + 1, u64::MAX] {
            assert_eq!(refused(&expiring(expires)), RefusalCode::CommandExpired, "{expires}");
        }
    }

    #[test]
    fn a_stranger_among_the_signers_or_a_changed_command_is_a_forgery() {
        assert_eq!(refused(&signed(command(add()), &[1, 2, 7])), RefusalCode::CommandForged);
        let mut bytes = signed(command(add()), &[1, 2]);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(refused(&bytes), RefusalCode::CommandForged);
        assert_eq!(rules().verify(&bytes, NOW).unwrap_err().forged, Some(Scope::Signer));
        let one_signature = signed(command(add()), &[1]);
        assert_eq!(rules().verify(&one_signature, NOW).unwrap_err().forged, None, "too few is no forgery");
    }

    #[test]
    fn what_is_no_command_is_malformed() {
        for bytes in [&b""[..], b"garbage", &[0; 701]] {
            assert_eq!(refused(bytes), RefusalCode::CommandMalformed);
        }
        let mut longer = signed(command(add()), &[1, 2]);
        longer.push(0);
        assert_eq!(refused(&longer), RefusalCode::CommandMalformed);
    }
}
