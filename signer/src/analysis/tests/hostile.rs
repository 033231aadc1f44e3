//! Bytes that somebody bent: always an answer, never a panic, and whatever is accepted is still proven.

use std::collections::HashMap;

use bitcoin::OutPoint;
use proptest::prelude::*;

use super::{
    super::{SpendPlan, analyze},
    site::{Site, Spend, every_site},
};

/// A PSBT and the truth about its coins.
struct Target {
    name: &'static str,
    site: Site,
    bytes: Vec<u8>,
    coins: HashMap<OutPoint, u64>,
}

fn targets() -> Vec<Target> {
    let of = |(name, site): (&'static str, Site)| {
        let spend = if site.wallet.branches() == 1 { Spend::single() } else { Spend::usual() };
        let psbt = site.psbt(&spend);
        let coins = psbt.unsigned_tx.input.iter().zip(&spend.coins).map(|(txin, (_, sat))| (txin.previous_output, *sat)).collect();
        Target { name, site, bytes: psbt.serialize(), coins }
    };
    every_site().into_iter().map(of).collect()
}

impl Target {
    /// Analyses bent bytes. What passes must still say the truth.
    fn bend(&self, bytes: &[u8]) -> bool {
        match analyze(&self.site.wallet, &self.site.rules, bytes) {
            Ok(plan) => {
                self.check(&plan);
                true
            }
            Err(refusal) => {
                assert!(refusal.message.is_some_and(|m| !m.is_empty()));
                false
            }
        }
    }

    fn check(&self, plan: &SpendPlan) {
        let mut own = 0;
        for input in plan.inputs() {
            assert_eq!(self.coins.get(&input.outpoint), Some(&input.value_sat), "{}: an amount that is not the coin's", self.name);
            own += input.value_sat;
        }
        let mut back = 0;
        for change in plan.change() {
            let output = &plan.transaction().output[change.output as usize];
            assert_eq!(
                output.script_pubkey,
                self.site.descriptor(change.position).script_pubkey(),
                "{}: change that is not ours",
                self.name
            );
            assert_eq!(output.value.to_sat(), change.value_sat);
            back += change.value_sat;
        }
        assert_eq!(plan.outflow_sat(), own - back, "{}", self.name);
        assert_eq!(plan.unsigned_txid(), plan.transaction().compute_txid());
    }
}

#[test]
fn a_psbt_cut_off_anywhere_is_refused() {
    for target in targets() {
        assert!(target.bend(&target.bytes), "{}", target.name);
        for length in 0..target.bytes.len() {
            assert!(!target.bend(&target.bytes[..length]), "{}: the first {length} bytes pass", target.name);
        }
    }
}

#[test]
fn no_flipped_bit_makes_an_untrue_plan() {
    let names = ["seed p2wpkh", "seed p2tr key path with a tree"];
    for target in targets().into_iter().filter(|t| names.contains(&t.name)) {
        let mut bytes = target.bytes.clone();
        let mut passed = 0;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                passed += u32::from(target.bend(&bytes));
                bytes[at] ^= 1 << bit;
            }
        }
        // Witnesses of previous transactions, sequences, payees and hints prove nothing, and so may change.
        assert!(passed > 0, "{}: not one bit is free, so nothing was tried beyond the reader", target.name);
    }
}

#[derive(Debug, Clone)]
enum Bend {
    Set(usize, u8),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize, usize),
    Swap(usize, usize, usize),
}

fn bends() -> impl Strategy<Value = Vec<Bend>> {
    let at = any::<usize>();
    let bend = prop_oneof![
        (at, prop_oneof![any::<u8>(), Just(0), Just(0xfd), Just(0xfe), Just(0xff)]).prop_map(|(at, to)| Bend::Set(at, to)),
        (at, 1usize..40).prop_map(|(at, length)| Bend::Remove(at, length)),
        (at, proptest::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Bend::Insert(at, bytes)),
        (at, at, 1usize..200).prop_map(|(from, to, length)| Bend::Repeat(from, to, length)),
        (at, at, 1usize..40).prop_map(|(from, to, length)| Bend::Swap(from, to, length)),
    ];
    proptest::collection::vec(bend, 1..5)
}

fn apply(bytes: &mut Vec<u8>, bend: &Bend) {
    let size = bytes.len().max(1);
    let range = |at: usize, length: usize| at % size..(at % size + length).min(size);
    match bend {
        Bend::Set(at, to) => bytes[at % size] = *to,
        Bend::Remove(at, length) if size > 60 => drop(bytes.drain(range(*at, *length))),
        Bend::Remove(..) => {}
        Bend::Insert(at, fresh) => drop(bytes.splice(at % size..at % size, fresh.iter().copied())),
        Bend::Repeat(from, to, length) => {
            let copy = bytes[range(*from, *length)].to_vec();
            drop(bytes.splice(to % size..to % size, copy));
        }
        Bend::Swap(a, b, length) => {
            for step in 0..*length {
                bytes.swap((a % size + step) % size, (b % size + step) % size);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_bent_psbt_makes_a_panic_or_an_untrue_plan(bends in bends()) {
        thread_local! { static TARGETS: Vec<Target> = targets(); }
        TARGETS.with(|targets| {
            for target in targets {
                let mut bytes = target.bytes.clone();
                for bend in &bends {
                    apply(&mut bytes, bend);
                }
                target.bend(&bytes);
            }
        });
    }

    #[test]
    fn no_bytes_behind_the_magic_make_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        thread_local! { static SITE: Site = Site::hot(); }
        SITE.with(|site| {
            let bytes = [b"psbt\xff".as_slice(), &bytes].concat();
            let _ = analyze(&site.wallet, &site.rules, &bytes);
        });
    }
}
