//! `postern`: the program for operators and managers.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use super::{Ending, Program, attest, command, completions, init, ledger, sign, simulate, site::Site, status, wallet};

const EXAMPLES: &str = "\
Examples:
  postern init                                             make the state folder, the identity and an empty ledger
  postern wallet new hot --keystore hsm --kind seed --script wpkh
  postern simulate --psbt payment.psbt                     would it be signed? nothing is charged
  postern sign payment.psbt -o signed.psbt
  postern status
  postern ledger verify
  postern attest --nonce 8a88e3dd7409f195fd52db2d3cba5d72 -o statement.json
  postern attest verify statement.json --nonce 8a88e3dd7409f195fd52db2d3cba5d72 --expect good.json
  postern command new add-total \"1 BTC\" --signer-key ed25519:… --network bitcoin -o more.command

All of them take --config FILE; without it they read /etc/postern/signer.toml.";

/// Sets a Postern signer up, asks it, and makes the commands that managers sign.
#[derive(Debug, Parser)]
#[command(name = "postern", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct OperatorCli {
    #[command(flatten)]
    site: Site,
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Make the state folder, the signer's identity and an empty ledger; what exists is kept.
    Init,
    /// Make and show wallets.
    #[command(subcommand)]
    Wallet(wallet::WalletCommand),
    /// Say whether a transaction would be signed: no keys, no ledger, no charge.
    Simulate(simulate::Simulate),
    /// Have the running signer sign a transaction, within its limits.
    Sign(sign::Sign),
    /// Show the running signer's limits, ledger, anchor, keystores and last refusals.
    Status(status::ShowStatus),
    /// Recompute or read the journal.
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Make, sign, read and apply managers' commands.
    #[command(subcommand)]
    Command(command::ManagerCommand),
    /// Have the TPM sign what was booted, for whoever asks; or check such a statement.
    Attest(Box<attest::Attest>),
    /// Print the completions of a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
}

impl Program for OperatorCli {
    fn run(self) -> anyhow::Result<Ending> {
        let site = &self.site;
        match self.command {
            Task::Init => init::run(site),
            Task::Wallet(command) => command.run(site),
            Task::Simulate(command) => command.run(site),
            Task::Sign(command) => command.run(site),
            Task::Status(command) => command.run(site),
            Task::Ledger(command) => command.run(site),
            Task::Command(command) => command.run(site),
            Task::Attest(command) => command.run(site),
            Task::Completions { shell } => Ok(completions::<Self>(shell)),
        }
    }
}
