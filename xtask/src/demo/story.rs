//! The story: set-up, a deposit, payments, limits, a command, a thief.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use bitcoin::{Address, Network};
use postern_protocol::units::{SAT_PER_BTC, format_amount_sat};
use postern_testkit::{
    TempRun, VaultPlan, WalletPlan,
    site::{Site, SitePlan, Way},
};
use serde_json::Value;

use super::{stage::Stage, thief};
use crate::child;

const BTC: u64 = SAT_PER_BTC;
/// The signer's limits: what the whole story is about.
const RATE: &str = "0.02 BTC";
const BURST_SAT: u64 = BTC / 2;
const TOTAL_SAT: u64 = BTC + BTC / 5;
const LIMITS: &str = "rate = [{ amount = \"0.02 BTC\", per = \"1 s\", burst = \"0.5 BTC\" }]\ntotal = \"1.2 BTC\"";

/// Tells it, inside the private Tor network of this file.
pub(super) fn tell(network: &Path, keep: bool) -> Result<()> {
    let mut stage = Stage::new();
    let run = TempRun::new("site")?;

    stage.scene("Set-up and pairing");
    stage.say("A token is initialised, keys are born in it, and signer, link, coordinator and bitcoind are started…");
    let wallet = WalletPlan::new("hot", "seed", "wpkh").with("fee = { max = \"0.001 BTC\", max_rate = \"200 sat/vB\" }");
    let vault = VaultPlan::default().named("vault-1").limits(LIMITS).wallet(wallet);
    let lines = "deposit_confirmations = 1\npayment_confirmations = 1\napproval = { automatic_up_to = \"0.2 BTC\" }\n\
                 batch = { wait = \"1 s\", max_amount = \"0.5 BTC\" }";
    let mut site = SitePlan::new([vault]).way(Way::Tor(network.to_owned())).wallet_lines(lines).start(&run)?;
    let vault = site.vaults.first().context("no signer")?;
    stage.say(format!("The signer `vault-1` is {}.", vault.identity()?));
    stage.say(format!("Its wallet: {}", vault.wallets()?.first().map(|w| w.descriptor.clone()).unwrap_or_default()));
    stage.say(format!(
        "Its limits: at most {} at once, {RATE} more each second, {} in all.",
        format_amount_sat(BURST_SAT),
        format_amount_sat(TOTAL_SAT)
    ));
    stage.say("Link and coordinator know each other's keys from two small files; the link dials out over Tor.");
    wait_for_heartbeat(&site)?;
    stage.expect(true, "a heartbeat, signed by the signer, arrived over Tor");

    stage.scene("A deposit");
    let address = site.deposit("hot", "customer 7", 3 * BTC)?;
    stage.expect(site.available_sat("hot")? >= 3 * BTC, format!("3 BTC arrived at {address} and are confirmed"));
    // Several coins, so that payments do not wait for each other's change.
    site.deposit("hot", "customer 8", 2 * BTC)?;

    three_in_one(&mut stage, &site)?;
    burst(&mut stage, &site)?;
    total(&mut stage, &site)?;
    thief::act(&mut stage, &mut site)?;
    no_network(&mut stage, &mut site)?;

    if keep {
        play(&site)?;
    }
    stage.end()
}

/// Somebody to pay.
fn payee(number: u8) -> Result<Address> {
    let key = bitcoin::secp256k1::SecretKey::from_slice(&[number; 32])?;
    let public = bitcoin::CompressedPublicKey(key.public_key(&bitcoin::secp256k1::Secp256k1::signing_only()));
    Ok(Address::p2wpkh(&public, Network::Regtest))
}

fn wait_for_heartbeat(site: &Site) -> Result<()> {
    postern_testkit::wait::wait_until("the signer's first heartbeat", postern_testkit::site::PATIENCE, || {
        let reply = site.shop().get("/v1/signers")?;
        Ok(reply.body.to_string().contains("policy_hash"))
    })
}

fn txid(order: &Value) -> &str {
    order["payment"]["txid"].as_str().unwrap_or_default()
}

fn three_in_one(stage: &mut Stage, site: &Site) -> Result<()> {
    stage.scene("Three orders, one transaction");
    let orders: Vec<String> =
        (1..=3_u8).map(|n| site.order("hot", &format!("invoice-{n}"), &payee(n)?, BTC / 20)).collect::<Result<_>>()?;
    stage.say("Three orders of 0.05 BTC came in. They are below 0.2 BTC, so the rule approves them.");
    let first = orders.first().context("no order")?;
    let broadcast = site.wait_for_order(first, "the payment to be sent", |order| order["state"] == "broadcast")?;
    stage.say(format!("Signed in the vault, returned over Tor, sent to the network: {}", txid(&broadcast)));
    let confirmed: Vec<Value> = orders.iter().map(|order| site.confirm(order)).collect::<Result<_>>()?;
    let one = confirmed.iter().all(|order| txid(order) == txid(&broadcast));
    stage.expect(one, "all three are paid by one transaction, and it is confirmed");
    for n in 1..=3 {
        stage.row(&format!("invoice-{n}"), BTC / 20, "paid", "within the limits");
    }
    Ok(())
}

fn burst(stage: &mut Stage, site: &Site) -> Result<()> {
    stage.scene("A burst has to wait");
    let pay = |name: &str, number| -> Result<String> {
        let order = site.order("hot", name, &payee(number)?, BTC * 2 / 5)?;
        approve(site, &order)?;
        Ok(order)
    };
    let first = pay("invoice-4", 4)?;
    stage.say("0.4 BTC are ordered. That is above 0.2 BTC: a second person approves it.");
    site.confirm(&first)?;
    stage.row("invoice-4", BTC * 2 / 5, "paid", "approved by a second person");
    let second = pay("invoice-5", 5)?;
    stage.say("Another 0.4 BTC are ordered and approved at once, more than the bucket holds now.");
    let mut waited = None;
    site.wait_for_order(&second, "the signer's answer", |order| {
        if order["blocked"]["code"] == "refused.rate_wait" {
            waited = order["blocked"]["until"].as_i64();
        }
        waited.is_some() || order["state"] == "broadcast"
    })?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    match waited {
        Some(until) => {
            let left = u128::try_from(until).unwrap_or(0).saturating_sub(now);
            stage.say(format!(
                "The signer says refused.rate_wait: it passes in {:.1} s.",
                Duration::from_millis(u64::try_from(left)?).as_secs_f64()
            ));
        }
        None => stage.say("It was paid at once."),
    }
    stage.expect(waited.is_some(), "the signer made it wait and said until when");
    site.confirm(&second)?;
    stage.expect(true, "when the bucket was full enough, it was paid without anybody's doing");
    stage.row("invoice-5", BTC * 2 / 5, "paid", "after waiting for the rate");
    Ok(())
}

fn approve(site: &Site, order: &str) -> Result<()> {
    let hash = site.look(order)?["approval_hash"].clone();
    let reply = site.boss().post(&format!("/v1/orders/{order}/approve"), &serde_json::json!({ "approval_hash": hash }))?;
    anyhow::ensure!(reply.status == 200, "not approved: {reply}");
    Ok(())
}

fn total(stage: &mut Stage, site: &Site) -> Result<()> {
    stage.scene("The total is reached: a command by two managers");
    let order = site.order("hot", "invoice-6", &payee(6)?, BTC * 2 / 5)?;
    approve(site, &order)?;
    let needs = site.wait_for_order(&order, "the signer's answer", |order| order["blocked"]["code"] == "refused.total_reached")?;
    stage.say("0.95 BTC and some fees have left; 0.4 BTC more would pass the total of 1.2 BTC.");
    stage.expect(needs["blocked"]["kind"] == "needs", "the order shows that it needs a command: refused.total_reached");

    let vault = site.vaults.first().context("no signer")?;
    let paper = site.folder().join("more.command");
    let paper = paper.to_str().context("a folder that is no text")?;
    let postern = |arguments: &[&str]| vault.postern(&[&["command"], arguments].concat());
    let sign = |manager| -> Result<String> {
        let key = vault.managers().key_file(manager, site.folder())?;
        postern(&["sign", paper, "--key", key.to_str().context("a folder that is no text")?, "--yes"])
    };
    let refused = |code: &str| postern(&["apply", paper]).err().is_some_and(|error| format!("{error:#}").contains(code));
    stage.say("`postern command new add-total \"0.5 BTC\"` writes the command. Each manager reads it in words, and signs.");
    postern(&["new", "add-total", "0.5 BTC", "--output", paper])?;
    sign(0)?;
    stage.expect(refused("refused.command_quorum"), "one manager alone cannot raise it: refused.command_quorum");
    sign(1)?;
    let size = std::fs::metadata(paper)?.len();
    let applied = postern(&["apply", paper])?;
    stage.say(format!("Two managers signed the same command ({size} bytes, one QR code). {}", applied.trim()));
    stage.expect(refused("refused.command_serial_used"), "the same paper works once: refused.command_serial_used");
    site.confirm(&order)?;
    stage.expect(true, "the order that waited is paid");
    stage.row("invoice-6", BTC * 2 / 5, "paid", "after a command by two of three managers");
    Ok(())
}

fn no_network(stage: &mut Stage, site: &mut Site) -> Result<()> {
    stage.scene("The signer has no network");
    let signer = site.vaults.first_mut().context("no signer")?.signer()?;
    let pid = signer.id();
    let held = signer.network_sockets()?;
    stage.expect(held.is_empty(), format!("process {pid}, postern-signer, holds no TCP, UDP, raw or packet socket"));
    let link = site.link(0)?.network_sockets()?;
    let listening = link.iter().filter(|socket| socket.contains(" 0A")).count();
    stage
        .expect(!link.is_empty() && listening == 0, format!("the link holds {} connections to Tor relays and listens on none", link.len()));
    Ok(())
}

/// Leaves everything running.
fn play(site: &Site) -> Result<()> {
    let vault = site.vaults.first().context("no signer")?;
    let (token, conf) = vault.token().env();
    println!("\nEverything runs until Ctrl-C. In another terminal:");
    println!("  export {token}={}", conf.display());
    println!("  target/debug/postern status --config {}", vault.config().display());
    println!("  target/debug/postern ledger show --config {}", vault.config().display());
    println!("  target/debug/postern-signer check {}", vault.config().display());
    println!(
        "  curl --unix-socket {} -H 'Authorization: Bearer {}' http://localhost/v1/orders",
        site.api_socket().display(),
        site.shop_key()
    );
    println!("  ls {}", site.folder().display());
    while !child::interrupted() {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
