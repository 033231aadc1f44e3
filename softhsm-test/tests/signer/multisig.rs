//! Two signers, each with a token, a ledger and limits of its own, for one wallet.

use postern_protocol::refusal::RefusalCode;
use postern_testkit::{
    Bitcoind, TempRun, Vault, VaultPlan, WalletPlan,
    spend::{self, Coin, Output},
};

use crate::coins::somebody;

fn signer(run: &TempRun, name: &str, total: &str) -> Vault {
    let plan = VaultPlan::default().named(name).limits(&format!("total = \"{total}\""));
    plan.wallet(WalletPlan::new("joint", "seed", "wsh(pk(@))")).prepare(run).unwrap()
}

#[test]
fn a_two_of_two_spends_only_what_the_limits_of_both_allow() {
    let run = TempRun::new("two_of_two").unwrap();
    let (mut one, mut two) = (signer(&run, "one", "1 BTC"), signer(&run, "two", "200000 sat"));
    let (a, b) = (one.own_key("joint").unwrap(), two.own_key("joint").unwrap());
    one.set_script("joint", &format!("wsh(sortedmulti(2,@,{b}/<0;1>/*))")).unwrap();
    two.set_script("joint", &format!("wsh(sortedmulti(2,{a}/<0;1>/*,@))")).unwrap();
    one.open().unwrap();
    two.open().unwrap();
    let own = one.at("joint", 0, 0).unwrap();
    assert_eq!(own.script_pubkey(), two.at("joint", 0, 0).unwrap().script_pubkey());

    let node = Bitcoind::start(&run).unwrap();
    let funding = node.fund_confirmed(&own.script_pubkey(), 1_000_000).unwrap();
    let coin = Coin::new(&funding.transaction, funding.outpoint().vout, own);
    let payment = |sat: u64| {
        let change = Output::Own(Box::new(one.at("joint", 1, 0).unwrap()), 1_000_000 - sat - 2_000);
        spend::psbt(std::slice::from_ref(&coin), &[Output::Pay(somebody(), sat), change]).unwrap()
    };
    let mut large = payment(300_000);
    let signed = one.connect().unwrap().sign("joint", &large.serialize()).unwrap().unwrap();
    spend::add_signatures(&mut large, &signed).unwrap();
    assert!(spend::finish(large.clone()).is_err(), "one signature of two is enough");
    let refused = two.connect().unwrap().sign("joint", &large.serialize()).unwrap().unwrap_err();
    assert_eq!(refused.code, RefusalCode::TotalReached);

    let mut small = payment(150_000);
    for signer in [&one, &two] {
        let signed = signer.connect().unwrap().sign("joint", &small.serialize()).unwrap().unwrap();
        spend::add_signatures(&mut small, &signed).unwrap();
    }
    node.accepts(&spend::finish(small).unwrap()).unwrap();
    // Each charged what it signed, as if it completed the spend.
    let charged = [&one, &two].map(|s| s.connect().unwrap().status().unwrap().charged_sat);
    assert_eq!(charged, [302_000, 152_000]);
}
