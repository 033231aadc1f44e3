//! `postern wallet new`: keys are made in the token, and the table for the configuration is printed.
//!
//! What can be wrong is found before a key is made: a key on a token is for ever.

use std::{
    fmt::Write as _,
    io::{BufRead as _, IsTerminal as _, Read as _},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bitcoin::{
    Address, Network, NetworkKind, PrivateKey, PublicKey,
    bip32::{DerivationPath, Xpriv, Xpub},
    secp256k1::{Secp256k1, SecretKey},
};

use zeroize::Zeroizing;

use super::script::ScriptTemplate;
use crate::{
    cli::{
        Ending,
        paint::{DIM, HEAD, paint},
        site::Site,
    },
    config::{Config, KeystoreTable},
    identity::{IDENTITY_FILE, Identity},
    keystore::{AccountKey, BoundKeys, KeystoreError, OpenKeystore, ROLLS_MIN, TYPED_MIN, TypedEntropy},
    wallet::{Position, Wallet, WalletKind},
};

/// Longest line of typed randomness.
const LINE_MAX: usize = 8_192;
/// How long the token may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct NewWallet {
    /// Its name.
    name: String,
    /// The [keystore.NAME] whose token or TPM makes the keys.
    #[arg(long, value_name = "NAME")]
    keystore: String,
    /// How its keys are kept.
    #[arg(long)]
    kind: Kind,
    /// `pkh`, `sh-wpkh`, `wpkh`, `tr`, or a descriptor in which @ stands for this signer's key.
    #[arg(long, value_name = "SCRIPT")]
    script: ScriptTemplate,
    /// For `seed`: the account's number in the usual derivation path.
    #[arg(long, default_value_t = 0, value_name = "N")]
    account: u32,
    /// For `seed`: another derivation path, such as m/84h/0h/0h.
    #[arg(long, value_name = "PATH", conflicts_with = "account")]
    path: Option<DerivationPath>,
    /// For `seed` and `pool`: the keys exist already, only print the table.
    #[arg(long)]
    existing: bool,
    /// For `seed`: asks for rolls of a die, and mixes them with the randomness of the hardware and the kernel.
    #[arg(long, conflicts_with_all = ["existing", "entropy"])]
    dice: bool,
    /// For `seed`: asks for any text, typed without thinking, and mixes it in.
    #[arg(long, conflicts_with = "existing")]
    entropy: bool,
}

/// A wallet's kind as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// One key that never leaves the token.
    Hsm,
    /// A BIP-32 seed, encrypted by a key that never leaves the token, or sealed by a TPM: many addresses, Taproot.
    Seed,
    /// Numbered keys, stored wrapped under a key that never leaves the token: many addresses.
    Pool,
}

impl From<Kind> for WalletKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Hsm => WalletKind::Hsm,
            Kind::Seed => WalletKind::Seed,
            Kind::Pool => WalletKind::Pool,
        }
    }
}

impl NewWallet {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        let config = site.config()?;
        let account = self.account_path(config.network)?;
        self.check_first(&config, &account)?;
        let typed = self.typed_entropy()?;
        let keystore = open(&config, &self.keystore)?;
        let (keys, key) = self.make_keys(&config, &keystore, account, typed)?;
        let descriptor = self.script.fill(self.kind.into(), &key);
        let wallet = Wallet::new(&self.name, config.network, &descriptor, 1, keys.clone())?;

        anstream::eprintln!("{}", paint(DIM, format!("Put this into {} and check it:", config.path.display())));
        say!("{}", self.table(&wallet, &keys)?.trim_end());
        if let Ok(first) = wallet.at(Position { branch: 0, index: 0 }) {
            anstream::eprintln!();
            anstream::eprintln!("{} {}", paint(HEAD, "First address:"), Address::from_script(&first.script_pubkey, config.network)?);
        }
        anstream::eprintln!("{} postern-signer check {}", paint(HEAD, "Next:"), config.path.display());
        Ok(Ending::Done)
    }

    fn account_path(&self, network: Network) -> Result<DerivationPath> {
        match &self.path {
            Some(path) => Ok(path.clone()),
            None => self.script.account_path(network, self.account),
        }
    }

    /// Everything that can be known before a key is made.
    fn check_first(&self, config: &Config, account: &DerivationPath) -> Result<()> {
        if config.wallets.contains_key(&self.name) {
            bail!("[wallet.{}] is configured already; `postern wallet show {0}` shows it", self.name);
        }
        let fits = (1..=32).contains(&self.name.len())
            && self.name != "signer"
            && self.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !fits {
            bail!("`{}` is no name for a wallet: use 1 to 32 letters, digits, `-` and `_`, and not `signer`", self.name);
        }
        if self.existing && self.kind == Kind::Hsm {
            bail!(
                "--existing is for seed and pool: the public key of an hsm wallet was printed when it was made, and the token shows it as postern:{}",
                self.name
            );
        }
        if (self.dice || self.entropy) && self.kind != Kind::Seed {
            bail!("--dice and --entropy are for seeds: keys of kind hsm and pool are born in the token");
        }
        if !config.state.join(IDENTITY_FILE).exists() {
            bail!("there is no signer in {} yet; run `postern init` first", config.state.display());
        }
        Identity::open(&config.state).context("run this as the user that the signer runs as")?;
        let (keys, key) = stand_in(self.kind, config.network, account)?;
        let descriptor = self.script.fill(self.kind.into(), &key);
        Wallet::new(&self.name, config.network, &descriptor, 1, keys).context("--script")?;
        Ok(())
    }

    /// What a person adds to the randomness of the seed.
    fn typed_entropy(&self) -> Result<Option<TypedEntropy>> {
        if self.dice {
            let prompt = format!("Roll a die and type its digits, at least {ROLLS_MIN}, better 99; they are not shown: ");
            return Ok(Some(TypedEntropy::dice(&secret_line(&prompt)?).context("--dice")?));
        }
        if self.entropy {
            let prompt = format!("Type at least {TYPED_MIN} characters without thinking; they are not shown: ");
            return Ok(Some(TypedEntropy::typed(&secret_line(&prompt)?).context("--entropy")?));
        }
        Ok(None)
    }

    fn make_keys(
        &self,
        config: &Config,
        keystore: &OpenKeystore,
        account: DerivationPath,
        typed: Option<TypedEntropy>,
    ) -> Result<(BoundKeys, String)> {
        let (name, network) = (self.name.as_str(), config.network);
        let exists = |e: KeystoreError| match e {
            KeystoreError::Exists { .. } => anyhow::Error::from(e).context(
                "the keys of a wallet of this name exist; they are never replaced (--existing prints the table of a seed or pool)",
            ),
            e => e.into(),
        };
        match self.kind {
            Kind::Hsm => {
                anstream::eprintln!(
                    "Making a key in the token of keystore {}, labelled postern:{name}; it never leaves it.",
                    self.keystore
                );
                let public_key = keystore.create_hsm_key(name).map_err(exists)?;
                Ok((BoundKeys::Hsm { public_key }, public_key.to_string()))
            }
            Kind::Seed => {
                if !self.existing {
                    self.say_seed(config, typed.is_some());
                    keystore.create_seed(name, network, typed).map_err(exists)?;
                    let warning = match keystore {
                        OpenKeystore::Pkcs11(_) => format!("Back up seed-{name}.sealed: without it and the token the money is gone."),
                        OpenKeystore::Tpm(_) => format!(
                            "Back up seed-{name}.sealed, and know that it opens on this board only: if the board breaks, the seed is gone. \
                             docs/tpm.md says what to do about that before money is on it."
                        ),
                    };
                    anstream::eprintln!("{}", paint(HEAD, warning));
                }
                anstream::eprintln!("Deriving the account m/{}.", account.to_string().replace('\'', "h"));
                let key = keystore.account_key(name, network, &account)?;
                let text = key.to_string();
                Ok((BoundKeys::Seed { accounts: vec![key] }, text))
            }
            Kind::Pool => {
                if !self.existing {
                    anstream::eprintln!(
                        "Making the wrapping key of a pool in the token of keystore {}, and an empty pool in {}.",
                        self.keystore,
                        config.state.display()
                    );
                    keystore.create_pool(name, network).map_err(exists)?;
                    anstream::eprintln!(
                        "{}",
                        paint(HEAD, format!("Back up pool-{name}.sqlite whenever it grew: it holds the wrapped keys."))
                    );
                }
                Ok((BoundKeys::Pool, String::new()))
            }
        }
    }

    /// Each step before it is done.
    fn say_seed(&self, config: &Config, typed: bool) {
        let typed = if typed { ", and what was typed" } else { "" };
        anstream::eprintln!("Making a seed from the randomness of keystore {} and of the kernel{typed}.", self.keystore);
        let file = format!("seed-{}.sealed in {}", self.name, config.state.display());
        match config.keystores.get(&self.keystore).and_then(KeystoreTable::tpm) {
            Some(tpm) => {
                anstream::eprintln!("Sealing it to the TPM's PCRs {} as they are now and to the auth value, into {file}.", tpm.pcrs)
            }
            None => anstream::eprintln!("Encrypting it by a new key that never leaves the token, into {file}."),
        }
    }

    /// The table, without what has a default; comments say what is worth a thought.
    fn table(&self, wallet: &Wallet, keys: &BoundKeys) -> Result<String> {
        let kind = match self.kind {
            Kind::Hsm => "hsm",
            Kind::Seed => "seed",
            Kind::Pool => "pool",
        };
        let mut out = String::new();
        writeln!(out, "\n[wallet.{}]\nkeystore = \"{}\"\nkind = \"{kind}\"", self.name, self.keystore)?;
        writeln!(out, "descriptor = \"{}\"", wallet.descriptor())?;
        match keys {
            BoundKeys::Hsm { public_key } => writeln!(out, "public_key = \"{public_key}\"")?,
            BoundKeys::Seed { accounts } => {
                if let Some(own) = accounts.first() {
                    writeln!(out, "fingerprint = \"{}\"", own.fingerprint)?;
                }
            }
            BoundKeys::Pool => {}
        }
        writeln!(out, "# What follows is worth a decision; see configs/signer.toml for all options.")?;
        writeln!(out, "# fee = {{ max = \"0.001 BTC\", max_rate = \"200 sat/vB\", max_share = \"5 %\" }}")?;
        writeln!(out, "# destinations = \"any\"")?;
        Ok(out)
    }
}

pub(super) fn open(config: &Config, name: &str) -> Result<OpenKeystore> {
    let Some(keystore) = config.keystore(name) else {
        let known: Vec<&str> = config.keystores.keys().map(String::as_str).collect();
        bail!("no [keystore.{name}] in {}; there is {}", config.path.display(), known.join(", "));
    };
    let keystore = OpenKeystore::open(keystore)?;
    keystore.wait_ready(PATIENCE)?;
    Ok(keystore)
}

/// A line that is not shown; from standard input where there is no terminal.
fn secret_line(prompt: &str) -> Result<Zeroizing<Vec<u8>>> {
    if std::io::stdin().is_terminal() {
        return Ok(Zeroizing::new(rpassword::prompt_password(prompt)?.into_bytes()));
    }
    // Room for all of it: a buffer that grows leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_MAX));
    let read = std::io::stdin().lock().take(u64::try_from(LINE_MAX)?).read_until(b'\n', &mut line)?;
    if read == LINE_MAX {
        bail!("the line is longer than {LINE_MAX} bytes");
    }
    Ok(line)
}

/// Keys of the right shape, to try the script with before real ones are made.
fn stand_in(kind: Kind, network: Network, account: &DerivationPath) -> Result<(BoundKeys, String)> {
    let secp = Secp256k1::new();
    match kind {
        Kind::Hsm => {
            let public_key: PublicKey = PrivateKey::new(SecretKey::from_slice(&[0x51; 32])?, network).public_key(&secp);
            Ok((BoundKeys::Hsm { public_key }, public_key.to_string()))
        }
        Kind::Seed => {
            let master = Xpriv::new_master(NetworkKind::from(network), &[0x51; 32])?;
            let xpub = Xpub::from_priv(&secp, &master.derive_priv(&secp, account)?);
            let key = AccountKey { fingerprint: master.fingerprint(&secp), path: account.clone(), xpub };
            let text = key.to_string();
            Ok((BoundKeys::Seed { accounts: vec![key] }, text))
        }
        Kind::Pool => Ok((BoundKeys::Pool, String::new())),
    }
}
