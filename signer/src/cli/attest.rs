//! `postern attest`: what this machine booted, signed by its TPM; and `postern attest verify`, for whoever asked.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use postern_protocol::{
    attest::{Expected, STATEMENT_MAX, Statement, check_nonce, explain, pcr_meaning},
    key::PublicKey,
};

use super::{
    Ending,
    paint::{BAD, DIM, GOOD, HEAD, paint},
    site::Site,
    wallet::PcrValue,
};
use crate::{
    attest,
    config::{Config, TpmTable},
    identity::Identity,
    tpm::Tpm,
};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Attest {
    #[command(subcommand)]
    verify: Option<Task>,
    /// What whoever asks gave: 16 to 128 characters, new for each question.
    #[arg(long, value_name = "TEXT", required = true)]
    nonce: Option<String>,
    /// The [keystore.NAME] whose TPM speaks; needed where there are several.
    #[arg(long, value_name = "NAME")]
    keystore: Option<String>,
    /// The statement goes to standard output, for programs.
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// The statement goes to this file.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Check a statement against one that is known to be good, and say in words what holds.
    Verify(Verify),
}

/// Arguments.
#[derive(Debug, clap::Args)]
struct Verify {
    /// The statement.
    file: PathBuf,
    /// The nonce that was given for it.
    #[arg(long, value_name = "TEXT")]
    nonce: String,
    /// A statement that is known to be good, kept since the set-up: its signer, attestation key and PCRs are expected.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// The signer's identity, instead of the good statement's.
    #[arg(long, value_name = "ed25519:…")]
    signer: Option<PublicKey>,
    /// The attestation key, instead of the good statement's.
    #[arg(long, value_name = "p256:…")]
    key: Option<String>,
    /// A PCR's value, instead of the good statement's: after an update, say.
    #[arg(long, value_name = "PCR=SHA256")]
    pcr: Vec<PcrValue>,
}

impl Attest {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        if let Some(Task::Verify(verify)) = &self.verify {
            return verify.run();
        }
        let nonce = self.nonce.as_deref().context("--nonce TEXT is what whoever asks gave")?;
        check_nonce(nonce)?;
        let config = site.config()?;
        let (name, table) = self.tpm(&config)?;
        let identity = Identity::open(&config.state).context("run this as the user that the signer runs as")?;
        let key = attest::read_key(&config.state, name)?;
        let event_log = table.tcti.get_ref().device().and_then(attest::event_log);
        let tpm = Tpm::new(table.tcti.get_ref().clone());
        let statement =
            attest::state(&tpm, &key, &table.pcrs, &identity, nonce, event_log).with_context(|| format!("[keystore.{name}]"))?;
        let json = serde_json::to_string_pretty(&statement)?;
        match &self.output {
            _ if self.json => say!("{json}"),
            Some(file) => {
                std::fs::write(file, json).with_context(|| file.display().to_string())?;
                anstream::eprintln!("{} {}", paint(HEAD, "Written:"), file.display());
            }
            None => {
                say!("{} {}", paint(HEAD, "Signer:"), statement.signer);
                say!("{} {}", paint(HEAD, "Attestation key:"), statement.key);
                for (index, value) in &statement.pcrs.0 {
                    say!("PCR {index} ({}) {}", pcr_meaning(*index), hex::encode(value));
                }
                let log = if statement.event_log.is_some() { "with" } else { "no" };
                say!("{}", paint(DIM, format!("Signed by the TPM, {log} event log; -o FILE writes the statement for whoever asked.")));
            }
        }
        Ok(Ending::Done)
    }

    fn tpm<'c>(&'c self, config: &'c Config) -> Result<(&'c str, &'c TpmTable)> {
        let mut known = config.keystores.iter().filter_map(|(name, table)| Some((name.as_str(), table.tpm()?)));
        match &self.keystore {
            Some(wanted) => known.find(|(name, _)| name == wanted).with_context(|| format!("no [keystore.{wanted}] of kind \"tpm\"")),
            None => match (known.next(), known.next()) {
                (Some(only), None) => Ok(only),
                (None, _) => bail!("no keystore of kind \"tpm\" is configured; only a TPM attests"),
                _ => bail!("several keystores are TPMs; say with --keystore NAME which is meant"),
            },
        }
    }
}

impl Verify {
    fn run(&self) -> Result<Ending> {
        check_nonce(&self.nonce)?;
        let statement = read(&self.file)?;
        let good = self.expect.as_deref().map(read).transpose()?;
        let needed = "say it, or give a good statement with --expect FILE";
        let signer = self.signer.or(good.as_ref().map(|good| good.signer)).with_context(|| format!("--signer ed25519:…: {needed}"))?;
        let key = self.key.clone().or(good.as_ref().map(|good| good.key.clone())).with_context(|| format!("--key p256:…: {needed}"))?;
        let mut pcrs = good.as_ref().map(|good| good.pcrs.clone()).unwrap_or_default();
        pcrs.0.extend(self.pcr.iter().map(|PcrValue(index, value)| (*index, *value)));
        let findings = statement.verify(&Expected { nonce: self.nonce.clone(), signer, key, pcrs })?;
        for finding in &findings {
            let mark = if finding.holds { paint(GOOD, "Good:") } else { paint(BAD, "Bad: ") };
            say!("{mark} {}", finding.words);
        }
        for line in explain(&statement, good.as_ref()) {
            say!("{}", paint(DIM, format!("Log:  {line}")));
        }
        if findings.iter().all(|finding| finding.holds) {
            say!("{}", paint(HEAD, "The machine booted what is expected."));
            Ok(Ending::Done)
        } else {
            say!("{}", paint(HEAD, "Do not trust this machine before you know why."));
            Ok(Ending::Refused)
        }
    }
}

fn read(path: &Path) -> Result<Statement> {
    let mut bytes = vec![];
    let file = File::open(path).with_context(|| path.display().to_string())?;
    file.take(STATEMENT_MAX.saturating_add(1)).read_to_end(&mut bytes).with_context(|| path.display().to_string())?;
    if u64::try_from(bytes.len())? > STATEMENT_MAX {
        bail!("{} is larger than {STATEMENT_MAX} bytes: no attestation", path.display());
    }
    Statement::parse(&bytes).with_context(|| path.display().to_string())
}
