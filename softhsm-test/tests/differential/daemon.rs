//! The same of a running signer whose keys are on a token: what it charges is what bitcoind says leaves, and what it signs is good.

use bitcoin::Sequence;
use miniscript::{DefiniteDescriptorKey, Descriptor};
use postern_testkit::{
    Bitcoind, TempRun, VaultPlan, WalletPlan,
    spend::{self, Coin},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    judge,
    library::number,
    random::{self, Own},
};

const INDICES: u32 = 6;
const WALLETS: [(&str, &str, &str); 8] = [
    ("a", "seed", "wpkh(@)"),
    ("b", "seed", "tr(@)"),
    ("c", "seed", "sh(wpkh(@))"),
    ("d", "seed", "pkh(@)"),
    ("e", "seed", "wsh(and_v(v:pk(@),older(2)))"),
    ("f", "seed", "tr(50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0,pk(@))"),
    ("g", "hsm", "wpkh(@)"),
    ("h", "pool", "wpkh(@)"),
];

struct Of {
    scripts: Vec<Vec<Descriptor<DefiniteDescriptorKey>>>,
    older: bool,
}

impl Own for Of {
    fn at(&self, branch: u32, index: u32) -> Descriptor<DefiniteDescriptorKey> {
        let scripts = &self.scripts[branch as usize];
        scripts[index as usize % scripts.len()].clone()
    }

    fn change_branch(&self) -> u32 {
        u32::try_from(self.scripts.len()).unwrap() - 1
    }

    fn sequence(&self) -> Option<Sequence> {
        self.older.then(|| Sequence::from_height(2))
    }
}

#[test]
fn what_a_signer_with_a_token_charges_is_what_bitcoind_says_leaves() {
    let run = TempRun::new("differential_daemon").unwrap();
    let node = Bitcoind::start(&run).unwrap();
    let plan = WALLETS.iter().fold(VaultPlan::default().limits("total = \"1000 BTC\""), |plan, (name, kind, script)| {
        plan.wallet(WalletPlan::new(name, kind, script).with("gap = 20"))
    });
    let vault = plan.start(&run).unwrap();
    let rounds = number("POSTERN_DIFFERENTIAL", 300).div_ceil(60);
    let mut socket = vault.connect().unwrap();
    for (number, (name, kind, script)) in (0u64..).zip(WALLETS) {
        let branches = if kind == "hsm" { 1 } else { 2 };
        let at = |branch: u32| (0..if branches == 1 { 1 } else { INDICES }).map(|n| vault.at(name, branch, n).unwrap()).collect();
        let own = Of { scripts: (0..branches).map(at).collect(), older: script.contains("older") };
        let change = judge::addresses(&node, own.scripts[branches as usize - 1].iter().map(ToString::to_string)).unwrap();
        for round in 0..rounds {
            let told = format!("round {round}, {kind} {script}");
            let mut rng = StdRng::seed_from_u64(1_000 * number + round);
            // Coins of its own for each payment: a payment of coins that are charged already would be charged less.
            let payments: Vec<_> = (0..4).map(|n| (own.at(0, n).script_pubkey(), rng.gen_range(50_000..2_000_000))).collect();
            let funding = node.fund_all(&payments).unwrap();
            node.mine(2).unwrap();
            let coins: Vec<Coin> = (0..4).map(|n| Coin::new(&funding.transaction, n, own.at(0, n))).collect();
            let payment = random::payment(&mut rng, &own, &coins, INDICES.min(own.scripts[0].len() as u32));
            let theirs = judge::numbers(&node, &payment.psbt, &change).unwrap();
            let before = socket.status().unwrap().charged_sat;
            let signed = socket.sign(name, &payment.psbt.serialize()).unwrap().unwrap_or_else(|e| panic!("{told}: {e}"));
            let charged = socket.status().unwrap().charged_sat - before;
            let back: u64 = theirs.change.iter().map(|n| theirs.outputs_sat[*n as usize]).sum();
            assert_eq!(charged, theirs.inputs_sat.iter().sum::<u64>() - back, "{told}");
            let mut psbt = payment.psbt;
            spend::add_signatures(&mut psbt, &signed).unwrap();
            let transaction = judge::accepts(&node, &psbt, theirs.fee_sat);
            node.send(&transaction).unwrap();
        }
    }
}
