//! PSBTs that are almost right: made from a plan that the fuzzer writes, so that it does not have to find the format first.

use arbitrary::{Arbitrary, Unstructured};
use bitcoin::{
    Amount, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, VarInt, Witness, absolute::LockTime, consensus::serialize,
    hashes::Hash as _, transaction::Version,
};
use postern_signer::wallet::{OwnScript, Position, SpendScript};

use super::{
    psbt,
    wallets::{self, Site},
};

#[derive(Debug, Arbitrary)]
struct Plan {
    wallet: u8,
    /// Bits: take amounts, scripts and salts as they are; apply lock time, twists, bytes behind. Without, the plan is a sound one.
    wild: u8,
    version: Small,
    lock_time: u32,
    inputs: Vec<In>,
    outputs: Vec<Out>,
    twists: Vec<Twist>,
    behind: Vec<u8>,
}

/// Mostly the ordinary value.
#[derive(Debug, Arbitrary)]
enum Small {
    Two,
    Other(i32),
}

#[derive(Debug, Arbitrary)]
struct In {
    branch: bool,
    index: u8,
    sat: u64,
    foreign: bool,
    /// Bits: leave out the previous transaction, witness_utxo, scripts, origins.
    without: u8,
    sequence: Sequences,
    salt: u8,
}

#[derive(Debug, Arbitrary)]
enum Sequences {
    Replaceable,
    Any(u32),
}

#[derive(Debug, Arbitrary)]
enum Out {
    Own { branch: bool, index: u8, sat: u32, origins: bool },
    Pay { kind: u8, sat: u32 },
    Script { bytes: Vec<u8>, sat: u64 },
    Claims { kind: u8, index: u32, branch: u32, sat: u32 },
}

/// What is changed afterwards, on the maps.
#[derive(Debug, Arbitrary)]
enum Twist {
    Add { map: u8, key: Vec<u8>, value: Vec<u8> },
    Remove { map: u8, field: u8 },
    Copy { from: u8, to: u8, field: u8 },
    Set { map: u8, field: u8, at: u16, byte: u8 },
    Cut { map: u8, field: u8, to: u16 },
    Swap { a: u8, b: u8 },
}

type Map = Vec<(Vec<u8>, Vec<u8>)>;

/// Any bytes are a plan.
pub fn run(bytes: &[u8]) {
    run_and_tell(bytes);
}

/// True when the plan's PSBT would be signed.
pub fn run_and_tell(bytes: &[u8]) -> bool {
    let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(bytes)) else { return false };
    if plan.inputs.len() > 40 || plan.outputs.len() > 40 || plan.twists.len() > 40 {
        return false;
    }
    let sites = wallets::all();
    let site = &sites[plan.wallet as usize % sites.len()];
    plan.build(site).is_some_and(|psbt| psbt::check(site, &psbt))
}

fn position(site: &Site, branch: bool, index: u8) -> Position {
    let branch = if site.wallet.branches() == 2 { u32::from(branch) } else { 0 };
    Position { branch, index: if site.wallet.branches() == 2 { u32::from(index) } else { 0 } }
}

fn somebody(kind: u8) -> ScriptBuf {
    ScriptBuf::from_bytes(match kind % 7 {
        0 => [&[0x00, 0x14][..], &[7; 20]].concat(),
        1 => [&[0x00, 0x20][..], &[7; 32]].concat(),
        2 => [&[0x51, 0x20][..], &[7; 32]].concat(),
        3 => [&[0xa9, 0x14][..], &[7; 20], &[0x87]].concat(),
        4 => [&[0x76, 0xa9, 0x14][..], &[7; 20], &[0x88, 0xac]].concat(),
        5 => vec![0x6a, 0x02, 1, 2],
        _ => vec![0x51, 0x02, 0x4e, 0x73],
    })
}

/// The fields by which a wallet says whose a script is.
fn origins(own: &OwnScript, output: bool) -> Map {
    let mut map = Map::new();
    let taproot = matches!(own.spend, SpendScript::Taproot { .. });
    for key in &own.keys {
        let postern_signer::wallet::KeyLocator::Seed(path) = &key.locator else { continue };
        let mut origin = fingerprint().to_vec();
        path.into_iter().for_each(|step| origin.extend(u32::from(*step).to_le_bytes()));
        let public = key.public_key.inner;
        match (taproot, output) {
            (false, false) => map.push(([&[0x06][..], &public.serialize()].concat(), origin)),
            (false, true) => map.push(([&[0x02][..], &public.serialize()].concat(), origin)),
            (true, _) => {
                let field = if output { 0x07 } else { 0x16 };
                map.push(([&[field][..], &public.x_only_public_key().0.serialize()].concat(), [&[0][..], &origin].concat()));
            }
        }
    }
    map
}

fn fingerprint() -> [u8; 4] {
    let text = wallets::all()[0].wallet.descriptor();
    let at = text.find('[').unwrap() + 1;
    let fingerprint: bitcoin::bip32::Fingerprint = text[at..at + 8].parse().unwrap();
    fingerprint.to_bytes()
}

fn scripts(own: &OwnScript, output: bool) -> Map {
    let (redeem, witness) = if output { (0x00, 0x01) } else { (0x04, 0x05) };
    match &own.spend {
        SpendScript::P2shP2wpkh { redeem_script } => vec![(vec![redeem], redeem_script.to_bytes())],
        SpendScript::P2wsh { witness_script } => vec![(vec![witness], witness_script.to_bytes())],
        SpendScript::Taproot { internal_key, .. } => vec![(vec![if output { 0x05 } else { 0x17 }], internal_key.serialize().to_vec())],
        _ => vec![],
    }
}

const AMOUNTS: u8 = 1;
const LOCK_TIME: u8 = 2;
const TWISTS: u8 = 4;
const BEHIND: u8 = 8;
const SEQUENCES: u8 = 16;
const MISSING: u8 = 32;

impl Plan {
    fn is(&self, wild: u8) -> bool {
        self.wild & wild != 0
    }

    fn build(&self, site: &Site) -> Option<Vec<u8>> {
        let mut maps: Vec<Map> = vec![vec![]];
        let mut input = Vec::new();
        for (number, coin) in (0u8..).zip(&self.inputs) {
            let index = if self.is(AMOUNTS) { coin.index } else { coin.index % 4 };
            let own = site.wallet.at(position(site, coin.branch, index)).ok()?;
            let foreign = coin.foreign && self.is(MISSING);
            let without = if self.is(MISSING) { coin.without } else { coin.without & !1 };
            let (sat, salt) = if self.is(AMOUNTS) { (coin.sat, coin.salt) } else { (1_000_000 + coin.sat % 9_000_000, number) };
            let script_pubkey = if foreign { somebody(coin.index) } else { own.script_pubkey.clone() };
            let spent = TxOut { value: Amount::from_sat(sat), script_pubkey };
            let previous = Transaction {
                version: Version::TWO,
                lock_time: LockTime::ZERO,
                input: vec![TxIn {
                    previous_output: OutPoint { txid: Txid::from_byte_array([salt; 32]), vout: 0 },
                    witness: if salt & 1 == 1 { Witness::from_slice(&[[7u8; 9]]) } else { Witness::new() },
                    ..TxIn::default()
                }],
                output: vec![spent.clone()],
            };
            let sequence = match coin.sequence {
                Sequences::Replaceable => Sequence::ENABLE_RBF_NO_LOCKTIME,
                Sequences::Any(any) if self.is(SEQUENCES) => Sequence(any),
                Sequences::Any(_) => Sequence::MAX,
            };
            input.push(TxIn { previous_output: OutPoint { txid: previous.compute_txid(), vout: 0 }, sequence, ..TxIn::default() });
            let mut map = Map::new();
            if without & 1 == 0 {
                map.push((vec![0x00], serialize(&previous)));
            }
            if without & 2 == 0 {
                map.push((vec![0x01], serialize(&spent)));
            }
            if without & 4 == 0 && !foreign {
                map.extend(scripts(&own, false));
            }
            if without & 8 == 0 {
                map.extend(origins(&own, false));
            }
            maps.push(map);
        }
        let mut output = Vec::new();
        for out in &self.outputs {
            let (sat, script_pubkey, map) = match out {
                Out::Own { branch, index, sat, origins: with } => {
                    let index = if self.is(AMOUNTS) { *index } else { index % 4 };
                    let own = site.wallet.at(position(site, *branch, index)).ok()?;
                    let mut map = scripts(&own, true);
                    if *with {
                        map.extend(origins(&own, true));
                    }
                    (u64::from(*sat), own.script_pubkey.clone(), map)
                }
                Out::Pay { kind, sat } => (u64::from(*sat), somebody(if self.is(AMOUNTS) { *kind } else { kind % 5 }), vec![]),
                Out::Script { bytes, .. } if !self.is(AMOUNTS) => (u64::from(bytes.len() as u32), somebody(0), vec![]),
                Out::Script { bytes, sat } => (*sat, ScriptBuf::from_bytes(bytes.clone()), vec![]),
                Out::Claims { kind, index, branch, sat } => {
                    let own =
                        site.wallet.at(Position { branch: *branch, index: *index }).or_else(|_| site.wallet.at(position(site, true, 0)));
                    (u64::from(*sat), somebody(*kind), origins(&*own.ok()?, true))
                }
            };
            let most = 1_000_000 * self.inputs.len() as u64 / self.outputs.len() as u64;
            let sat = if self.is(AMOUNTS) { sat } else { 600 + sat % most.max(1) };
            output.push(TxOut { value: Amount::from_sat(sat), script_pubkey });
            maps.push(map);
        }
        let version = match self.version {
            Small::Two => Version::TWO,
            Small::Other(other) if self.is(LOCK_TIME) => Version(other),
            Small::Other(_) => Version::ONE,
        };
        let transaction = Transaction {
            version,
            lock_time: LockTime::from_consensus(if self.is(LOCK_TIME) { self.lock_time } else { 0 }),
            input,
            output,
        };
        if transaction.input.is_empty() {
            return None;
        }
        maps[0].push((vec![0x00], serialize(&transaction)));
        for twist in self.twists.iter().filter(|_| self.is(TWISTS)) {
            twist.apply(&mut maps);
        }
        let mut bytes = b"psbt\xff".to_vec();
        for map in &maps {
            for (key, value) in map {
                bytes.extend(serialize(&VarInt::from(key.len())));
                bytes.extend_from_slice(key);
                bytes.extend(serialize(&VarInt::from(value.len())));
                bytes.extend_from_slice(value);
            }
            bytes.push(0);
        }
        if self.is(BEHIND) {
            bytes.extend_from_slice(&self.behind);
        }
        // Not judged here; that rust-bitcoin's reader does not panic either is worth to know.
        let _ = Psbt::deserialize(&bytes);
        Some(bytes)
    }
}

impl Twist {
    fn apply(&self, maps: &mut [Map]) {
        let count = maps.len();
        let place = |n: &u8| *n as usize % count;
        match self {
            Self::Add { map, key, value } => {
                if !key.is_empty() {
                    maps[place(map)].push((key.clone(), value.clone()));
                }
            }
            Self::Remove { map, field } => maps[place(map)].retain(|(key, _)| key[0] != *field),
            Self::Copy { from, to, field } => {
                let copied: Map = maps[place(from)].iter().filter(|(key, _)| key[0] == *field).cloned().collect();
                let to = &mut maps[place(to)];
                to.retain(|(key, _)| key[0] != *field);
                to.extend(copied);
            }
            Self::Set { map, field, at, byte } => {
                if let Some((_, value)) = maps[place(map)].iter_mut().find(|(key, _)| key[0] == *field)
                    && let Some(there) = value.get_mut(*at as usize)
                {
                    *there = *byte;
                }
            }
            Self::Cut { map, field, to } => {
                if let Some((_, value)) = maps[place(map)].iter_mut().find(|(key, _)| key[0] == *field) {
                    value.truncate(*to as usize);
                }
            }
            Self::Swap { a, b } => maps.swap(place(a), place(b)),
        }
    }
}
