//! The cases that say `socket = true`, asked of a real signer: a daemon, its socket, and a token that holds the keys.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result, bail, ensure};
use bitcoin::{
    Psbt, TapLeafHash, TapSighashType, TxOut, XOnlyPublicKey,
    hashes::Hash as _,
    secp256k1::{Message, Secp256k1, schnorr},
    sighash::{Prevouts, SighashCache},
};
use postern_protocol::reply::{SignaturePlace, Signed};
use postern_testkit::{SignerSocket, TempRun, VaultPlan};

use crate::{
    build::Builder,
    case::{Ask, Case, Expect},
    wallets,
    words::World,
};

/// Runs them all and reports every one that went another way.
pub(crate) fn run(cases: &[(String, Case)]) -> Result<()> {
    let run = TempRun::new("hostile")?;
    let plan = wallets::plans(&wallets::rows()?)?.into_iter().fold(VaultPlan::default(), VaultPlan::wallet);
    let vault = plan.start(&run)?;
    let descriptors: BTreeMap<String, String> = vault.wallets()?.into_iter().map(|w| (w.name, w.descriptor)).collect();
    let world = World::new(descriptors)?;
    let mut socket = vault.connect()?;
    let (mut wrong, mut asked) = (String::new(), 0);
    for (name, case) in cases.iter().filter(|(_, case)| case.socket) {
        let mut builder = Builder::new(world.side(&case.wallet), name);
        for (number, ask) in case.ask.iter().enumerate() {
            for _ in 0..ask.times {
                asked += 1;
                if let Err(error) = one(&mut socket, &case.wallet, &mut builder, ask) {
                    writeln!(wrong, "{name}, ask {number}: {error:#}")?;
                }
            }
        }
    }
    ensure!(asked > 0, "no case says `socket = true`");
    if wrong.is_empty() { Ok(()) } else { bail!("\n{wrong}") }
}

fn one(socket: &mut SignerSocket, wallet: &str, builder: &mut Builder<'_>, ask: &Ask) -> Result<()> {
    let before = socket.status()?;
    let psbt = builder.build(ask)?;
    let outcome = socket.sign(wallet, &psbt).context("no answer")?;
    let after = socket.status()?;
    match (ask.expect, outcome) {
        (Expect::Refused(code), Err(refusal)) => {
            ensure!(refusal.code == code, "not {code}: {refusal}");
            ensure!(after.charged_transactions == before.charged_transactions, "refused and charged");
            ensure!(after.charged_sat == before.charged_sat, "refused and charged");
        }
        (Expect::Signs, Ok(signed)) => {
            ensure!(!signed.signatures.is_empty(), "no signature");
            check_taproot(&psbt, &signed)?;
            let charged = after.charged_sat - before.charged_sat;
            ensure!(ask.charged_sat.is_none_or(|sat| sat == charged), "{charged} sat are charged");
        }
        (Expect::Signs, Err(refusal)) => bail!("refused: {refusal}"),
        (Expect::Refused(code), Ok(_)) => bail!("not {code}: signed"),
    }
    Ok(())
}

/// BIP-340 signatures are over what this very request says of its coins (BIP 341), whatever was asked for before.
fn check_taproot(psbt: &[u8], signed: &Signed) -> Result<()> {
    // Not every request that is signed can be read by rust-bitcoin.
    let Ok(psbt) = Psbt::deserialize(psbt) else { return Ok(()) };
    let spent: Option<Vec<TxOut>> = psbt.inputs.iter().map(|input| input.witness_utxo.clone()).collect();
    let Some(spent) = spent else { return Ok(()) };
    let mut cache = SighashCache::new(&psbt.unsigned_tx);
    for signature in &signed.signatures {
        let leaf = match signature.place {
            SignaturePlace::Partial => continue,
            SignaturePlace::TapKey => None,
            SignaturePlace::TapLeaf(leaf) => Some((TapLeafHash::from_byte_array(leaf), u32::MAX)),
        };
        let kind = if signature.signature.len() == 65 { TapSighashType::All } else { TapSighashType::Default };
        let number = signature.input as usize;
        let digest = cache.taproot_signature_hash(number, &Prevouts::All(&spent), None, leaf, kind)?;
        let message = Message::from_digest(digest.to_byte_array());
        let key = XOnlyPublicKey::from_slice(&signature.public_key)?;
        let raw = schnorr::Signature::from_slice(signature.signature.get(..64).context("a short signature")?)?;
        let good = Secp256k1::verification_only().verify_schnorr(&raw, &message, &key);
        good.with_context(|| format!("the signature of input {number} is not over what was asked"))?;
    }
    Ok(())
}
