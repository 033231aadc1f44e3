//! Where SoftHSM keeps its tokens: its configuration says it, and its library reads that again whenever a token comes back.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// What SoftHSM's library works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `softhsm2.conf`
    pub config: PathBuf,
    /// `directories.tokendir`
    pub tokens: PathBuf,
}

/// Whether a module is SoftHSM's: by the name of its file.
#[must_use]
pub fn is_module(module: &Path) -> bool {
    module.file_name().is_some_and(|name| name.to_string_lossy().contains("softhsm"))
}

/// Its places, in the order in which the library looks for its configuration. None: it has no configuration, and no tokens.
#[must_use]
pub fn places() -> Option<Places> {
    let named = env::var_os("SOFTHSM2_CONF").map(PathBuf::from);
    let own = env::var_os("HOME").map(|home| Path::new(&home).join(".config/softhsm2/softhsm2.conf"));
    let system = ["/etc/softhsm/softhsm2.conf", "/etc/softhsm2.conf"].map(PathBuf::from);
    let config = match named {
        Some(named) => named,
        None => own.into_iter().chain(system).find(|path| path.is_file())?,
    };
    let tokens = token_folder(&fs::read_to_string(&config).ok()?)?;
    Some(Places { config, tokens })
}

fn token_folder(text: &str) -> Option<PathBuf> {
    let mut settings = text.lines().filter_map(|line| line.split('#').next()?.split_once('='));
    settings.find(|(name, _)| name.trim() == "directories.tokendir").map(|(_, value)| value.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_folder_is_read_as_softhsm_writes_it() {
        let text = "# directories.tokendir = /no\nlog.level = ERROR\ndirectories.tokendir = /var/lib/softhsm/tokens/ # here\n";
        assert_eq!(token_folder(text), Some("/var/lib/softhsm/tokens/".into()));
        assert_eq!(token_folder("objectstore.backend = file\n"), None);
    }

    #[test]
    fn softhsm_is_known_by_its_files_name() {
        assert!(is_module(Path::new("/usr/lib/softhsm/libsofthsm2.so")));
        assert!(!is_module(Path::new("/opt/vendor/lib/libCryptoki2.so")));
    }
}
