//! What could have left, worked out from the returned signatures alone: the signer's own numbers are not believed, and not asked for.
//!
//! A signature counts when it verifies for its input's true amount and script. A transaction counts when all its inputs have one,
//! wherever they came from. Of transactions that spend the same coin one can confirm: the largest outflow that could confirm is the
//! heaviest set of transactions of which no two share a coin, found exactly. It is held against every limit over every stretch of
//! time. Whatever is not known for sure counts for the signer: a charge happened between the first question that might have caused
//! it and the answer that completed it, and time counts with the daemon down.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bitcoin::{
    CompressedPublicKey, EcdsaSighashType, OutPoint, ScriptBuf, TapSighashType, Transaction, TxOut, Txid, XOnlyPublicKey, ecdsa,
    secp256k1::{All, Message, Secp256k1},
    sighash::{Prevouts, SighashCache},
    taproot,
};
use postern_protocol::{refusal::RefusalCode, reply::InputSignature};

/// Transactions of one tangle (each shares a coin with another of it). The attacks make smaller ones, so that all is exact.
const TANGLE_MAX: usize = 32;

/// The signer's own kind of clock (its buckets fill by it): another could run a little slower.
fn clock() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicRaw);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A limit that must hold.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// `signer` or the wallet's name.
    pub(crate) scope: String,
    /// None: all wallets.
    pub(crate) wallet: Option<String>,
    pub(crate) burst_sat: u64,
    pub(crate) amount_sat: u64,
    pub(crate) per_ms: u64,
    /// What may leave in all before any command; None: no total.
    pub(crate) total_sat: Option<u64>,
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Signed(Vec<InputSignature>),
    Refused(RefusalCode),
    /// The connection broke: it may have been charged.
    Lost,
}

/// Everything that was asked and answered.
#[derive(Debug)]
pub(crate) struct Book {
    start: Duration,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    transactions: HashMap<Txid, Known>,
    asks: Vec<Ask>,
    /// When the managers ordered how much more.
    added: Vec<(Duration, u64)>,
}

#[derive(Debug)]
struct Known {
    wallet: String,
    transaction: Transaction,
    /// The true ones.
    spent: Vec<TxOut>,
}

#[derive(Debug)]
struct Ask {
    txid: Txid,
    sent: Duration,
    answered: Duration,
    outcome: Option<Outcome>,
}

/// The result.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Transactions with all signatures.
    pub(crate) complete: usize,
    /// Transactions with some.
    pub(crate) partial: usize,
    /// The most that could confirm of all of it.
    pub(crate) outflow_sat: u64,
    /// The most over any limit, over any stretch of time.
    pub(crate) gained_sat: u64,
    /// How near to a rate's limit it came over some stretch of time: the difference. Small means that the attack was hard enough.
    pub(crate) missed_by_sat: u64,
    /// Which limit that was.
    pub(crate) broken: Vec<String>,
    /// Signatures that leave something open to others (not ALL): none is allowed.
    pub(crate) blank: usize,
    /// Signatures that are none.
    pub(crate) wrong: usize,
    /// The largest tangle.
    pub(crate) tangle: usize,
}

impl Book {
    pub(crate) fn new() -> Self {
        Self { start: clock(), pages: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Duration {
        clock().saturating_sub(self.start)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a question is sent. `spent` is what the transaction spends in truth, whatever the question says.
    pub(crate) fn ask(&self, wallet: &str, transaction: &Transaction, spent: &[TxOut]) -> usize {
        let mut pages = self.pages();
        let txid = transaction.compute_txid();
        let known = || Known { wallet: wallet.into(), transaction: transaction.clone(), spent: spent.to_vec() };
        pages.transactions.entry(txid).or_insert_with(known);
        let sent = self.now();
        pages.asks.push(Ask { txid, sent, answered: sent, outcome: None });
        pages.asks.len() - 1
    }

    /// After its answer.
    pub(crate) fn answer(&self, ask: usize, outcome: Outcome) {
        let answered = self.now();
        if let Some(ask) = self.pages().asks.get_mut(ask) {
            (ask.answered, ask.outcome) = (answered, Some(outcome));
        }
    }

    /// Before the managers' command is sent.
    pub(crate) fn add_total(&self, sat: u64) {
        let now = self.now();
        self.pages().added.push((now, sat));
    }

    /// Works it all out. `own` are the wallets' scripts: what comes back does not leave.
    pub(crate) fn settle(&self, bounds: &[Bound], own: &HashSet<ScriptBuf>) -> Result<Account> {
        let pages = self.pages();
        let mut account = Account { missed_by_sat: u64::MAX, ..Account::default() };
        let spends = pages.spends(own, &mut account)?;
        for bound in bounds {
            let of: Vec<&Spend> = spends.iter().filter(|s| bound.wallet.as_ref().is_none_or(|wallet| *wallet == s.wallet)).collect();
            let added: &[(Duration, u64)] = if bound.wallet.is_none() { &pages.added } else { &[] };
            let held = held_against(&of, bound, added)?;
            account.tangle = account.tangle.max(held.tangle);
            account.missed_by_sat = account.missed_by_sat.min(u64::try_from(-held.over_rate_sat).unwrap_or(0));
            if bound.wallet.is_none() {
                account.outflow_sat = held.outflow_sat;
            }
            for (what, over_sat) in [("rate", held.over_rate_sat), ("total", held.over_total_sat)] {
                let over_sat = u64::try_from(over_sat).unwrap_or(0);
                if over_sat > 0 {
                    account.broken.push(format!("{} of {}: {over_sat} sat over it", what, bound.scope));
                    account.gained_sat = account.gained_sat.max(over_sat);
                }
            }
        }
        Ok(account)
    }
}

/// A transaction that can be sent.
#[derive(Debug)]
struct Spend {
    wallet: String,
    coins: Vec<OutPoint>,
    outflow_sat: u64,
    /// Not charged before.
    from: Duration,
    /// Not charged after.
    until: Duration,
}

impl Pages {
    fn spends(&self, own: &HashSet<ScriptBuf>, account: &mut Account) -> Result<Vec<Spend>> {
        let secp = Secp256k1::new();
        let mut asks: HashMap<Txid, Vec<&Ask>> = HashMap::new();
        self.asks.iter().for_each(|ask| asks.entry(ask.txid).or_default().push(ask));
        let mut spends = vec![];
        for (txid, known) in &self.transactions {
            let mut signed: Vec<Option<Duration>> = vec![None; known.spent.len()];
            let mut from = Duration::MAX;
            for ask in asks.get(txid).into_iter().flatten() {
                match &ask.outcome {
                    Some(Outcome::Refused(code)) if !charged_all_the_same(*code) => continue,
                    Some(Outcome::Signed(signatures)) => {
                        for signature in signatures {
                            match known.judge(&secp, signature) {
                                Verdict::Good => {
                                    let place = signed.get_mut(signature.input as usize).context("an input that is not there")?;
                                    *place = Some(place.map_or(ask.answered, |earlier| earlier.min(ask.answered)));
                                }
                                Verdict::Blank => account.blank += 1,
                                Verdict::Wrong => account.wrong += 1,
                            }
                        }
                    }
                    _ => {}
                }
                from = from.min(ask.sent);
            }
            let Some(until) = signed.iter().copied().try_fold(Duration::ZERO, |last, time| Some(last.max(time?))) else {
                account.partial += usize::from(signed.iter().any(Option::is_some));
                continue;
            };
            let back = |o: &&TxOut| own.contains(&o.script_pubkey);
            let sum = |outputs: &mut dyn Iterator<Item = &TxOut>| outputs.map(|o| o.value.to_sat()).sum::<u64>();
            let (spent, back) = (sum(&mut known.spent.iter()), sum(&mut known.transaction.output.iter().filter(back)));
            spends.push(Spend {
                wallet: known.wallet.clone(),
                coins: known.transaction.input.iter().map(|i| i.previous_output).collect(),
                outflow_sat: spent.saturating_sub(back),
                from,
                until,
            });
        }
        account.complete = spends.len();
        Ok(spends)
    }
}

/// Refusals that come after the charge.
fn charged_all_the_same(code: RefusalCode) -> bool {
    use RefusalCode::{KeyMismatch, KeyMissing, KeystorePin, KeystoreUnavailable, LedgerUnavailable, ShuttingDown};
    matches!(code, KeystoreUnavailable | KeystorePin | KeyMismatch | KeyMissing | LedgerUnavailable | ShuttingDown)
}

enum Verdict {
    Good,
    Blank,
    Wrong,
}

impl Known {
    fn judge(&self, secp: &Secp256k1<All>, signature: &InputSignature) -> Verdict {
        match self.commits_to_all(secp, signature) {
            Some(true) => Verdict::Good,
            Some(false) => Verdict::Blank,
            None => Verdict::Wrong,
        }
    }

    /// None: it does not verify. False: it does, and leaves something open.
    fn commits_to_all(&self, secp: &Secp256k1<All>, signature: &InputSignature) -> Option<bool> {
        let index = signature.input as usize;
        let spent = self.spent.get(index)?;
        let mut cache = SighashCache::new(&self.transaction);
        if spent.script_pubkey.is_p2tr() {
            let made = taproot::Signature::from_slice(&signature.signature).ok()?;
            let key = XOnlyPublicKey::from_slice(spent.script_pubkey.as_bytes().get(2..)?).ok()?;
            let digest = cache.taproot_key_spend_signature_hash(index, &Prevouts::All(&self.spent), made.sighash_type).ok()?;
            secp.verify_schnorr(&made.signature, &Message::from(digest), &key).ok()?;
            return Some(matches!(made.sighash_type, TapSighashType::Default | TapSighashType::All));
        }
        let key = CompressedPublicKey::from_slice(&signature.public_key).ok()?;
        if ScriptBuf::new_p2wpkh(&key.wpubkey_hash()) != spent.script_pubkey {
            return None;
        }
        let made = ecdsa::Signature::from_slice(&signature.signature).ok()?;
        let digest = cache.p2wpkh_signature_hash(index, &spent.script_pubkey, spent.value, made.sighash_type).ok()?;
        secp.verify_ecdsa(&Message::from(digest), &made.signature, &key.0).ok()?;
        Some(made.sighash_type == EcdsaSighashType::All)
    }
}

/// The heaviest confirmable outflow as transactions come, one after the other.
#[derive(Debug, Default)]
struct Tangles {
    /// Of each coin, the tangle.
    of: HashMap<OutPoint, usize>,
    tangles: Vec<Vec<usize>>,
    weight: Vec<u64>,
    sum_sat: u64,
    largest: usize,
}

impl Tangles {
    /// One more; the most that could confirm then.
    fn add(&mut self, spends: &[&Spend], new: usize) -> Result<u64> {
        let spend = spends.get(new).context("no such transaction")?;
        let mut joined: Vec<usize> = spend.coins.iter().filter_map(|coin| self.of.get(coin).copied()).collect();
        joined.sort_unstable();
        joined.dedup();
        let mut members = vec![new];
        for old in joined {
            members.append(&mut self.tangles[old]);
            self.sum_sat -= std::mem::take(&mut self.weight[old]);
        }
        ensure!(members.len() <= TANGLE_MAX, "{} transactions in one tangle cannot be reckoned exactly", members.len());
        self.largest = self.largest.max(members.len());
        let place = self.tangles.len();
        for member in &members {
            for coin in &spends[*member].coins {
                self.of.insert(*coin, place);
            }
        }
        let heaviest = heaviest(spends, &members);
        self.sum_sat += heaviest;
        self.tangles.push(members);
        self.weight.push(heaviest);
        Ok(self.sum_sat)
    }
}

/// The heaviest set of which no two share a coin, by trying all that could be it.
fn heaviest(spends: &[&Spend], members: &[usize]) -> u64 {
    let conflicts: Vec<u32> = members
        .iter()
        .map(|a| {
            let shares = |b: &usize| spends[*a].coins.iter().any(|coin| spends[*b].coins.contains(coin));
            members.iter().enumerate().filter(|(_, b)| shares(b)).fold(0, |mask, (place, _)| mask | 1 << place)
        })
        .collect();
    let weights: Vec<u64> = members.iter().map(|m| spends[*m].outflow_sat).collect();
    fn best(left: u32, conflicts: &[u32], weights: &[u64], so_far: u64, record: &mut u64) {
        let hope: u64 = weights.iter().enumerate().filter(|(place, _)| left & (1 << place) != 0).map(|(_, weight)| weight).sum();
        *record = (*record).max(so_far);
        if left == 0 || so_far + hope <= *record {
            return;
        }
        let first = left.trailing_zeros() as usize;
        best(left & !conflicts[first], conflicts, weights, so_far + weights[first], record);
        best(left & !(1 << first), conflicts, weights, so_far, record);
    }
    let mut record = 0;
    let all = if members.len() == 32 { u32::MAX } else { (1 << members.len()) - 1 };
    best(all, &conflicts, &weights, 0, &mut record);
    record
}

/// Transactions held against a limit.
struct Held {
    outflow_sat: u64,
    /// Below zero: under it.
    over_rate_sat: i128,
    over_total_sat: i128,
    tangle: usize,
}

fn held_against(spends: &[&Spend], bound: &Bound, added: &[(Duration, u64)]) -> Result<Held> {
    let order = |time: fn(&Spend) -> Duration| {
        let mut order: Vec<usize> = (0..spends.len()).collect();
        order.sort_by_key(|place| time(spends[*place]));
        order
    };
    let (starts, ends) = (order(|s| s.from), order(|s| s.until));
    // Everything times the period, in microseconds: whole numbers, exact.
    let per_us = i128::from(bound.per_ms) * 1_000;
    let flowed = |time: Duration| i128::from(bound.amount_sat) * i128::try_from(time.as_micros()).unwrap_or(i128::MAX);
    let (mut before, mut after) = (Tangles::default(), Tangles::default());
    let (mut starts, mut lowest, mut charged_before) = (starts.into_iter().peekable(), i128::MAX, 0_u64);
    let (mut rate_over, mut total_over, mut outflow_sat) = (-i128::from(bound.burst_sat) * per_us, i128::MIN, 0_u64);
    for end in ends {
        let until = spends[end].until;
        // Every stretch that ends here begins just before some transaction may have been charged.
        while let Some(start) = starts.next_if(|start| spends[*start].from <= until) {
            lowest = lowest.min(i128::from(charged_before) * per_us - flowed(spends[start].from));
            charged_before = before.add(spends, start)?;
        }
        outflow_sat = after.add(spends, end)?;
        let grown = i128::from(outflow_sat) * per_us - flowed(until) - lowest;
        rate_over = rate_over.max(grown - i128::from(bound.burst_sat) * per_us);
        if let Some(total) = bound.total_sat {
            let more: u64 = added.iter().filter(|(at, _)| *at <= until).map(|(_, sat)| sat).sum();
            total_over = total_over.max(i128::from(outflow_sat) - i128::from(total + more));
        }
    }
    // A part of a satoshi over is over.
    let over_rate_sat = (rate_over + per_us - 1).div_euclid(per_us);
    Ok(Held { outflow_sat, over_rate_sat, over_total_sat: total_over, tangle: after.largest })
}

#[cfg(test)]
mod tests;
