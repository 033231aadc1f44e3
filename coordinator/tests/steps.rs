//! The real coordinator, killed as `kill -9` does on either side of every durable step of an order, with a real signer, link and node.
//! Needs the cargo feature `failpoints`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use bitcoin::{Address, Network, ScriptBuf, hashes::Hash as _};
use postern_testkit::{
    TempRun, VaultPlan, WalletPlan,
    site::{Site, SitePlan},
    wait::{PATIENCE, wait_for},
};
use serde_json::{Value, json};

const BTC: u64 = 100_000_000;
const SAT: u64 = 100_000;
const LINES: &str =
    "approval = { automatic_up_to = \"1 BTC\" }\nbatch = { wait = \"1 ms\" }\ndeposit_confirmations = 1\npayment_confirmations = 2";

/// Every durable step on the way of one order, and the call that leaves the machine.
const STEPS: [&str; 13] =
    ["order", "decide", "batch", "ask", "hand", "reply", "apply", "finalise", "send", "broadcast", "mempool", "connect", "settle"];

fn payee(name: &str) -> Address {
    let script = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::hash(name.as_bytes()));
    Address::from_script(&script, Network::Regtest).unwrap()
}

fn received(site: &Site, name: &str) -> Vec<u64> {
    let found: Value = site.bitcoind.rpc().call("scantxoutset", &[json!("start"), json!([format!("addr({})", payee(name))])]).unwrap();
    let outputs = found["unspents"].as_array().unwrap();
    outputs.iter().map(|o| bitcoin::Amount::from_btc(o["amount"].as_f64().unwrap()).unwrap().to_sat()).collect()
}

/// Lets an order run into the point until the process is dead.
fn run_into(site: &mut Site, point: &str, name: &str) {
    site.kill_coordinator().unwrap();
    site.set_environment(&[("FAILPOINTS", &format!("{point}=return"))]);
    // A step that is taken at the start already is reached before the API listens.
    if site.start_coordinator().is_err() {
        return;
    }
    let in_blocks = ["connect", "settle"].iter().any(|step| point.starts_with(step));
    let mut ordered = None;
    wait_for(&format!("the coordinator to die at {point}"), PATIENCE, || {
        if site.coordinator()?.ended()?.is_some() {
            return Ok(Some(()));
        }
        match &ordered {
            // Its caller repeats the call until there is an answer.
            None => ordered = site.order("hot", name, &payee(name), SAT).ok(),
            Some(id) if in_blocks && site.look(id).is_ok_and(|order| order["state"] == "broadcast") => drop(site.bitcoind.mine(1)?),
            Some(_) => {}
        }
        Ok(None)
    })
    .unwrap();
}

#[test]
fn the_coordinator_killed_on_either_side_of_every_step_pays_each_order_once() {
    let run = TempRun::new("steps").unwrap();
    let vault = VaultPlan::default().limits("total = \"1 BTC\"").wallet(WalletPlan::new("hot", "seed", "wpkh(@)"));
    let mut site = SitePlan::new([vault]).wallet_lines(LINES).start(&run).unwrap();
    site.deposit("hot", "first", BTC).unwrap();
    let mut names = Vec::new();
    for step in STEPS {
        for side in ["before", "after"] {
            let point = format!("{step}.{side}");
            run_into(&mut site, &point, &point);
            site.set_environment(&[]);
            site.start_coordinator().unwrap();
            let id = site.order("hot", &point, &payee(&point), SAT).unwrap();
            site.confirm(&id).unwrap_or_else(|e| panic!("{point}: {e:#}"));
            names.push(point);
        }
    }
    site.bitcoind.mine(2).unwrap();
    for name in names {
        assert_eq!(received(&site, &name), [SAT], "{name}");
    }
}
