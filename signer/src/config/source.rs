//! The text that a configuration was read from, kept to say where in it a mistake stands.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use postern_protocol::config_file::{self, ConfigError};

/// A file and its text.
#[derive(Clone)]
pub(super) struct Source {
    path: PathBuf,
    text: Arc<str>,
}

impl Source {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        Ok(Self::new(path, &config_file::read_text(path)?))
    }

    pub(super) fn new(path: &Path, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// A path as it is written in the file: relative to the file's folder.
    pub(super) fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new(".")).join(path)
    }

    /// An error at a place of the text.
    pub(super) fn at(&self, span: Range<usize>, problem: impl fmt::Display) -> ConfigError {
        ConfigError::at(&self.path, &self.text, span.start, problem.to_string())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}
