//! Managers' commands: who may loosen what, once.

use ed25519_dalek::SigningKey;
use postern_protocol::{
    command::{Action, COMMAND_MAX, Command, Scope, SignedCommand},
    refusal::RefusalCode,
};
use postern_testkit::{VaultPlan, WalletPlan, managers};

use crate::coins::Purse;

fn purse(label: &str) -> Purse {
    let plan = VaultPlan::default().limits("total = \"100000 sat\"");
    Purse::new(label, plan.wallet(WalletPlan::new("hot", "seed", "wpkh(@)")), 3).unwrap()
}

impl Purse {
    fn command(&self, action: Action) -> Command {
        managers::command(self.vault.identity().unwrap(), action)
    }

    fn apply(&self, command: Command, who: &[usize]) -> Result<String, RefusalCode> {
        let bytes = self.vault.managers().sign(command, who).unwrap();
        self.vault.connect().unwrap().command(&bytes).unwrap().map_err(|refusal| refusal.code)
    }
}

const ADD: Action = Action::AddTotal(Scope::Signer, 1_000_000);

#[test]
fn each_way_in_which_a_command_is_not_for_this_signer_now_is_refused_and_changes_nothing() {
    let purse = purse("commands");
    let elsewhere = Command { signer: SigningKey::from_bytes(&[5; 32]).verifying_key().to_bytes(), ..purse.command(ADD) };
    let network = Command { network: "bitcoin".into(), ..purse.command(ADD) };
    let expired = Command { expires: 1_600_000_000, ..purse.command(ADD) };
    let for_ever = Command { expires: 4_000_000_000, ..purse.command(ADD) };
    let unknown = purse.command(Action::AddTotal(Scope::Wallet("cold".into()), 1));
    let cases = [
        (RefusalCode::CommandSigner, elsewhere, &[0, 1][..]),
        (RefusalCode::CommandNetwork, network, &[0, 1]),
        (RefusalCode::CommandExpired, expired, &[0, 1]),
        (RefusalCode::CommandExpired, for_ever, &[0, 1]),
        (RefusalCode::CommandQuorum, purse.command(ADD), &[2]),
        (RefusalCode::CommandQuorum, purse.command(ADD), &[]),
        (RefusalCode::CommandScope, unknown, &[0, 2]),
    ];
    for (code, command, who) in cases {
        assert_eq!(purse.apply(command.clone(), who), Err(code), "{command:?}");
    }
    let mut socket = purse.vault.connect().unwrap();
    for garbage in [&b"rubbish"[..], &[], &vec![0xd8; COMMAND_MAX + 1]] {
        assert_eq!(socket.command(garbage).unwrap().unwrap_err().code, RefusalCode::CommandMalformed);
    }
    assert_eq!(purse.pay("hot", 200_000).unwrap().unwrap_err().code, RefusalCode::TotalReached);
}

#[test]
fn a_command_works_once_also_over_a_kill_and_a_restart() {
    let mut purse = purse("replay");
    let command = purse.command(ADD);
    purse.apply(command.clone(), &[0, 1]).unwrap();
    assert_eq!(purse.apply(command.clone(), &[0, 1]), Err(RefusalCode::CommandSerialUsed));
    // Other hands, another action, the same serial.
    let renewed = Command { action: Action::AddTotal(Scope::Signer, 2), ..command.clone() };
    assert_eq!(purse.apply(renewed, &[1, 2]), Err(RefusalCode::CommandSerialUsed));
    purse.vault.kill().unwrap();
    purse.vault.launch().unwrap();
    assert_eq!(purse.apply(command, &[0, 1]), Err(RefusalCode::CommandSerialUsed));
    let status = purse.vault.connect().unwrap().status().unwrap();
    let total = status.limits.iter().find(|l| l.scope == "signer" && l.name == "total").unwrap();
    assert_eq!(total.available_sat, 1_100_000);
}

#[test]
fn one_manager_freezes_and_only_a_quorum_unfreezes() {
    let purse = purse("freeze");
    purse.apply(purse.command(Action::Freeze(Scope::Wallet("hot".into()))), &[1]).unwrap();
    let payment = purse.payment("hot", 50_000).unwrap();
    assert_eq!(purse.ask("hot", &payment).unwrap().unwrap_err().code, RefusalCode::Frozen);
    let unfreeze = || purse.command(Action::Unfreeze(Scope::Wallet("hot".into())));
    assert_eq!(purse.apply(unfreeze(), &[1]), Err(RefusalCode::CommandQuorum));
    purse.apply(unfreeze(), &[1, 2]).unwrap();
    purse.ask("hot", &payment).unwrap().unwrap();
}

#[test]
fn a_forged_command_locks_until_a_quorum_unlocks() {
    let purse = purse("forged");
    let payment = purse.payment("hot", 50_000).unwrap();
    let mut forged = SignedCommand::new(purse.command(ADD));
    forged.sign(purse.vault.managers().key(0).unwrap()).unwrap();
    forged.sign(&SigningKey::from_bytes(&[5; 32])).unwrap();
    let refused = purse.vault.connect().unwrap().command(&forged.to_bytes().unwrap()).unwrap().unwrap_err();
    assert_eq!(refused.code, RefusalCode::CommandForged);
    assert_eq!(purse.ask("hot", &payment).unwrap().unwrap_err().code, RefusalCode::Locked);
    purse.apply(purse.command(Action::Unfreeze(Scope::Signer)), &[0, 1]).unwrap();
    purse.ask("hot", &payment).unwrap().unwrap();
}
