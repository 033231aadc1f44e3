//! What is asked for in one large request: a batch of addresses, a transaction of many inputs.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use postern_protocol::{
    reply::{ADDRESSES_MAX, Address, ReplyBody},
    request::{AddressRequest, RequestBody, SignRequest},
};
use postern_signer::client::Client;

use crate::{
    processor::{Rooms, median},
    report, requests,
    signer::Bench,
};

const TRANSACTIONS: u32 = 5;
const INPUTS: usize = 500;

pub(crate) fn measure(bench: &Bench<'_>) -> Result<()> {
    let mut client = Client::connect(bench.socket())?;
    let addresses = batch(&mut client, "seed", "tree")?;
    batch(&mut client, "pool", "many")?;

    let (mut seconds, mut processor_s) = (vec![], vec![]);
    for salt in 0..TRANSACTIONS {
        let own = addresses.get(..INPUTS).context("a batch of addresses")?;
        let psbt = requests::of_many_inputs(own, salt)?;
        let (before, started) = (Rooms::read(bench.pid())?, Instant::now());
        match client.ask(RequestBody::Sign(SignRequest { wallet: "tree".into(), psbt }))? {
            ReplyBody::Signed(signed) => ensure!(signed.signatures.len() == INPUTS, "{} signatures", signed.signatures.len()),
            other => bail!("{other:?}"),
        }
        seconds.push(started.elapsed().as_secs_f64());
        processor_s.push(Rooms::read(bench.pid())?.since(&before, INPUTS).total_s());
    }
    let rate = INPUTS as f64 / median(&mut processor_s);
    report(
        "daemon: seed wallet, inputs of a PSBT of 500, verified, for each second of processor time",
        rate,
        "/s",
        Some((rate / 4e3, "at least 4,000 inputs per second and core", rate >= 4e3)),
    );
    report("daemon: seed wallet, a PSBT of 500 inputs", median(&mut seconds) * 1e3, "ms", None);
    Ok(())
}

/// The first addresses of a wallet, as many as one request may ask for.
fn batch(client: &mut Client, kind: &str, wallet: &str) -> Result<Vec<Address>> {
    let request = AddressRequest { wallet: wallet.into(), branch: 0, start: 0, count: ADDRESSES_MAX };
    let mut ask = |what: &str| {
        let started = Instant::now();
        match client.ask(RequestBody::Addresses(request.clone()))? {
            ReplyBody::Addresses(addresses) => {
                report(&format!("daemon: {kind} wallet, {ADDRESSES_MAX} {what}"), started.elapsed().as_secs_f64() * 1e3, "ms", None);
                anyhow::Ok(addresses)
            }
            other => bail!("{other:?}"),
        }
    };
    let new = ask("new addresses")?;
    ensure!(ask("addresses again")? == new, "the same addresses");
    ensure!(new.len() == usize::try_from(ADDRESSES_MAX)?, "{} addresses", new.len());
    Ok(new)
}
