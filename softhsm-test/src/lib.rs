//! Real parts for the tests and the demo: SoftHSM tokens, `bitcoind` on regtest, the project's own daemons. Nothing here
//! imitates anything.
//!
//! - [`run`]: a folder of its own for each run, in memory where that is possible, gone afterwards;
//! - [`port`]: TCP ports that no other run on this machine takes;
//! - [`process`]: daemons with their log, killed with whoever started them; [`program`]: where the programs are;
//! - [`token`]: SoftHSM tokens; [`swtpm`]: TPMs in software; [`bitcoind`]: a chain with a miner that pays;
//! - [`vault`]: a signer with its token, set up with the operator's own commands; [`managers`]: who signs commands for it;
//! - [`socket`]: the signer's socket from a gate's side; [`spend`]: PSBTs to send through it;
//! - [`namespace`]: a network with nothing but loopback; [`tor`]: a private Tor network in one;
//! - [`http`]: one request, one answer;
//! - [`wait`]: waiting for events with a deadline, never for time.
//!
//! Every part keeps the [`run::TempRun`] that it lives in alive, so the folder outlasts the last of them. A test that
//! fails leaves its logs behind and says where.

pub mod bitcoind;
pub mod http;
pub mod managers;
pub mod namespace;
pub mod port;
pub mod process;
pub mod program;
pub mod run;
pub mod site;
pub mod socket;
pub mod spend;
pub mod swtpm;
pub mod token;
pub mod tor;
pub mod vault;
pub mod wait;

pub use bitcoind::Bitcoind;
pub use managers::Managers;
pub use process::Process;
pub use run::TempRun;
pub use socket::SignerSocket;
pub use swtpm::{Swtpm, TpmDevice};
pub use token::Token;
pub use tor::TorNetwork;
pub use vault::{Vault, VaultPlan, WalletPlan};
