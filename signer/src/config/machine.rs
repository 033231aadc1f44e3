//! What a configuration expects of the machine: secrets that can be read, users that exist. Looked at by `check`, not when a
//! file is merely read: it may be for another machine.

use std::{env, fs::File, os::unix::fs::MetadataExt as _, path::Path};

use postern_protocol::config_file::ConfigError;

use super::Config;
use crate::{daemon, keystore::PinSource};

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
            let at = |problem: String| self.source.at(table.pin.span(), problem);
            match table.pin.get_ref().source() {
                PinSource::File(path) => check_secret(&self.source.beside(path)).map_err(at)?,
                PinSource::Credential(credential) => match env::var_os("CREDENTIALS_DIRECTORY") {
                    Some(folder) => {
                        check_present(&Path::new(&folder).join(credential)).map_err(at)?;
                    }
                    None => unknown.push(format!(
                        "[keystore.{name}] pin: the credential `{credential}` cannot be looked for here; systemd gives it to the service"
                    )),
                },
            }
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
