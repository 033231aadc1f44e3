//! SoftHSM tokens, each in a folder of its own with a configuration of its own, so that tests never see each other's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use rand::{Rng as _, distributions::Alphanumeric};

use crate::{program, run::TempRun};

/// An initialised token.
#[derive(Debug)]
pub struct Token {
    label: String,
    serial: String,
    pin: String,
    pin_file: PathBuf,
    module: PathBuf,
    conf: PathBuf,
    tokens: PathBuf,
    _run: TempRun,
}

impl Token {
    /// Initialises a token with random PINs in `NAME.tokens` of the run's folder.
    ///
    /// # Errors
    /// When SoftHSM is not installed or refuses.
    pub fn new(run: &TempRun, label: &str) -> Result<Self> {
        let module = program::softhsm_module()?;
        let tokens = run.folder(&format!("{label}.tokens"))?;
        let conf = run.write(
            format!("{label}.softhsm2.conf"),
            format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
                tokens.display()
            ),
        )?;
        let pin = random_pin();
        let pin_file = run.write(format!("{label}.pin"), &pin)?;
        let tool = program::on_path("softhsm2-util").context("softhsm2-util is not installed; `cargo xtask setup` installs it")?;
        let util = |arguments: &[&str]| {
            let mut command = Command::new(&tool);
            program::output(command.args(arguments).arg("--module").arg(&module).env("SOFTHSM2_CONF", &conf))
        };
        util(&["--init-token", "--free", "--label", label, "--pin", &pin, "--so-pin", &random_pin()])?;
        let slots = util(&["--show-slots"])?;
        let serial = serial_of(&slots, label).with_context(|| format!("no token `{label}` in:\n{slots}"))?;
        Ok(Self { label: label.into(), serial, pin, pin_file, module, conf, tokens, _run: run.clone() })
    }

    /// Its label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its serial number.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The user's PIN.
    #[must_use]
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// A file with the PIN, mode 0600.
    #[must_use]
    pub fn pin_file(&self) -> &Path {
        &self.pin_file
    }

    /// The PKCS#11 module.
    #[must_use]
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The environment that a process needs to see this token and no other.
    #[must_use]
    pub fn env(&self) -> (&'static str, &Path) {
        ("SOFTHSM2_CONF", &self.conf)
    }

    /// As if the token was pulled out. Processes that have it open see it go.
    ///
    /// # Errors
    /// When it is out already.
    pub fn pull_out(&self) -> Result<()> {
        fs::rename(&self.tokens, self.away()).context("the token is out already")?;
        fs::create_dir(&self.tokens)?;
        Ok(())
    }

    /// Puts it back as it was.
    ///
    /// # Errors
    /// When it is not out.
    pub fn put_back(&self) -> Result<()> {
        // The module may have made files of its own in the empty folder; they belong to no token.
        let away = self.away();
        anyhow::ensure!(away.is_dir(), "the token is not out");
        fs::remove_dir_all(&self.tokens)?;
        fs::rename(away, &self.tokens)?;
        Ok(())
    }

    fn away(&self) -> PathBuf {
        self.tokens.with_extension("pulled")
    }
}

fn random_pin() -> String {
    rand::thread_rng().sample_iter(Alphanumeric).take(16).map(char::from).collect()
}

/// `softhsm2-util --show-slots` lists, for each slot, the serial number before the label.
fn serial_of(slots: &str, label: &str) -> Option<String> {
    let mut serial = None;
    for line in slots.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        match (name.trim(), value.trim()) {
            ("Serial number", value) => serial = Some(value.to_owned()),
            ("Label", value) if value == label => return serial,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_has_a_serial_goes_away_and_comes_back_the_same() {
        let run = TempRun::new("token").unwrap();
        let token = Token::new(&run, "vault").unwrap();
        assert_eq!(token.serial().len(), 16, "{}", token.serial());
        let look = || {
            let (name, conf) = token.env();
            let mut util = Command::new(program::on_path("softhsm2-util").unwrap());
            serial_of(&program::output(util.arg("--show-slots").env(name, conf)).unwrap(), "vault")
        };
        assert_eq!(look().as_deref(), Some(token.serial()));
        token.pull_out().unwrap();
        assert_eq!(look(), None);
        token.put_back().unwrap();
        assert_eq!(look().as_deref(), Some(token.serial()));
    }
}
