//! The wallets that the cases are about: for the library with test keys, for a signer with keys that its token made.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, str::FromStr as _};

use anyhow::{Context as _, Result};
use bitcoin::{
    Network,
    bip32::{DerivationPath, Xpriv, Xpub},
    hashes::{Hash as _, sha256},
    secp256k1::Secp256k1,
};
use postern_testkit::WalletPlan;
use serde::Deserialize;

/// The cosigner of multisig wallets: who he is does not depend on whose wallet it is.
pub(crate) const COSIGNER: &str = "cosigner";
pub(crate) const COSIGNER_PATH: &str = "48h/1h/0h";

/// `wallets.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    wallet: BTreeMap<String, Row>,
}

/// One wallet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// A descriptor: `@` is our key, `COSIGNER` another signer's.
    pub(crate) script: String,
    /// More lines of its `[wallet.NAME]`.
    #[serde(default)]
    pub(crate) settings: String,
}

/// All wallets of the corpus.
pub(crate) fn rows() -> Result<BTreeMap<String, Row>> {
    let path = crate::corpus().join("wallets.toml");
    let text = std::fs::read_to_string(&path)?;
    let file: File = toml::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(file.wallet)
}

/// A test seed.
pub(crate) fn master(seed: &str) -> Result<Xpriv> {
    Ok(Xpriv::new_master(Network::Regtest, sha256::Hash::hash(seed.as_bytes()).as_ref())?)
}

/// An account of a test seed with its origin, as it stands in a descriptor.
pub(crate) fn account(seed: &str, path: &str) -> Result<String> {
    let secp = Secp256k1::new();
    let master = master(seed)?;
    let xpub = Xpub::from_priv(&secp, &master.derive_priv(&secp, &DerivationPath::from_str(path)?)?);
    Ok(format!("[{}/{path}]{xpub}", master.fingerprint(&secp)))
}

/// The cosigner's account.
pub(crate) fn cosigner() -> Result<String> {
    account(COSIGNER, COSIGNER_PATH)
}

/// The descriptor of a row, whose own key stays `@`.
fn with_cosigner(row: &Row) -> Result<String> {
    Ok(row.script.replace("COSIGNER", &format!("{}/<0;1>/*", cosigner()?)))
}

/// A signer's configuration in which all wallets have test keys.
pub(crate) fn library_config(rows: &BTreeMap<String, Row>) -> Result<String> {
    let mut text = String::from(
        "[signer]\nname = \"hostile\"\nnetwork = \"regtest\"\nstate = \"/nowhere\"\nsocket = \"/nowhere/socket\"\n\
         [keystore.hsm]\nkind = \"pkcs11\"\nmodule = \"/nowhere/module.so\"\ntoken = { label = \"none\", serial = \"0\" }\n\
         pin = { file = \"/nowhere/pin\" }\n",
    );
    for (name, row) in rows {
        let own = account(&format!("seed of {name}"), "84h/1h/0h")?;
        let fingerprint = own.get(1..9).context("an origin")?;
        let descriptor = with_cosigner(row)?.replace('@', &format!("{own}/<0;1>/*"));
        writeln!(
            text,
            "[wallet.{name}]\nkeystore = \"hsm\"\nkind = \"seed\"\ndescriptor = \"{descriptor}\"\nfingerprint = \"{fingerprint}\"\n{}",
            row.settings
        )?;
    }
    Ok(text)
}

/// The same wallets for a signer with a token.
pub(crate) fn plans(rows: &BTreeMap<String, Row>) -> Result<Vec<WalletPlan>> {
    rows.iter().map(|(name, row)| Ok(WalletPlan::new(name, "seed", &with_cosigner(row)?).with(&row.settings))).collect()
}

/// Where the corpus is.
pub(crate) fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile")
}
