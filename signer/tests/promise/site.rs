//! Two wallets, three coins each, and the transactions that spend them: real PSBTs that go through the real analysis.

use std::{
    str::FromStr as _,
    sync::{Arc, LazyLock},
};

use bitcoin::{
    Network, ScriptBuf, WPubkeyHash,
    bip32::{DerivationPath, Xpriv, Xpub},
    hashes::Hash as _,
    secp256k1::Secp256k1,
};
use miniscript::{DefiniteDescriptorKey, Descriptor};
use postern_protocol::refusal::Refusal;
use postern_signer::{
    analysis::{SpendPlan, analyze},
    keystore::{AccountKey, BoundKeys},
    policy::rules::SpendRules,
    wallet::Wallet,
};
use postern_testkit::spend::{Coin, Output, Scripts, psbt};

use crate::{model::Transaction, observer::Coins};

/// The wallets' names.
pub const WALLETS: [&str; 2] = ["hot", "warm"];
/// The coins of each.
pub const OWN: [Coins; 2] = [0b000_111, 0b111_000];
/// What each coin is worth.
pub const COIN_SAT: u64 = 10_000;
/// Less than this is no output.
const DUST_SAT: u64 = 330;

/// A transaction to ask for. Each wallet that has a coin in it can sign it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spend {
    /// What it spends, of both wallets.
    pub coins: Coins,
    /// What each wallet pays, fee included; the rest of its coins returns to it.
    pub from_sat: [u64; 2],
    /// How much of that is the fee.
    pub fee_sat: u64,
    /// To whom.
    pub payee: u8,
    /// A second payment, to somebody else, out of the same sum.
    pub second_sat: u64,
}

/// What an output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Pay(u8, u64),
    Return(usize, u64),
}

impl Spend {
    /// A wallet's coins in it.
    pub fn own(&self, wallet: usize) -> Coins {
        self.coins & OWN[wallet]
    }

    fn parts(&self) -> Vec<Part> {
        let mut paid_sat = 0;
        let mut parts = vec![];
        for wallet in 0..2 {
            let in_sat = u64::from(self.own(wallet).count_ones()) * COIN_SAT;
            let back_sat = in_sat.saturating_sub(self.from_sat[wallet]);
            let back_sat = if back_sat < DUST_SAT { 0 } else { back_sat };
            paid_sat += in_sat - back_sat;
            if back_sat > 0 {
                parts.push(Part::Return(wallet, back_sat));
            }
        }
        let paid_sat = paid_sat.saturating_sub(self.fee_sat);
        let second_sat = if self.second_sat >= DUST_SAT && paid_sat >= self.second_sat + DUST_SAT { self.second_sat } else { 0 };
        for (payee, sat) in [(self.payee, paid_sat - second_sat), (self.payee + 100, second_sat)] {
            // What is too little for an output goes to the miner.
            if sat >= DUST_SAT {
                parts.push(Part::Pay(payee, sat));
            }
        }
        parts
    }

    /// What it takes out of a wallet: counted here, from what was put in and what returns.
    pub fn outflow_sat(&self, wallet: usize) -> u64 {
        let back = self.parts().into_iter().map(|part| match part {
            Part::Return(to, sat) if to == wallet => sat,
            _ => 0,
        });
        u64::from(self.own(wallet).count_ones()) * COIN_SAT - back.sum::<u64>()
    }
}

struct Party {
    wallet: Wallet,
    scripts: Scripts,
}

/// The wallets and their coins.
pub struct Site {
    parties: [Party; 2],
    coins: Vec<Coin>,
    rules: SpendRules,
}

/// One for all tests: it holds nothing that changes.
pub static SITE: LazyLock<Site> = LazyLock::new(Site::new);

impl Site {
    fn new() -> Self {
        let secp = Secp256k1::new();
        let parties = [1, 2].map(|n: u8| {
            let path = DerivationPath::from_str("84'/1'/0'").unwrap();
            let master = Xpriv::new_master(Network::Regtest, &[n; 32]).unwrap();
            let xpub = Xpub::from_priv(&secp, &master.derive_priv(&secp, &path).unwrap());
            let account = AccountKey { fingerprint: master.fingerprint(&secp), path, xpub };
            let descriptor = format!("wpkh({account}/<0;1>/*)");
            let keys = BoundKeys::Seed { accounts: vec![account] };
            let wallet = Wallet::new(WALLETS[usize::from(n) - 1], Network::Regtest, &descriptor, 8, keys).unwrap();
            Party { wallet, scripts: Scripts::new(&descriptor).unwrap() }
        });
        let descriptors: Vec<_> = (0..6).map(|n| parties[n / 3].scripts.at(0, u32::try_from(n % 3).unwrap()).unwrap()).collect();
        let rules = SpendRules { allow_foreign_inputs: true, ..SpendRules::default() };
        Self { coins: Coin::imagine(&descriptors, COIN_SAT), parties, rules }
    }

    /// The plan of a wallet's part in it.
    pub fn plan(&self, spend: &Spend, wallet: usize) -> Result<Arc<SpendPlan>, Refusal> {
        let coins: Vec<Coin> = (0..6).filter(|n| spend.coins & (1 << n) != 0).map(|n| self.coins[n].clone()).collect();
        let output = |part: &Part| match part {
            Part::Pay(payee, sat) => Output::Pay(ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([*payee; 20])), *sat),
            Part::Return(to, sat) => Output::Own(Box::new(self.parties[*to].scripts.change(0).unwrap()), *sat),
        };
        let outputs: Vec<Output> = spend.parts().iter().map(output).collect();
        self.analyze(wallet, &self.psbt(&coins, &outputs))
    }

    /// A PSBT of these.
    pub fn psbt(&self, coins: &[Coin], outputs: &[Output]) -> Vec<u8> {
        psbt(coins, outputs).unwrap().serialize()
    }

    /// The plan of a wallet's part in a PSBT.
    pub fn analyze(&self, wallet: usize, psbt: &[u8]) -> Result<Arc<SpendPlan>, Refusal> {
        analyze(&self.parties[wallet].wallet, &self.rules, psbt).map(Arc::new)
    }

    /// One of the six coins.
    pub fn coin(&self, n: usize) -> Coin {
        self.coins[n].clone()
    }

    /// The hot wallet's change address with this number.
    pub fn change(&self, index: u32) -> Descriptor<DefiniteDescriptorKey> {
        self.parties[0].scripts.change(index).unwrap()
    }

    /// The hot wallet's receiving address with this number.
    pub fn receive(&self, index: u32) -> Descriptor<DefiniteDescriptorKey> {
        self.parties[0].scripts.at(0, index).unwrap()
    }

    /// The same for the model: the names and sums are the test's own, not the plan's.
    pub fn transaction(&self, spend: &Spend, wallet: usize, plan: &SpendPlan) -> Transaction {
        let id = plan.transaction().compute_txid().to_byte_array();
        Transaction {
            id: u64::from_be_bytes(id[..8].try_into().unwrap()),
            wallet,
            own: spend.own(wallet),
            foreign: spend.coins & !spend.own(wallet),
            outflow_sat: spend.outflow_sat(wallet),
            fee_sat: spend.fee_sat,
            least_sat: plan.relay_fee_sat(),
        }
    }
}
