//! The coordinator is lost: the thief has its database, its keys and its place behind the link, and knows every coin and every
//! format. He asks the signer for everything, as fast as he can, and cleverly.

use std::{collections::HashSet, fs, time::Instant};

use anyhow::{Context as _, Result};
use bitcoin::{Address, Network, OutPoint, ScriptBuf, Transaction, consensus};
use postern_protocol::{
    refusal::RefusalKind,
    units::{SAT_PER_BTC, format_amount_sat},
};
use postern_testkit::{
    Vault,
    site::Site,
    spend::{self, Coin, Output},
};
use serde_json::{Value, json};

use super::stage::Stage;

const WALLET: &str = "hot";
const FEE_SAT: u64 = 2_000;

pub(super) fn act(stage: &mut Stage, site: &mut Site) -> Result<()> {
    stage.scene("The coordinator is stolen");
    let loot = site.folder().join("loot");
    fs::create_dir_all(&loot)?;
    site.kill_coordinator()?;
    let mut files = 0;
    for entry in fs::read_dir(site.coordinator_state())? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), loot.join(entry.file_name()))?;
            files += 1;
        }
    }
    stage.say(format!(
        "The thief has the coordinator's database ({files} files) and its place: every order, coin and address is known to him."
    ));

    let vault = site.vaults.first().context("no signer")?;
    let mut coins = coins(site, vault)?;
    coins.sort_by_key(|coin| std::cmp::Reverse(coin.value()));
    let all_sat: u64 = coins.iter().map(|coin| coin.value().to_sat()).sum();
    let before = levels(vault)?;
    let charged_before = vault.connect()?.status()?.charged_sat;
    let began = Instant::now();
    stage.say(format!(
        "The wallet holds {}. The limits leave {} now and {} until the next command.",
        format_amount_sat(all_sat),
        format_amount_sat(before.rate_sat),
        format_amount_sat(before.total_sat)
    ));

    let mine = address()?.script_pubkey();
    let everything = ask(vault, &coins, &mine, all_sat - FEE_SAT)?;
    stage.expect(everything.signed.is_none(), format!("everything at once: {}", everything.why));
    stage.row("thief: everything", all_sat, "refused", &everything.why);

    // Then in pieces, halving until not even the smallest passes; the coin's rest goes back as change, as any payment's does.
    let mut stolen = vec![];
    let mut piece_sat = before.total_sat.min(all_sat);
    let mut asked = 0;
    let mut last = String::new();
    while piece_sat > 10_000 {
        let Some(place) = coins.iter().position(|coin| coin.value().to_sat() > piece_sat.saturating_add(FEE_SAT)) else {
            piece_sat /= 2;
            continue;
        };
        let coin = coins.get(place).cloned().context("no coin")?;
        asked += 1;
        let answer = pay(vault, &coin, &mine, piece_sat)?;
        match answer.signed {
            Some(transaction) => {
                coins.remove(place);
                stolen.push((coin, transaction));
            }
            None => {
                last = answer.why;
                piece_sat /= 2;
            }
        }
        if coins.is_empty() {
            break;
        }
    }
    let after = levels(vault)?;
    // From the signatures alone: what would confirm.
    let own: HashSet<ScriptBuf> = own_scripts(vault)?;
    let stolen_sat: u64 = stolen.iter().map(|(coin, transaction)| outflow_sat(coin, transaction, &own)).sum();
    let seconds = began.elapsed().as_secs() + 1;
    let allowed_sat = (before.rate_sat + seconds * 2 * SAT_PER_BTC / 100).min(before.total_sat);
    stage.say(format!("He asked {asked} times and got {} signatures: {}.", stolen.len(), format_amount_sat(stolen_sat)));
    stage.expect(stolen_sat <= allowed_sat, format!("not one satoshi over the limits: {stolen_sat} of {allowed_sat} sat"));
    stage.expect(after.total_sat <= before.total_sat - stolen_sat, "the ledger charged every one of them, fees included");
    let charged_sat = vault.connect()?.status()?.charged_sat - charged_before;
    stage.expect(charged_sat >= stolen_sat, format!("charged: {charged_sat} sat"));
    let kept_sat = all_sat - stolen_sat;
    stage.expect(kept_sat > 0, format!("{} of {} stay", format_amount_sat(kept_sat), format_amount_sat(all_sat)));
    stage.row("thief: in pieces", stolen_sat, "stolen", "what the limits allow, and no more");
    stage.row("thief: the rest", kept_sat, "refused", &last);
    site.start_coordinator()
}

/// What the limits leave.
struct Levels {
    rate_sat: u64,
    total_sat: u64,
}

fn levels(vault: &Vault) -> Result<Levels> {
    let status = vault.connect()?.status()?;
    let (mut rate_sat, mut total_sat) = (u64::MAX, u64::MAX);
    for limit in status.limits {
        let least = if limit.per_ms == 0 { &mut total_sat } else { &mut rate_sat };
        *least = limit.available_sat.min(*least);
    }
    Ok(Levels { rate_sat, total_sat })
}

/// The signer's answer to one demand.
struct Answer {
    signed: Option<Transaction>,
    why: String,
}

fn demand(vault: &Vault, coins: &[Coin], outputs: &[Output]) -> Result<Answer> {
    let psbt = spend::psbt(coins, outputs)?;
    match vault.connect()?.sign(WALLET, &psbt.serialize())? {
        Ok(signed) => {
            let mut psbt = psbt;
            spend::add_signatures(&mut psbt, &signed)?;
            Ok(Answer { signed: Some(spend::finish(psbt)?), why: "signed".into() })
        }
        Err(refusal) => {
            let when = match refusal.kind {
                RefusalKind::Wait => refusal.wait_ms.map(|ms| format!(", in {} s", ms.div_ceil(1_000))).unwrap_or_default(),
                _ => String::new(),
            };
            Ok(Answer { signed: None, why: format!("{}{when}", refusal.code) })
        }
    }
}

fn ask(vault: &Vault, coins: &[Coin], to: &ScriptBuf, sat: u64) -> Result<Answer> {
    demand(vault, coins, &[Output::Pay(to.clone(), sat)])
}

fn pay(vault: &Vault, coin: &Coin, to: &ScriptBuf, sat: u64) -> Result<Answer> {
    let rest = coin.value().to_sat().saturating_sub(sat).saturating_sub(FEE_SAT);
    let mut outputs = vec![Output::Pay(to.clone(), sat)];
    if rest > 1_000 {
        outputs.push(Output::Own(Box::new(vault.at(WALLET, 1, 0)?), rest));
    }
    demand(vault, std::slice::from_ref(coin), &outputs)
}

fn outflow_sat(coin: &Coin, transaction: &Transaction, own: &HashSet<ScriptBuf>) -> u64 {
    let back: u64 = transaction.output.iter().filter(|o| own.contains(&o.script_pubkey)).map(|o| o.value.to_sat()).sum();
    coin.value().to_sat().saturating_sub(back)
}

fn own_scripts(vault: &Vault) -> Result<HashSet<ScriptBuf>> {
    let scripts = vault.scripts(WALLET)?;
    (0..50).flat_map(|index| [(0, index), (1, index)]).map(|(branch, index)| scripts.script(branch, index)).collect()
}

/// The wallet's coins, as anybody finds them who has the descriptor and a node.
fn coins(site: &Site, vault: &Vault) -> Result<Vec<Coin>> {
    let rpc = site.bitcoind.rpc();
    let scripts = vault.scripts(WALLET)?;
    let mut found = vec![];
    let mut seen = HashSet::new();
    for (branch, index) in (0..50).flat_map(|index| [(0, index), (1, index)]) {
        let descriptor = scripts.at(branch, index)?;
        let scan: Value =
            rpc.call("scantxoutset", &[json!("start"), json!([format!("raw({})", descriptor.script_pubkey().to_hex_string())])])?;
        for unspent in scan["unspents"].as_array().into_iter().flatten() {
            let (txid, vout) = (unspent["txid"].as_str().context("no txid")?, unspent["vout"].as_u64().context("no vout")?);
            let block: String = rpc.call("getblockhash", &[unspent["height"].clone()])?;
            let raw: String = rpc.call("getrawtransaction", &[json!(txid), json!(false), json!(block)])?;
            let transaction: Transaction = consensus::encode::deserialize_hex(&raw)?;
            if seen.insert(OutPoint::new(transaction.compute_txid(), u32::try_from(vout)?)) {
                found.push(Coin::new(&transaction, u32::try_from(vout)?, descriptor.clone()));
            }
        }
    }
    Ok(found)
}

fn address() -> Result<Address> {
    let key = bitcoin::secp256k1::SecretKey::from_slice(&[0x66; 32])?;
    let public = bitcoin::CompressedPublicKey(key.public_key(&bitcoin::secp256k1::Secp256k1::signing_only()));
    Ok(Address::p2wpkh(&public, Network::Regtest))
}
