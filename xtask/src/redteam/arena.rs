//! Where the attackers meet the signer: its socket, the wallets' scripts, and the books.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Result;
use bitcoin::{Psbt, ScriptBuf, Transaction, TxOut};
use miniscript::{DefiniteDescriptorKey, Descriptor};
use postern_protocol::{
    refusal::RefusalCode,
    reply::{Reply, ReplyBody},
    request::{RequestBody, SignRequest},
};
use postern_testkit::{
    SignerSocket, Vault,
    spend::{self, Coin, Output},
};
use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};

use super::{
    account::{Book, Outcome},
    tally::{Kind, Tally},
};

/// Addresses of each branch that are used.
const ADDRESSES: u32 = 24;
/// Past every gap.
const FAR: u32 = 5_000;

/// A wallet's scripts.
#[derive(Debug)]
pub(crate) struct Purse {
    pub(crate) name: String,
    receive: Vec<Descriptor<DefiniteDescriptorKey>>,
    change: Vec<Descriptor<DefiniteDescriptorKey>>,
    /// None for a wallet of one script.
    pub(crate) far: Option<Descriptor<DefiniteDescriptorKey>>,
}

impl Purse {
    fn new(vault: &Vault, name: &str) -> Result<Self> {
        let scripts = vault.scripts(name)?;
        let ranged = scripts.branches() > 1;
        let count = if ranged { ADDRESSES } else { 1 };
        let branch = |branch| (0..count).map(|index| vault.at(name, branch, index)).collect::<Result<Vec<_>>>();
        let far = if ranged { Some(vault.at(name, 1, FAR)?) } else { None };
        Ok(Self { name: name.into(), receive: branch(0)?, change: branch(1)?, far })
    }

    /// New coins of this value, all of one transaction.
    pub(crate) fn coins(&self, rng: &mut StdRng, count: usize, sat: u64) -> Vec<Coin> {
        let descriptors: Vec<_> = (0..count).filter_map(|_| self.receive.choose(rng).cloned()).collect();
        Coin::imagine(&descriptors, sat)
    }

    /// Change of this value.
    pub(crate) fn back(&self, rng: &mut StdRng, sat: u64) -> Option<Output> {
        self.change.choose(rng).map(|descriptor| Output::Own(Box::new(descriptor.clone()), sat))
    }

    fn scripts(&self) -> impl Iterator<Item = ScriptBuf> {
        self.receive.iter().chain(&self.change).map(Descriptor::script_pubkey)
    }
}

/// What all attackers share.
#[derive(Debug)]
pub(crate) struct Arena {
    socket: PathBuf,
    pub(crate) purses: Vec<Purse>,
    pub(crate) book: Book,
    pub(crate) tally: Tally,
    /// Commands that took effect, to be sent again.
    pub(crate) used: Mutex<Vec<Vec<u8>>>,
    pub(crate) over: AtomicBool,
    /// The total is used up.
    pub(crate) hungry: AtomicBool,
}

impl Arena {
    pub(crate) fn new(vault: &Vault) -> Result<Self> {
        let names: Vec<String> = vault.planned_wallets().map(str::to_owned).collect();
        Ok(Self {
            socket: vault.socket().into(),
            purses: names.iter().map(|name| Purse::new(vault, name)).collect::<Result<_>>()?,
            book: Book::new(),
            tally: Tally::default(),
            used: Mutex::default(),
            over: AtomicBool::new(false),
            hungry: AtomicBool::new(false),
        })
    }

    pub(crate) fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The scripts of all wallets: what goes there has not left.
    pub(crate) fn own(&self) -> HashSet<ScriptBuf> {
        self.purses.iter().flat_map(Purse::scripts).collect()
    }

    pub(crate) fn purse(&self, rng: &mut StdRng) -> &Purse {
        let place = rng.gen_range(0..self.purses.len());
        &self.purses[place]
    }

    /// A connection; fails while the signer is down.
    pub(crate) fn connect(&self) -> Result<SignerSocket> {
        SignerSocket::connect(&self.socket)
    }

    /// Asks for signatures, and enters question and answer. Fails when the connection broke, which is entered as well.
    pub(crate) fn ask(&self, socket: &mut SignerSocket, kind: Kind, wallet: &str, demand: &Demand) -> Result<Outcome> {
        let entry = self.book.ask(wallet, &demand.transaction, &demand.spent);
        let request = SignRequest { wallet: wallet.into(), psbt: demand.bytes.clone() };
        // What has not the question's number is to the connection: there are too many.
        let outcome = match socket.send(RequestBody::Sign(request)).and_then(|_| socket.receive()) {
            Ok(reply) => outcome(reply),
            Err(error) => {
                self.enter(entry, kind, Outcome::Lost);
                return Err(error);
            }
        };
        Ok(self.enter(entry, kind, outcome))
    }

    /// The answer to a question that was entered before.
    pub(crate) fn enter(&self, entry: usize, kind: Kind, outcome: Outcome) -> Outcome {
        match &outcome {
            Outcome::Signed(_) => self.tally.count(kind, "signed"),
            Outcome::Refused(code) => {
                if *code == RefusalCode::TotalReached {
                    self.hungry.store(true, Ordering::Relaxed);
                }
                self.tally.refused(kind, *code);
            }
            Outcome::Lost => self.tally.count(kind, "lost"),
        }
        self.book.answer(entry, outcome.clone());
        outcome
    }
}

/// What a reply is to a question.
pub(crate) fn outcome(reply: Reply) -> Outcome {
    match reply.body {
        ReplyBody::Signed(signed) => Outcome::Signed(signed.signatures),
        ReplyBody::Refused(refusal) => Outcome::Refused(refusal.code),
        _ => Outcome::Lost,
    }
}

/// Bytes to send, and what is true of them.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    pub(crate) bytes: Vec<u8>,
    pub(crate) transaction: Transaction,
    pub(crate) spent: Vec<TxOut>,
}

impl Demand {
    /// An honest one.
    pub(crate) fn new(coins: &[Coin], outputs: &[Output]) -> Result<Self> {
        Self::lying(coins, outputs, |_| ())
    }

    /// One whose PSBT was tampered with; the coins' truth stays.
    pub(crate) fn lying(coins: &[Coin], outputs: &[Output], tamper: impl FnOnce(&mut Psbt)) -> Result<Self> {
        let mut psbt = spend::psbt(coins, outputs)?;
        tamper(&mut psbt);
        let truth = |coin: &Coin| TxOut { value: coin.value(), script_pubkey: coin.descriptor.script_pubkey() };
        Ok(Self { bytes: psbt.serialize(), transaction: psbt.unsigned_tx, spent: coins.iter().map(truth).collect() })
    }
}
