//! What a configuration expects of the machine: secrets that can be read, users that exist. Looked at by `check`, not when a
//! file is merely read: it may be for another machine.

use std::{env, fs::File, os::unix::fs::MetadataExt as _, path::Path};

use postern_protocol::config_file::ConfigError;

use super::{Config, KeystoreTable, TpmTable};
use crate::{daemon, keystore::PinSource, tpm::Tpm};

impl Config {
    /// Looks for the files and users that the configuration names. Returns what cannot be told from here.
    ///
    /// # Errors
    /// [`ConfigError`]: the first one that is not there, and what to do.
    pub fn check_machine(&self) -> Result<Vec<String>, ConfigError> {
        for user in self.socket_terms.gates.iter().chain(&self.socket_terms.operators) {
            daemon::uid(user.get_ref()).map_err(|e| self.source.at(user.span(), e))?;
        }
        let mut unknown = vec![];
        for (name, table) in &self.keystores {
            let (key, secret) = table.secret();
            let at = |problem: String| self.source.at(secret.span(), problem);
            match secret.get_ref().source() {
                PinSource::File(path) => check_secret(&self.source.beside(path)).map_err(at)?,
                PinSource::Credential(credential) => match env::var_os("CREDENTIALS_DIRECTORY") {
                    Some(folder) => {
                        check_present(&Path::new(&folder).join(credential)).map_err(at)?;
                    }
                    None => unknown.push(format!(
                        "[keystore.{name}] {key}: the credential `{credential}` cannot be looked for here; systemd gives it to the service"
                    )),
                },
            }
            let table = match table {
                KeystoreTable::Pkcs11(table) => table,
                KeystoreTable::Tpm(table) => {
                    if table.tcti.get_ref().device().is_none() && !self.sandbox.dangerous_network {
                        let problem = "a software TPM is reached over TCP, and the sandbox lets nobody dial; write [sandbox] dangerous_network = true";
                        return Err(self.source.at(table.tcti.span(), problem));
                    }
                    unknown.extend(look_at_tpm(name, table).map_err(|problem| self.source.at(table.tcti.span(), problem))?);
                    continue;
                }
            };
            // A name without a folder is looked for by the loader.
            let module = table.module.get_ref();
            if module.components().count() > 1
                && let Err(e) = File::open(module)
            {
                let problem = format!("{} cannot be opened: {e}; install the token's PKCS#11 library", module.display());
                return Err(self.source.at(table.module.span(), problem));
            }
        }
        Ok(unknown)
    }
}

/// Asks the TPM who it is. Its secrets are not touched.
fn look_at_tpm(name: &str, table: &TpmTable) -> Result<Vec<String>, String> {
    let mut warnings = vec![];
    let looked = Tpm::new(table.tcti.get_ref().clone()).with(|tpm| {
        let (about, pcrs, lockout) = (tpm.about()?, tpm.pcrs(&table.pcrs)?, tpm.lockout()?);
        if let Some(software) = about.software() {
            warnings.push(format!(
                "[keystore.{name}] the TPM says that it is {about}: software ({software}). Whoever can copy its state can put its \
                 memory back, so as an anchor it protects from nothing, and its seeds are as safe as the machine under it"
            ));
        }
        let zero: Vec<String> = pcrs.0.iter().filter(|(_, value)| **value == [0; 32]).map(|(index, _)| index.to_string()).collect();
        if !zero.is_empty() {
            warnings.push(format!(
                "[keystore.{name}] nothing was measured into PCR {}: sealing to it says nothing about what was booted",
                zero.join(" and ")
            ));
        }
        if lockout.forbids_trying() {
            warnings.push(format!("[keystore.{name}] {lockout}"));
        }
        Ok(())
    });
    looked.map_err(|error| format!("{error}; is the TPM switched on in the firmware, and the signer's user in the group `tss`?"))?;
    if table.pcrs.is_empty() {
        warnings.push(format!("[keystore.{name}] pcrs = []: seeds open whatever was booted, with the auth value alone"));
    }
    Ok(warnings)
}

fn check_present(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|e| format!("the secret {} cannot be read: {e}", path.display()))
}

/// A secret that others can read is none.
fn check_secret(path: &Path) -> Result<(), String> {
    let metadata = check_present(path)?.metadata().map_err(|e| format!("{}: {e}", path.display()))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(format!("the secret {0} can be read by others; chmod 600 {0}", path.display()));
    }
    Ok(())
}
