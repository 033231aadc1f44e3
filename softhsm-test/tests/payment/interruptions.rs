//! Kills, cuts and outages: nothing is lost, nothing is paid twice.

use std::fs;

use postern_testkit::{
    TempRun,
    site::{Site, SitePlan},
    wait::{PATIENCE, wait_until},
};
use rustix::process::Signal;

use crate::stage::{self, more_coins, order, payee, received, site};

/// Orders these, and when all are confirmed looks what arrived.
fn all_are_paid_once(site: &Site, names: &[String], ids: &[String], sat: u64) {
    for id in ids {
        site.confirm(id).unwrap();
    }
    site.bitcoind.mine(3).unwrap();
    for name in names {
        assert_eq!(received(&site.bitcoind, &payee(name)).unwrap(), [sat], "{name}");
    }
}

/// What is killed, in turn, while orders are on their way.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Coordinator,
    Link,
    Signer,
    Node,
}

impl Victim {
    fn kill_and_restart(self, site: &mut Site) {
        match self {
            Victim::Coordinator => {
                site.kill_coordinator().unwrap();
                site.start_coordinator().unwrap();
            }
            Victim::Link => {
                site.kill_link(0).unwrap();
                site.start_link(0).unwrap();
            }
            Victim::Signer => {
                site.vaults[0].kill().unwrap();
                site.vaults[0].launch().unwrap();
            }
            Victim::Node => site.bitcoind.restart().unwrap(),
        }
    }
}

/// At each state that an order passes, one kill.
fn kills_at_every_state(victim: Victim, label: &str) {
    const SAT: u64 = 1_000_000;
    let mut site = site(label, "total = \"1 BTC\"");
    more_coins(&site, 4);
    let (mut names, mut ids) = (vec![], vec![]);
    for state in ["created", "approved", "batched", "signing", "broadcast"] {
        let name = format!("{label}-{state}");
        let id = order(&site, &name, SAT);
        // It may have passed the state already when we look; what counts is that something is under way.
        site.wait_for_order(&id, state, |o| reached(o["state"].as_str().unwrap_or_default(), state)).unwrap();
        victim.kill_and_restart(&mut site);
        names.push(name);
        ids.push(id);
    }
    all_are_paid_once(&site, &names, &ids, SAT);
}

fn reached(state: &str, wanted: &str) -> bool {
    const WAY: [&str; 6] = ["created", "approved", "batched", "signing", "broadcast", "confirmed"];
    let place = |s: &str| WAY.iter().position(|w| *w == s);
    place(state) >= place(wanted)
}

#[test]
fn the_coordinator_killed_at_every_state_of_an_order_pays_each_once() {
    kills_at_every_state(Victim::Coordinator, "kill_coord");
}

#[test]
fn the_link_killed_at_every_state_of_an_order_lets_each_be_paid_once() {
    kills_at_every_state(Victim::Link, "kill_link");
}

#[test]
fn the_signer_killed_at_every_state_of_an_order_lets_each_be_paid_once() {
    kills_at_every_state(Victim::Signer, "kill_signer");
}

#[test]
fn the_node_restarted_at_every_state_of_an_order_lets_each_be_paid_once() {
    kills_at_every_state(Victim::Node, "kill_node");
}

#[test]
fn a_link_that_is_cut_for_a_while_delivers_when_it_is_back() {
    let mut site = site("cut", "total = \"1 BTC\"");
    // As if the network was gone: the connection stands and nothing moves.
    site.link(0).unwrap().signal(Signal::STOP).unwrap();
    let id = order(&site, "alice", 3_000_000);
    site.wait_for_order(&id, "the order to wait for the signer", |o| reached(o["state"].as_str().unwrap_or_default(), "signing")).unwrap();
    site.link(0).unwrap().signal(Signal::CONT).unwrap();
    site.confirm(&id).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("alice")).unwrap(), [3_000_000]);
}

#[test]
fn a_token_that_is_away_for_a_while_delays_an_order_and_costs_it_nothing() {
    let run = TempRun::new("token_away").unwrap();
    // An anchor on the token would refuse before anything is charged.
    let vault = stage::vault("total = \"0.031 BTC\"").without_anchor();
    let site = SitePlan::new([vault]).wallet_lines(stage::LINES).start(&run).unwrap();
    site.deposit("hot", "first", stage::BTC).unwrap();
    site.vaults[0].token().pull_out().unwrap();
    wait_until("the signer to notice", PATIENCE, || Ok(!site.vaults[0].connect()?.status()?.keystores.iter().all(|k| k.ready))).unwrap();
    let id = order(&site, "alice", 3_000_000);
    site.wait_for_order(&id, "the order to wait", |o| o["blocked"]["code"] == "refused.keystore_unavailable").unwrap();
    site.vaults[0].token().put_back().unwrap();
    // The total leaves room for one charge of this order, not for two.
    site.confirm(&id).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("alice")).unwrap(), [3_000_000]);
}

#[test]
fn a_link_that_pins_another_key_never_gets_in_and_nothing_is_signed() {
    let mut site = site("wrong_pin", "total = \"1 BTC\"");
    site.kill_link(0).unwrap();
    let public = site.folder().join("vault-link/coordinator-public.toml");
    let text = fs::read_to_string(&public).unwrap();
    let at = text.find("sha256:").unwrap() + "sha256:".len();
    let digit = if text[at..].starts_with('0') { "1" } else { "0" };
    fs::write(&public, format!("{}{digit}{}", &text[..at], &text[at + 1..])).unwrap();
    let id = order(&site, "alice", 3_000_000);
    site.start_link(0).unwrap();
    site.link(0).unwrap().wait_for_log("not the pinned one").unwrap();
    assert_ne!(site.look(&id).unwrap()["state"], "broadcast");
    assert_eq!(site.vaults[0].connect().unwrap().status().unwrap().charged_sat, 0);
    // With the right one it goes on.
    site.kill_link(0).unwrap();
    fs::write(&public, text).unwrap();
    site.start_link(0).unwrap();
    site.confirm(&id).unwrap();
}
