//! The library's plan, with test keys.

use std::{collections::BTreeSet, env};

use bitcoin::Sequence;
use miniscript::{DefiniteDescriptorKey, Descriptor};
use postern_signer::{
    analysis::{SpendPlan, analyze},
    policy::rules::SpendRules,
    wallet::Position,
};
use postern_testkit::{Bitcoind, TempRun, spend::Coin};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    judge::{self, Numbers},
    random::{self, Own},
    wallets::{self, GAP, Site},
};

const COINS: u32 = 8;
const PAYMENTS: u64 = 300;

impl Own for Site {
    fn at(&self, branch: u32, index: u32) -> Descriptor<DefiniteDescriptorKey> {
        self.descriptor(Position { branch, index })
    }

    fn change_branch(&self) -> u32 {
        self.wallet.branches() - 1
    }

    fn sequence(&self) -> Option<Sequence> {
        Site::sequence(self)
    }
}

pub(crate) fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Coins of all wallets, on the chain and old enough.
fn fund(node: &Bitcoind, sites: &[Site]) -> Vec<Vec<Coin>> {
    let mut rng = StdRng::seed_from_u64(0);
    let places: Vec<Position> = (0..COINS).map(|n| Position { branch: u32::from(n % 3 == 2), index: n }).collect();
    let place = |site: &Site, at: Position| if site.wallet.branches() == 1 { Position { branch: 0, index: 0 } } else { at };
    let payments: Vec<_> = sites
        .iter()
        .flat_map(|site| places.iter().map(|at| site.descriptor(place(site, *at)).script_pubkey()))
        .map(|script| (script, rng.gen_range(20_000..3_000_000)))
        .collect();
    let funding = node.fund_all(&payments).unwrap();
    node.mine(3).unwrap();
    let mut vout = 0..;
    let coin = |site: &Site, at: Position, vout| Coin::new(&funding.transaction, vout, site.descriptor(place(site, at)));
    sites.iter().map(|site| places.iter().map(|at| coin(site, *at, vout.next().unwrap())).collect()).collect()
}

fn numbers(plan: &SpendPlan) -> Numbers {
    let mut outputs_sat = vec![None; plan.transaction().output.len()];
    let all = plan.change().iter().map(|c| (c.output, c.value_sat)).chain(plan.payments().iter().map(|p| (p.output, p.value_sat)));
    for (output, value_sat) in all {
        assert!(outputs_sat[output as usize].replace(value_sat).is_none(), "output {output} is both change and payment");
    }
    Numbers {
        txid: plan.unsigned_txid().to_string(),
        inputs_sat: plan.inputs().iter().map(|input| input.value_sat).collect(),
        outputs_sat: outputs_sat.into_iter().map(|sat| sat.expect("an output that is nowhere")).collect(),
        fee_sat: plan.fee_sat(),
        change: plan.change().iter().map(|change| change.output).collect(),
    }
}

#[test]
fn the_plan_of_any_payment_says_what_bitcoind_says_and_its_signatures_are_good() {
    let run = TempRun::new("differential").unwrap();
    let node = Bitcoind::start(&run).unwrap();
    let sites = wallets::all();
    let coins = fund(&node, &sites);
    let change: Vec<BTreeSet<String>> = sites
        .iter()
        .map(|site| judge::addresses(&node, (0..GAP).map(|index| site.at(site.change_branch(), index).to_string())).unwrap())
        .collect();
    let first = number("POSTERN_DIFFERENTIAL_SEED", 0);
    for seed in first..first + number("POSTERN_DIFFERENTIAL", PAYMENTS) {
        let mut rng = StdRng::seed_from_u64(seed);
        let which = usize::try_from(seed).unwrap() % sites.len();
        let site = &sites[which];
        let told = format!("seed {seed}, {}", site.name);
        let payment = random::payment(&mut rng, site, &coins[which], GAP);
        let plan = analyze(&site.wallet, &SpendRules::default(), &payment.psbt.serialize()).unwrap_or_else(|e| panic!("{told}: {e}"));
        let ours = numbers(&plan);
        let theirs = judge::numbers(&node, &payment.psbt, &change[which]).unwrap_or_else(|e| panic!("{told}: {e}"));
        assert_eq!(ours, theirs, "{told}");
        assert_eq!(ours.change, payment.change, "{told}");
        let back: u64 = theirs.change.iter().map(|n| theirs.outputs_sat[*n as usize]).sum();
        assert_eq!(plan.outflow_sat(), theirs.inputs_sat.iter().sum::<u64>() - back, "{told}");

        let mut signed = payment.psbt.clone();
        site.sign(&mut signed, &plan);
        let transaction = judge::accepts(&node, &signed, plan.fee_sat());
        assert!(transaction.weight().to_wu() <= plan.weight_wu(), "{told}: heavier than said");
        assert_eq!(transaction.output, plan.transaction().output, "{told}");
    }
}
