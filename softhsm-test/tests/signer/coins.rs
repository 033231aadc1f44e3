//! A vault with money in it.

use std::cell::RefCell;

use anyhow::{Context as _, Result};
use bitcoin::{Psbt, ScriptBuf};
use postern_protocol::{refusal::Refusal, reply::Signed};
use postern_testkit::{
    TempRun, Vault, VaultPlan,
    spend::{self, Coin, Output},
};

/// What every coin is worth.
pub(crate) const COIN_SAT: u64 = 1_000_000;

/// A vault whose wallets have coins, each spent once unless a test wants otherwise.
pub(crate) struct Purse {
    pub(crate) vault: Vault,
    coins: RefCell<Vec<(String, Coin)>>,
}

/// The receiver of every payment.
pub(crate) fn somebody() -> ScriptBuf {
    ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").unwrap()
}

impl Purse {
    /// Sets a vault up and gives each wallet so many coins.
    pub(crate) fn new(label: &str, plan: VaultPlan, coins: u32) -> Result<Self> {
        let run = TempRun::new(label)?;
        let vault = plan.start(&run)?;
        let mut all = Vec::new();
        for wallet in vault.wallets()? {
            let scripts = vault.scripts(&wallet.name)?;
            let own = (0..coins).map(|n| scripts.at(0, n)).collect::<Result<Vec<_>>>()?;
            all.extend(Coin::imagine(&own, COIN_SAT).into_iter().map(|coin| (wallet.name.clone(), coin)));
        }
        Ok(Self { vault, coins: RefCell::new(all) })
    }

    /// A coin that no payment used yet.
    pub(crate) fn coin(&self, wallet: &str) -> Result<Coin> {
        let mut coins = self.coins.borrow_mut();
        let at = coins.iter().position(|(name, _)| name == wallet).with_context(|| format!("no coin of {wallet} is left"))?;
        Ok(coins.remove(at).1)
    }

    /// A payment whose outflow (fee of 2,000 sat included) is this, from a new coin.
    pub(crate) fn payment(&self, wallet: &str, outflow_sat: u64) -> Result<Psbt> {
        self.payment_from(wallet, self.coin(wallet)?, outflow_sat, 2_000)
    }

    /// A payment from a given coin.
    pub(crate) fn payment_from(&self, wallet: &str, coin: Coin, outflow_sat: u64, fee_sat: u64) -> Result<Psbt> {
        let change = self.vault.scripts(wallet)?.change(0)?;
        let back = coin.value().to_sat() - outflow_sat;
        spend::psbt(&[coin], &[Output::Pay(somebody(), outflow_sat - fee_sat), Output::Own(Box::new(change), back)])
    }

    /// Asks for a payment's signatures.
    pub(crate) fn ask(&self, wallet: &str, psbt: &Psbt) -> Result<Result<Signed, Refusal>> {
        self.vault.connect()?.sign(wallet, &psbt.serialize())
    }

    /// Asks for a new payment of this outflow.
    pub(crate) fn pay(&self, wallet: &str, outflow_sat: u64) -> Result<Result<Signed, Refusal>> {
        self.ask(wallet, &self.payment(wallet, outflow_sat)?)
    }

    /// What was charged since ever.
    pub(crate) fn charged_sat(&self) -> Result<u64> {
        Ok(self.vault.connect()?.status()?.charged_sat)
    }
}
