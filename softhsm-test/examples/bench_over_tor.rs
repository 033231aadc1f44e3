//! An order on its way over Tor: from the coordinator's API to the signed transaction, against the bare round trip between link and
//! coordinator on the same private network. The difference is everything that is not Tor.
#![allow(clippy::print_stdout)]

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use bitcoin::{Address, CompressedPublicKey, Network, secp256k1};
use postern_testkit::{
    TempRun, TorNetwork, VaultPlan, WalletPlan, program,
    site::{PATIENCE, Site, SitePlan, Way},
    tor::Shape,
    wait::wait_for,
};
use rusqlite::{Connection, OpenFlags};

const ORDERS: usize = 60;
const DEPOSITS: usize = 6;
const PINGS: &str = "150";
const BTC: u64 = 100_000_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["inside", network] => inside(Path::new(network)),
        // Cargo passes flags of its own.
        _ => outside(),
    }
}

/// Starts the network and this program again inside of it.
fn outside() -> Result<()> {
    let run = TempRun::new("bench_over_tor")?;
    eprintln!("a private Tor network of five relays, cut off from the world");
    let network = TorNetwork::start(&run, Shape::SMALL)?;
    let mut again = Command::new(env::current_exe()?);
    again.arg("inside").arg(network.private_network_file());
    let status = network.namespace().enter(&again)?.status()?;
    if status.success() { Ok(()) } else { bail!("inside the network it ended with {status}") }
}

fn inside(network: &Path) -> Result<()> {
    let run = TempRun::new("site")?;
    let vault = VaultPlan::default().wallet(WalletPlan::new("hot", "seed", "wpkh"));
    let lines = "deposit_confirmations = 1\npayment_confirmations = 1\napproval = { automatic_up_to = \"1 BTC\" }\n\
                 batch = { max_orders = 1, wait = \"1 ms\" }";
    let site = SitePlan::new([vault]).way(Way::Tor(network.to_owned())).wallet_lines(lines).start(&run)?;
    for number in 0..DEPOSITS {
        site.deposit("hot", &format!("coin {number}"), BTC)?;
    }
    let mut round_trips = ping(&site)?;
    eprintln!("{ORDERS} orders, one after the other");
    let payee = payee()?;
    for number in 0..ORDERS {
        let order = site.order("hot", &format!("order-{number}"), &payee, BTC / 1_000)?;
        site.wait_for_order(&order, "the payment to be sent", |order| matches!(order["state"].as_str(), Some("broadcast" | "confirmed")))?;
        // Change comes back before the coins run out.
        site.bitcoind.mine(1)?;
    }
    round_trips.extend(ping(&site)?);
    let (signing, whole) = times(&site)?;

    let round_trip = median(round_trips);
    report("over Tor: bare round trip, median", round_trip, None);
    for (name, ms) in [("request to signatures stored", median(signing)), ("order to signed transaction", median(whole))] {
        report(&format!("over Tor: {name}, median"), ms, Some(ms / round_trip));
    }
    Ok(())
}

/// Milliseconds of round trips on a stream as the link's, beside the link.
fn ping(site: &Site) -> Result<Vec<f64>> {
    eprintln!("{PINGS} bare round trips");
    let (link, config) = (program::own("postern-link")?, site.link_config(0)?);
    // It dials once; on a network this young the first call may find no descriptor.
    let said = wait_for("the round trips", PATIENCE, || {
        Ok(program::output(Command::new(&link).args(["ping", "--count", PINGS, "--json", "--config"]).arg(config)).ok())
    })?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    Ok(vec![said["median_ms"].as_f64().context("no median")?])
}

/// Milliseconds from the request for the signer to its stored reply, and from the order to it, by the coordinator's own records.
fn times(site: &Site) -> Result<(Vec<f64>, Vec<f64>)> {
    let path = site.coordinator_state().join("coordinator.sqlite");
    let database = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).with_context(|| path.display().to_string())?;
    let mut statement = database.prepare(
        "SELECT r.replied_at - r.created_at, s.at - o.created_at FROM orders o \
         JOIN member_output m ON m.order_id = o.id JOIN signature s ON s.member = m.member JOIN signer_request r ON r.member = m.member",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)? as f64, row.get::<_, i64>(1)? as f64)))?;
    let times = rows.collect::<Result<Vec<_>, _>>()?;
    ensure!(times.len() >= ORDERS, "{} of {ORDERS} orders were signed", times.len());
    Ok(times.into_iter().unzip())
}

fn payee() -> Result<Address> {
    let key = secp256k1::SecretKey::from_slice(&[9; 32])?;
    Ok(Address::p2wpkh(&CompressedPublicKey(key.public_key(&secp256k1::Secp256k1::signing_only())), Network::Regtest))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(name: &str, value: f64, ratio: Option<f64>) {
    println!("{}", serde_json::json!({ "name": name, "value": value, "unit": "ms", "ratio": ratio }));
}
