//! Each refusal, once, through the socket: the code is the promise.

mod every;
mod inputs;
mod intake;
mod outputs;
mod shape;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use bitcoin::{Psbt, ScriptBuf, Transaction};
use postern_protocol::refusal::RefusalCode;
use postern_testkit::{
    TempRun, Vault, VaultPlan, WalletPlan,
    spend::{self, Coin, Output, Scripts, raw::RawPsbt},
};

/// What every wallet has: one coin of this size, on its first address.
const COIN_SAT: u64 = 1_000_000;

/// A request and the code that it must get.
struct Case {
    code: RefusalCode,
    wallet: &'static str,
    psbt: fn(&World) -> Result<Vec<u8>>,
}

/// A signer whose wallets all have a coin.
struct World {
    vault: Vault,
    coins: BTreeMap<String, Coin>,
}

fn somebody() -> ScriptBuf {
    ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").unwrap()
}

impl World {
    fn new(label: &str) -> Result<Self> {
        let run = TempRun::new(label)?;
        let cosigner = "[73c5da0a/84h/1h/0h]tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M";
        let vault = VaultPlan::default()
            .wallet(WalletPlan::new("hot", "seed", "wpkh(@)"))
            .wallet(WalletPlan::new("nested", "seed", "sh(wpkh(@))"))
            .wallet(WalletPlan::new("multisig", "seed", &format!("wsh(sortedmulti(2,@,{cosigner}/<0;1>/*))")))
            .wallet(WalletPlan::new("taproot", "seed", "tr(@)"))
            .wallet(WalletPlan::new("joint", "seed", "wpkh(@)").with("allow_foreign_inputs = true"))
            .wallet(WalletPlan::new("feecap", "seed", "wpkh(@)").with("fee = { max = \"20000 sat\" }"))
            .wallet(WalletPlan::new("feerate", "seed", "wpkh(@)").with("fee = { max_rate = \"100 sat/vB\" }"))
            .wallet(WalletPlan::new("feeshare", "seed", "wpkh(@)").with("fee = { max_share = \"1 %\" }"))
            .wallet(
                WalletPlan::new("listed", "seed", "wpkh(@)")
                    .with("destinations = [\"bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry\"]"),
            )
            .start(&run)?;
        let mut coins = BTreeMap::new();
        for wallet in vault.wallets()? {
            let descriptor = vault.scripts(&wallet.name)?.at(0, 0)?;
            coins.extend(Coin::imagine(&[descriptor], COIN_SAT).into_iter().map(|coin| (wallet.name.clone(), coin)));
        }
        Ok(Self { vault, coins })
    }

    fn coin(&self, wallet: &str) -> Result<Coin> {
        self.coins.get(wallet).cloned().with_context(|| format!("no coin of {wallet}"))
    }

    fn scripts(&self, wallet: &str) -> Scripts {
        self.vault.scripts(wallet).unwrap()
    }

    /// What a wallet would sign: a payment with change.
    fn payment_of(&self, wallet: &str) -> Result<Psbt> {
        let change = self.scripts(wallet).at(1, 0)?;
        spend::psbt(&[self.coin(wallet)?], &[Output::Pay(somebody(), 300_000), Output::Own(Box::new(change), COIN_SAT - 302_000)])
    }

    fn payment(&self) -> Result<Psbt> {
        self.payment_of("hot")
    }

    /// The payment with something changed.
    fn changed(&self, wallet: &str, change: impl FnOnce(&mut Psbt)) -> Result<Vec<u8>> {
        let mut psbt = self.payment_of(wallet)?;
        change(&mut psbt);
        Ok(psbt.serialize())
    }

    /// The payment with something changed in its transaction, which `Psbt` might refuse to write.
    fn with_transaction(&self, change: impl FnOnce(&mut Transaction)) -> Result<Vec<u8>> {
        let psbt = self.payment()?;
        let mut transaction = psbt.unsigned_tx.clone();
        change(&mut transaction);
        Ok(RawPsbt::new(&psbt)?.with_transaction(&transaction).to_bytes())
    }
}

/// Asks all, and reports every case that went another way.
fn all_are_refused(label: &str, cases: &[Case]) {
    let world = World::new(label).unwrap();
    let mut socket = world.vault.connect().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let psbt = (case.psbt)(&world).unwrap_or_else(|e| panic!("{}: {e:#}", case.code));
        match socket.sign(case.wallet, &psbt).unwrap() {
            Err(refusal) if refusal.code == case.code => {
                assert_eq!(refusal.kind, case.code.kind());
                assert!(refusal.message.is_some(), "{} without a reason", case.code);
            }
            Err(refusal) => wrong.push(format!("{}: got {refusal}", case.code)),
            Ok(_) => wrong.push(format!("{}: signed", case.code)),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // And what all of them were made from passes.
    socket.sign("hot", &world.payment().unwrap().serialize()).unwrap().unwrap();
    assert_eq!(world.vault.connect().unwrap().status().unwrap().charged_transactions, 1);
}

#[test]
fn whatever_is_wrong_in_the_shape_of_a_request_is_refused_with_its_code() {
    all_are_refused("shape", shape::CASES);
}

#[test]
fn whatever_is_wrong_with_what_comes_in_is_refused_with_its_code() {
    all_are_refused("inputs", inputs::CASES);
}

#[test]
fn whatever_is_wrong_with_what_goes_out_is_refused_with_its_code() {
    all_are_refused("outputs", outputs::CASES);
}
