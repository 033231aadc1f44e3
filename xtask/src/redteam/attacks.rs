//! What a coordinator and its link can send: everything. Each attack works on coins of its own, so that what conflicts with what
//! stays small enough to be reckoned exactly.

use std::{sync::PoisonError, thread, time::Duration};

use anyhow::{Context as _, Result};
use bitcoin::{
    Amount, EcdsaSighashType, ScriptBuf, TapSighashType, Transaction, TxOut, VarInt, WPubkeyHash, consensus::encode, hashes::Hash as _,
    psbt::PsbtSighashType,
};
use postern_protocol::{
    PROTOCOL_VERSION, canonical, frame,
    request::{Request, RequestBody, SignRequest},
};
use postern_testkit::{
    SignerSocket,
    spend::{Coin, Output},
};
use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use super::{
    BURST_SAT,
    account::Outcome,
    arena::{Arena, Demand, outcome},
    tally::Kind,
};

type Act = fn(&Arena, &mut SignerSocket, &mut StdRng, Kind) -> Result<()>;

const fn kind(name: &'static str, expected: &'static [&'static str]) -> Kind {
    Kind { name, expected, never: false }
}

const fn never(name: &'static str, expected: &'static [&'static str]) -> Kind {
    Kind { name, expected, never: true }
}

const SIGNED: &[&str] = &["signed"];
const FULL: &[&str] = &["refused.rate_wait", "refused.total_reached"];

/// What a customer's payment is, in the middle of all this.
pub(crate) const PAY: Kind = kind("an honest payment", SIGNED);

/// All attacks through the socket, and how often each is chosen.
pub(crate) const ATTACKS: &[(Kind, u32, Act)] = &[
    (kind("take as much as there is", FULL), 8, drain),
    (kind("burn it as fees", SIGNED), 3, burn),
    (never("more than a burst", &["refused.rate_burst"]), 2, burst),
    (never("lie about an amount", &["refused.amount_conflict"]), 3, lie),
    (never("split a lie over two requests", &["refused.prevtx_missing", "refused.amount_conflict"]), 3, split),
    (never("no proof of an amount", &["refused.prevtx_missing"]), 2, unproven),
    (never("another transaction as the proof", &["refused.prevtx_mismatch"]), 2, misproven),
    (never("change that is not ours", &["refused.change_claim_false"]), 3, false_change),
    (never("change out of reach", &["refused.change_beyond_gap"]), 2, far_change),
    (never("a blank sighash", &["refused.sighash_forbidden"]), 3, blank),
    (never("another wallet's coin", &["refused.foreign_input"]), 2, foreign),
    (never("a wallet that is not there", &["refused.wallet_unknown"]), 1, unknown),
    (kind("bump a fee again and again", SIGNED), 4, bump),
    (kind("a chain that shares coins and does not conflict", SIGNED), 4, chain),
    (kind("spend the change of what is in no block", SIGNED), 3, descend),
    (kind("ask again", SIGNED), 3, replay),
    (kind("ask the same many times at once", SIGNED), 2, parallel),
    (kind("spend one coin many times at once", SIGNED), 2, double_spend),
    (kind("flood one connection", &["refused.busy"]), 1, flood),
    (kind("flood with connections", &["refused.busy", "turned away"]), 1, crowd),
    (kind("flip bits of a payment", &["refused.psbt_malformed"]), 3, flip),
    (kind("rubbish", &["refused.frame_malformed", "refused.psbt_malformed"]), 3, rubbish),
    (kind("hang up in the middle", &["hung up"]), 2, hang_up),
    (never("a used command", &["refused.command_serial_used"]), 2, replay_command),
    (never("rubbish for a command", &["refused.command_malformed"]), 1, rubbish_command),
];

/// Attacks until it is over.
pub(crate) fn attack(arena: &Arena, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut socket = None;
    while !arena.over() {
        let Some(open) = socket.as_mut() else {
            socket = arena.connect().ok();
            if socket.is_none() {
                thread::sleep(Duration::from_millis(10));
            }
            continue;
        };
        let Ok((kind, _, act)) = ATTACKS.choose_weighted(&mut rng, |(_, weight, _)| *weight) else { return };
        // The signer was killed, or ended a connection that it had enough of.
        if act(arena, open, &mut rng, *kind).is_err() {
            socket = None;
        }
    }
}

/// Pays until it is over, as a coordinator that is not lost would: a payment that has to wait is asked for again.
pub(crate) fn pay(arena: &Arena, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut waiting = None;
    while !arena.over() {
        thread::sleep(Duration::from_millis(20));
        let Ok(mut socket) = arena.connect() else { continue };
        if waiting.is_none() {
            let purse = arena.purse(&mut rng);
            let outflow_sat = rng.gen_range(5_000..20_000);
            waiting = payment(arena, &mut rng, 100_000, outflow_sat, &purse.name).ok().map(|demand| (purse.name.clone(), demand));
        }
        if let Some((wallet, demand)) = &waiting
            && let Ok(Outcome::Signed(_)) = arena.ask(&mut socket, PAY, wallet, demand)
        {
            waiting = None;
        }
    }
}

// What goes out.

fn thief(rng: &mut StdRng) -> ScriptBuf {
    let mut hash = [0; 20];
    rng.fill_bytes(&mut hash);
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(hash))
}

/// To the thief and the rest back, `outflow_sat` in all with a fee of at least 500.
fn outputs(arena: &Arena, rng: &mut StdRng, wallet: &str, value_sat: u64, outflow_sat: u64) -> Result<Vec<Output>> {
    let purse = arena.purses.iter().find(|purse| purse.name == wallet).context("no such wallet")?;
    let mut outputs = vec![Output::Pay(thief(rng), outflow_sat.saturating_sub(500).max(1_000))];
    let rest = value_sat.saturating_sub(outflow_sat);
    if rest > 1_000 {
        outputs.extend(purse.back(rng, rest));
    }
    Ok(outputs)
}

fn from_coins(arena: &Arena, rng: &mut StdRng, wallet: &str, coins: &[Coin], outflow_sat: u64) -> Result<Demand> {
    let value_sat = coins.iter().map(|coin| coin.value().to_sat()).sum();
    Demand::new(coins, &outputs(arena, rng, wallet, value_sat, outflow_sat)?)
}

fn payment(arena: &Arena, rng: &mut StdRng, coin_sat: u64, outflow_sat: u64, wallet: &str) -> Result<Demand> {
    let purse = arena.purses.iter().find(|purse| purse.name == wallet).context("no such wallet")?;
    let coins = purse.coins(rng, 1, coin_sat);
    from_coins(arena, rng, wallet, &coins, outflow_sat)
}

// The attacks.

fn drain(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let most = BURST_SAT >> rng.gen_range(0..8);
    let count = rng.gen_range(1..4);
    let coins = purse.coins(rng, count, BURST_SAT);
    let outflow_sat = rng.gen_range(most / 2..=most).max(2_000);
    let demand = from_coins(arena, rng, &purse.name, &coins, outflow_sat)?;
    arena.ask(socket, kind, &purse.name, &demand).map(drop)
}

fn burn(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let coins = purse.coins(rng, 1, BURST_SAT / 50);
    let demand = Demand::new(&coins, &[Output::Pay(thief(rng), 1_000)])?;
    arena.ask(socket, kind, &purse.name, &demand).map(drop)
}

fn burst(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let outflow_sat = BURST_SAT + rng.gen_range(1..BURST_SAT);
    let demand = payment(arena, rng, 3 * BURST_SAT, outflow_sat, &purse.name)?;
    arena.ask(socket, kind, &purse.name, &demand).map(drop)
}

fn lie(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let coins = purse.coins(rng, 2, 500_000);
    let to = outputs(arena, rng, &purse.name, 1_000_000, 20_000)?;
    let (place, less) = (rng.gen_range(0..2), rng.gen_bool(0.5));
    let demand = Demand::lying(&coins, &to, |psbt| {
        let claimed = psbt.inputs.get_mut(place).and_then(|input| input.witness_utxo.as_mut());
        if let Some(claimed) = claimed {
            claimed.value = Amount::from_sat(if less { 20_000 } else { 5_000_000 });
        }
    })?;
    arena.ask(socket, kind, &purse.name, &demand).map(drop)
}

/// BIP 143 commits a signature to its own input's amount only: two requests that each tell the truth about one input and make the
/// other small would give two signatures of a transaction that burns the difference.
fn split(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purses.first().context("no wallet")?;
    let coins = purse.coins(rng, 2, BURST_SAT);
    let to = [Output::Pay(thief(rng), BURST_SAT)];
    let with_proof = rng.gen_bool(0.5);
    for lied in 0..2 {
        let demand = Demand::lying(&coins, &to, |psbt| {
            if let Some(input) = psbt.inputs.get_mut(lied) {
                if let Some(claimed) = input.witness_utxo.as_mut() {
                    claimed.value = Amount::from_sat(10_000);
                }
                if !with_proof {
                    input.non_witness_utxo = None;
                }
            }
        })?;
        arena.ask(socket, kind, &purse.name, &demand)?;
    }
    Ok(())
}

fn unproven(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purses.first().context("no wallet")?;
    let coins = purse.coins(rng, 2, 500_000);
    let to = outputs(arena, rng, &purse.name, 1_000_000, 20_000)?;
    let demand = Demand::lying(&coins, &to, |psbt| psbt.inputs.iter_mut().for_each(|input| input.non_witness_utxo = None))?;
    arena.ask(socket, kind, &purse.name, &demand).map(drop)
}

fn misproven(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let coins = purse.coins(rng, 1, 500_000);
    let other = purse.coins(rng, 1, 30_000);
    let to = outputs(arena, rng, &purse.name, 500_000, 20_000)?;
    let demand = Demand::lying(&coins, &to, |psbt| {
        for (input, other) in psbt.inputs.iter_mut().zip(&other) {
            input.non_witness_utxo = Some(other.transaction.clone());
        }
    })?;
    arena.ask(socket, kind, &purse.name, &demand).map(drop)
}

fn false_change(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let coins = purse.coins(rng, 1, BURST_SAT);
    let to = outputs(arena, rng, &purse.name, BURST_SAT, 20_000)?;
    let mine = thief(rng);
    let demand = Demand::lying(&coins, &to, |psbt| {
        // The fields say that it is ours; the script is the thief's.
        if let Some(change) = psbt.unsigned_tx.output.last_mut() {
            change.script_pubkey = mine;
        }
    })?;
    arena.ask(socket, kind, &purse.name, &demand).map(drop)
}

fn far_change(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let Some(purse) = arena.purses.iter().find(|purse| purse.far.is_some()) else { return Ok(()) };
    let coins = purse.coins(rng, 1, BURST_SAT);
    let far = purse.far.clone().context("no branch")?;
    let demand = Demand::new(&coins, &[Output::Pay(thief(rng), 20_000), Output::Own(Box::new(far), BURST_SAT - 30_000)])?;
    arena.ask(socket, kind, &purse.name, &demand).map(drop)
}

fn blank(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let coins = purse.coins(rng, 1, 500_000);
    let to = outputs(arena, rng, &purse.name, 500_000, 20_000)?;
    let wanted: PsbtSighashType = match rng.gen_range(0..4) {
        0 => EcdsaSighashType::None.into(),
        1 => EcdsaSighashType::Single.into(),
        2 => EcdsaSighashType::AllPlusAnyoneCanPay.into(),
        _ => TapSighashType::NonePlusAnyoneCanPay.into(),
    };
    let demand = Demand::lying(&coins, &to, |psbt| psbt.inputs.iter_mut().for_each(|input| input.sighash_type = Some(wanted)))?;
    arena.ask(socket, kind, &purse.name, &demand).map(drop)
}

fn foreign(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let (Some(one), Some(other)) = (arena.purses.first(), arena.purses.get(1)) else { return Ok(()) };
    let mut coins = one.coins(rng, 1, 500_000);
    coins.extend(other.coins(rng, 1, 500_000));
    let demand = from_coins(arena, rng, &one.name, &coins, 20_000)?;
    arena.ask(socket, kind, &one.name, &demand).map(drop)
}

fn unknown(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let demand = payment(arena, rng, 500_000, 20_000, &purse.name)?;
    arena.ask(socket, kind, "not-there", &demand).map(drop)
}

/// Each more expensive than the one before, some with one more coin: a family, until one of them is somewhere else.
fn bump(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let all = purse.coins(rng, 4, 500_000);
    let (mut outflow_sat, mut count) = (rng.gen_range(5_000..40_000), rng.gen_range(1..3));
    for _ in 0..rng.gen_range(2..7) {
        let mut coins: Vec<Coin> = all.iter().take(count).cloned().collect();
        coins.shuffle(rng);
        let demand = from_coins(arena, rng, &purse.name, &coins, outflow_sat)?;
        arena.ask(socket, kind, &purse.name, &demand)?;
        outflow_sat = match rng.gen_range(0..4) {
            // Back below what was charged before: free, and it must be.
            0 => outflow_sat / 2 + 2_000,
            _ => outflow_sat + rng.gen_range(500..30_000),
        };
        count = (count + usize::from(rng.gen_bool(0.3))).min(all.len());
    }
    Ok(())
}

/// Payments of the coins (1, 2), (2, 3), (3, 4), 1, 4 …: neighbours exclude each other, and the rest can confirm together.
fn chain(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let all = purse.coins(rng, 5, 200_000);
    let mut links: Vec<&[usize]> = vec![&[0, 1], &[1, 2], &[2, 3], &[3, 4], &[0], &[2], &[4], &[0, 1, 2], &[1, 3]];
    links.shuffle(rng);
    for link in links.iter().take(rng.gen_range(3..9)) {
        let coins: Vec<Coin> = link.iter().filter_map(|place| all.get(*place).cloned()).collect();
        let outflow_sat = rng.gen_range(5_000..60_000);
        let demand = from_coins(arena, rng, &purse.name, &coins, outflow_sat)?;
        arena.ask(socket, kind, &purse.name, &demand)?;
    }
    Ok(())
}

/// A payment, then one from its change, then one from that one's.
fn descend(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let mut coins = purse.coins(rng, 1, 500_000);
    for _ in 0..rng.gen_range(2..5) {
        let value_sat: u64 = coins.iter().map(|coin| coin.value().to_sat()).sum();
        let to = outputs(arena, rng, &purse.name, value_sat, 20_000)?;
        let demand = Demand::new(&coins, &to)?;
        arena.ask(socket, kind, &purse.name, &demand)?;
        let Some(Output::Own(change, _)) = to.last() else { return Ok(()) };
        coins = vec![Coin::new(&demand.transaction, 1, change.as_ref().clone())];
    }
    Ok(())
}

fn replay(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let demand = payment(arena, rng, 100_000, 12_000, &purse.name)?;
    for _ in 0..3 {
        arena.ask(socket, kind, &purse.name, &demand)?;
    }
    Ok(())
}

/// At once, on connections of their own.
fn together(arena: &Arena, kind: Kind, wallet: &str, demands: &[Demand]) {
    thread::scope(|scope| {
        for demand in demands {
            scope.spawn(move || arena.connect().and_then(|mut socket| arena.ask(&mut socket, kind, wallet, demand)));
        }
    });
}

fn parallel(arena: &Arena, _: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let demand = payment(arena, rng, 100_000, 12_000, &purse.name)?;
    together(arena, kind, &purse.name, &vec![demand; 6]);
    Ok(())
}

fn double_spend(arena: &Arena, _: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let coins = purse.coins(rng, 1, 200_000);
    let demands = (0..6).map(|n| from_coins(arena, rng, &purse.name, &coins, 10_000 + n * 3_000)).collect::<Result<Vec<_>>>()?;
    together(arena, kind, &purse.name, &demands);
    Ok(())
}

/// More requests on one connection than it may have under way, without reading.
fn flood(arena: &Arena, _: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let demand = payment(arena, rng, 100_000, 6_000, &purse.name)?;
    let mut socket = arena.connect()?;
    let entries: Vec<usize> = (0..600).map(|_| arena.book.ask(&purse.name, &demand.transaction, &demand.spent)).collect();
    for _ in &entries {
        let request = SignRequest { wallet: purse.name.clone(), psbt: demand.bytes.clone() };
        if socket.send(RequestBody::Sign(request)).is_err() {
            break;
        }
    }
    for entry in entries {
        let Ok(reply) = socket.receive() else { break };
        arena.enter(entry, kind, outcome(reply));
    }
    Ok(())
}

/// More connections than there may be.
fn crowd(arena: &Arena, _: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let demand = payment(arena, rng, 100_000, 6_000, &purse.name)?;
    let mut sockets: Vec<SignerSocket> = (0..80).filter_map(|_| arena.connect().ok()).collect();
    for socket in &mut sockets {
        let entry = arena.book.ask(&purse.name, &demand.transaction, &demand.spent);
        let request = SignRequest { wallet: purse.name.clone(), psbt: demand.bytes.clone() };
        match socket.send(RequestBody::Sign(request)).and_then(|_| socket.receive()) {
            Ok(reply) => drop(arena.enter(entry, kind, outcome(reply))),
            Err(_) => arena.tally.count(kind, "turned away"),
        }
    }
    Ok(())
}

/// What is signed of it is signed for what the bytes say then.
fn flip(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let mut demand = payment(arena, rng, 100_000, 12_000, &purse.name)?;
    let before = demand.bytes.clone();
    for _ in 0..rng.gen_range(1..4) {
        let (place, bit) = (rng.gen_range(0..demand.bytes.len()), rng.gen_range(0..8));
        if let Some(byte) = demand.bytes.get_mut(place) {
            *byte ^= 1 << bit;
        }
    }
    let old: Vec<_> = demand.transaction.input.iter().map(|input| input.previous_output).collect();
    let same = |transaction: &Transaction| transaction.input.iter().map(|input| input.previous_output).eq(old);
    // Not by a reader of PSBTs: what it refuses, the signer may read.
    if let Some(transaction) = unsigned(&demand.bytes).filter(same) {
        demand.transaction = transaction;
        // A Taproot signature commits to the amounts (BIP 341), so none is proven to the signer. Over a false one it is charged as that,
        // and good for a coin that is not there.
        demand.spent.iter_mut().filter(|coin| coin.script_pubkey.is_p2tr()).for_each(|coin| claim(coin, &before, &demand.bytes));
        return arena.ask(socket, kind, &purse.name, &demand).map(drop);
    }
    // It spends a coin that is nobody's, or says nothing; no answer is worth anything.
    match socket.sign(&purse.name, &demand.bytes)? {
        Ok(_) => arena.tally.count(kind, "signed for a coin that is not there"),
        Err(refusal) => arena.tally.refused(kind, refusal.code),
    }
    Ok(())
}

/// Sets a coin's amount to what the flipped bytes say of it, at the last place where the ones before spoke of it (`witness_utxo`).
fn claim(coin: &mut TxOut, before: &[u8], flipped: &[u8]) {
    let words = encode::serialize(coin);
    let place = before.windows(words.len()).rposition(|window| window == words);
    let amount = place.and_then(|place| flipped.get(place..)?.first_chunk());
    if let Some(amount) = amount {
        coin.value = Amount::from_sat(u64::from_le_bytes(*amount));
    }
}

/// The transaction of a PSBT: the value of the key 0 in its first map (BIP 174).
fn unsigned(psbt: &[u8]) -> Option<Transaction> {
    fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (VarInt(length), used) = encode::deserialize_partial(rest).ok()?;
        let (head, tail) = rest.get(used..)?.split_at_checked(usize::try_from(length).ok()?)?;
        *rest = tail;
        Some(head)
    }
    let mut rest = psbt.strip_prefix(b"psbt\xff")?;
    loop {
        let key = part(&mut rest).filter(|key| !key.is_empty())?;
        let value = part(&mut rest)?;
        if key == [0] {
            return encode::deserialize(value).ok();
        }
    }
}

fn rubbish(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let mut bytes = vec![0; rng.gen_range(0..4_000)];
    rng.fill_bytes(&mut bytes);
    let reply = if rng.gen_bool(0.5) {
        socket.send_bytes(&bytes)?;
        socket.receive()?
    } else {
        let wallet = arena.purse(rng).name.clone();
        let psbt = [b"psbt\xff".as_slice(), &bytes].concat();
        socket.send(RequestBody::Sign(SignRequest { wallet, psbt }))?;
        socket.receive()?
    };
    match outcome(reply) {
        Outcome::Refused(code) => arena.tally.refused(kind, code),
        Outcome::Signed(_) => arena.tally.count(kind, "signed"),
        Outcome::Lost => arena.tally.count(kind, "lost"),
    }
    Ok(())
}

/// After a part of the frame, or after all of it and before the answer.
fn hang_up(arena: &Arena, _: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let purse = arena.purse(rng);
    let demand = payment(arena, rng, 100_000, 6_000, &purse.name)?;
    let body = RequestBody::Sign(SignRequest { wallet: purse.name.clone(), psbt: demand.bytes.clone() });
    let whole = frame::wrap(&canonical::to_vec(&Request { version: PROTOCOL_VERSION, id: 1, body }))?;
    let part = if rng.gen_bool(0.5) { whole.len() } else { rng.gen_range(0..whole.len()) };
    let mut socket = arena.connect()?;
    arena.book.ask(&purse.name, &demand.transaction, &demand.spent);
    socket.send_raw(whole.get(..part).unwrap_or_default())?;
    arena.tally.count(kind, "hung up");
    Ok(())
}

fn command(arena: &Arena, socket: &mut SignerSocket, kind: Kind, bytes: &[u8]) -> Result<()> {
    match socket.command(bytes)? {
        Ok(_) => arena.tally.count(kind, "signed"),
        Err(refusal) => arena.tally.refused(kind, refusal.code),
    }
    Ok(())
}

fn replay_command(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let used = arena.used.lock().unwrap_or_else(PoisonError::into_inner).choose(rng).cloned();
    used.map_or(Ok(()), |used| command(arena, socket, kind, &used))
}

fn rubbish_command(arena: &Arena, socket: &mut SignerSocket, rng: &mut StdRng, kind: Kind) -> Result<()> {
    let mut bytes = vec![0; rng.gen_range(0..900)];
    rng.fill_bytes(&mut bytes);
    command(arena, socket, kind, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_claim_of_an_amount_is_what_the_coin_is_reckoned_at() {
        let coin = TxOut { value: Amount::from_sat(0x01_86a0), script_pubkey: thief(&mut StdRng::seed_from_u64(1)) };
        let words = encode::serialize(&coin);
        // In a previous transaction, and as a claim; the last bit of the second byte of the claim is flipped.
        let before = [&[9; 5], &words[..], &[1, 1], &words[..], &[9; 5]].concat();
        let mut flipped = before.clone();
        flipped[5 + words.len() + 2 + 1] ^= 1;
        let mut claimed = coin.clone();
        claim(&mut claimed, &before, &flipped);
        assert_eq!(claimed, TxOut { value: Amount::from_sat(0x01_87a0), ..coin });
    }
}
