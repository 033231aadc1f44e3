//! The test vectors of BIPs 174, 370, 371 and 373: none of the invalid ones passes, none makes a panic, and those whose keys a
//! wallet can have are analysed right.

use std::str::FromStr as _;

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bitcoin::{Network, NetworkKind, Psbt, bip32};
use postern_signer::{
    analysis::analyze,
    keystore::{AccountKey, BoundKeys},
    policy::rules::SpendRules,
    wallet::Wallet,
};
use serde::Deserialize;

use crate::{case::Expect, library};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    vector: Vec<Vector>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    bip: u32,
    class: Class,
    about: String,
    expect: Expect,
    psbt: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Class {
    Invalid,
    Valid,
    Signer,
}

fn vectors() -> Result<Vec<Vector>> {
    let path = crate::corpus().join("bips.toml");
    Ok(toml::from_str::<File>(&std::fs::read_to_string(path)?)?.vector)
}

/// Every vector against a wallet to which none of them belongs.
pub(crate) fn every_vector() -> Result<()> {
    let (config, _) = library::world()?;
    let table = config.wallets.get("hot").context("the wallet of most cases")?;
    let wallet = config.wallet("hot", table)?;
    let mut wrong = vec![];
    let vectors = vectors()?;
    for Vector { bip, class, about, expect, psbt } in &vectors {
        let outcome = analyze(&wallet, &table.rules, &STANDARD.decode(psbt)?);
        match (expect, outcome) {
            (Expect::Refused(code), Err(refusal)) if refusal.code == *code => {}
            (_, Err(refusal)) => wrong.push(format!("BIP {bip}, {class:?}: {about}: {refusal}")),
            (_, Ok(_)) => wrong.push(format!("BIP {bip}, {class:?}: {about}: signed")),
        }
    }
    let count = |class: Class| vectors.iter().filter(|v| v.class == class).count();
    ensure!(count(Class::Invalid) == 65 && count(Class::Valid) == 54 && count(Class::Signer) == 4, "vectors are missing");
    if wrong.is_empty() { Ok(()) } else { bail!("\n{}", wrong.join("\n")) }
}

fn vector(bip: u32, about: &str) -> Result<Vec<u8>> {
    let found = vectors()?.into_iter().find(|v| v.bip == bip && v.class == Class::Valid && v.about.contains(about));
    Ok(STANDARD.decode(found.with_context(|| format!("no vector about {about}"))?.psbt)?)
}

/// An account whose public key is known and whose chain code is not: enough for a wallet of one address.
fn account(origin: &str, path: &str, key: &str) -> Result<AccountKey> {
    let path = bip32::DerivationPath::from_str(path)?;
    let xpub = bip32::Xpub {
        network: NetworkKind::Test,
        depth: u8::try_from(path.len())?,
        parent_fingerprint: bip32::Fingerprint::default(),
        child_number: path.into_iter().last().copied().context("a path")?,
        public_key: key.parse()?,
        chain_code: bip32::ChainCode::from([0; 32]),
    };
    Ok(AccountKey { fingerprint: origin.parse()?, path, xpub })
}

/// BIP 371: a key path spend, with and without a signature that is there already.
pub(crate) fn taproot_key_path() -> Result<()> {
    let key = account("772b2da7", "86h/1h/0h/1/0", "02fe349064c98d6e2a853fa3c9b12bd8b304a19c195c60efa7ee2393046d3fa232")?;
    let wallet = Wallet::new("bip371", Network::Regtest, &format!("tr({key})"), 1, BoundKeys::Seed { accounts: vec![key] })?;
    for about in [
        "P2TR key only input with internal key and its derivation path",
        "P2TR key only input with internal key, its derivation path, and signature",
        "P2TR key only output",
        "taproot tree, and script key derivation paths",
    ] {
        let bytes = vector(371, about)?;
        // The vectors pay to other accounts of the same seed, and say so. For this wallet that is a false claim.
        let refusal =
            analyze(&wallet, &SpendRules::default(), &bytes).err().context("a claim on a key that is not this wallet's passes")?;
        ensure!(refusal.code.as_str() == "refused.change_claim_false", "{about}: {refusal}");
        let mut psbt = Psbt::deserialize(&bytes)?;
        psbt.outputs.iter_mut().for_each(|output| *output = bitcoin::psbt::Output::default());
        let plan = analyze(&wallet, &SpendRules::default(), &psbt.serialize()).with_context(|| about.to_owned())?;
        ensure!(plan.inputs()[0].value_sat == 5_000_000_000 && plan.inputs().len() == 1, "{about}: {:?}", plan.inputs());
        ensure!(plan.fee_sat() == 5_000_000_000 - 4_999_997_000, "{about}: a fee of {}", plan.fee_sat());
        ensure!(plan.outflow_sat() == 5_000_000_000 && plan.change().is_empty() && plan.payments().len() == 1, "{about}");
        // The vector's own signature is good for the digest that we would sign.
        if let Some(signature) = psbt.inputs[0].tap_key_sig {
            let secp = bitcoin::secp256k1::Secp256k1::verification_only();
            let output_key = bitcoin::XOnlyPublicKey::from_slice(
                &psbt.inputs[0].witness_utxo.clone().context("an amount")?.script_pubkey.as_bytes()[2..],
            )?;
            let message = bitcoin::secp256k1::Message::from_digest(plan.tasks()[0].digest);
            secp.verify_schnorr(&signature.signature, &message, &output_key).context("the BIP's signature is not over our digest")?;
        }
    }
    Ok(())
}

/// BIP 371: a script path spend of a tree of three leaves.
pub(crate) fn taproot_script_path() -> Result<()> {
    let nobody = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0";
    // All three leaves are keys of one seed.
    let keys = [
        account("772b2da7", "86h/1h/1h/0/0", "024320b0bf16f011b53ea7be615924aa7f27e5d29ad20ea1155d848676c3bad1b2")?,
        account("772b2da7", "86h/1h/2h/0/0", "022cb13ac68248de806aa6a3659cf3c03eb6821d09c8114a4e868febde865bb6d2")?,
        account("772b2da7", "86h/1h/3h/0/0", "02fa0f7a3cef3b1d0c0a6ce7d26e17ada0b2e5c92d19efad48b41859cb8a451ca9")?,
    ];
    let descriptor = format!("tr({nobody},{{pk({}),{{pk({}),pk({})}}}})", keys[0], keys[1], keys[2]);
    let wallet = Wallet::new("bip371", Network::Regtest, &descriptor, 1, BoundKeys::Seed { accounts: keys.to_vec() })?;
    let mut signatures = 0;
    for about in ["derivation paths for keys in the scripts, and merkle root", "merkle root, and script path signatures"] {
        let mut psbt = Psbt::deserialize(&vector(371, about)?)?;
        psbt.outputs.iter_mut().for_each(|output| *output = bitcoin::psbt::Output::default());
        let plan = analyze(&wallet, &SpendRules::default(), &psbt.serialize()).with_context(|| about.to_owned())?;
        ensure!(plan.fee_sat() == 3_000 && plan.outflow_sat() == 5_000_000_000 && plan.tasks().len() == 3, "{about}");
        let secp = bitcoin::secp256k1::Secp256k1::verification_only();
        for ((key, leaf), signature) in &psbt.inputs[0].tap_script_sigs {
            let task = plan.tasks().iter().find(|task| task.scheme == postern_signer::analysis::Scheme::SchnorrLeaf { leaf: *leaf });
            let message = bitcoin::secp256k1::Message::from_digest(task.context("a leaf that is not ours")?.digest);
            secp.verify_schnorr(&signature.signature, &message, key).context("the BIP's signature is not over our digest")?;
            signatures += 1;
        }
    }
    ensure!(signatures == 3, "{signatures} signatures were compared");
    Ok(())
}

/// BIP 174: P2PKH with its full previous transaction beside an input of others; P2WSH multisig without.
pub(crate) fn legacy_and_multisig() -> Result<()> {
    let single = |script: &str, key: &str| -> Result<Wallet> {
        let keys = BoundKeys::Hsm { public_key: key.parse()? };
        Ok(Wallet::new("bip174", Network::Regtest, &script.replace('@', key), 1, keys)?)
    };
    let wallet = single("pkh(@)", "035cdc61fc7ba971c0b501a646a2a83b102cb43881217ca682dc86e2d73fa88292")?;
    let rules = SpendRules { allow_foreign_inputs: true, ..SpendRules::default() };
    let bytes = vector(174, "P2SH-P2WPKH input both with non-final scriptSigs")?;
    // The P2SH-P2WPKH input is another's, and its amount only claimed.
    let refusal = analyze(&wallet, &rules, &bytes).err().context("an amount that is only claimed passes")?;
    ensure!(refusal.code.as_str() == "refused.foreign_input_unproven", "{refusal}");
    // Both inputs spend one transaction, so the vector itself holds the proof.
    let mut psbt = Psbt::deserialize(&bytes)?;
    psbt.inputs[1].non_witness_utxo = psbt.inputs[0].non_witness_utxo.clone();
    let plan = analyze(&wallet, &rules, &psbt.serialize())?;
    let spent = psbt.inputs[0].non_witness_utxo.clone().context("the previous transaction")?.output[0].value.to_sat();
    ensure!(plan.inputs().len() == 1 && plan.inputs()[0].value_sat == spent && plan.outflow_sat() == spent, "{:?}", plan.inputs());
    ensure!(plan.fee_sat() == psbt.fee()?.to_sat(), "a fee of {}", plan.fee_sat());

    let key = "029da12cdb5b235692b91536afefe5c91c3ab9473d8e43b533836ab456299c8871";
    let wallet = single("wsh(multi(2,@,03372b34234ed7cf9c1fea5d05d441557927be9542b162eb02e1ab2ce80224c00b))", key)?;
    let refusal = analyze(&wallet, &SpendRules::default(), &vector(174, "2-of-2 multisig. witnessScript, keypaths, and global xpubs")?);
    let refusal = refusal.err().context("an amount that is only claimed passes")?;
    ensure!(refusal.code.as_str() == "refused.prevtx_missing", "{refusal}");
    Ok(())
}
