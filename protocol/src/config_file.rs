//! Configuration files (TOML): a size cap, one read, one parse, and errors as people need them: file, line, what stands there,
//! what was probably meant. The only I/O of this crate.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

/// Largest configuration file, in bytes.
pub const CONFIG_MAX: u64 = 1024 * 1024;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not there, not allowed, not text.
    #[error("{path}: cannot be read: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// Too large to be a configuration.
    #[error("{path}: {length} bytes; at most {max} are read")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        length: u64,
        /// What is allowed, in bytes.
        max: u64,
    },
    /// A line is wrong.
    #[error("{path}:{line}: {problem}\n  {line:>4} | {source_line}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what was probably meant.
        problem: String,
        /// The line's text.
        source_line: String,
    },
    /// Something is wrong with the whole.
    #[error("{path}: {problem}")]
    Whole {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Reads a TOML file into its type.
///
/// # Errors
/// [`ConfigError`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse(path, &read_text(path)?)
}

/// A file's text, when it is small enough to be a configuration.
///
/// # Errors
/// [`ConfigError::Unreadable`], [`ConfigError::TooLarge`].
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable { path: path.into(), cause };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > CONFIG_MAX {
        return Err(ConfigError::TooLarge { path: path.into(), length, max: CONFIG_MAX });
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// The same for a text that is already here; `path` is for the message.
///
/// # Errors
/// [`ConfigError`].
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|e| ConfigError::from_toml(path, text, &e))
}

impl ConfigError {
    fn from_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let problem = with_nearest(error.message());
        match error.span() {
            Some(span) => Self::at(path, text, span.start, problem),
            None => Self::Whole { path: path.into(), problem },
        }
    }

    /// Something is wrong with the value that stands at a byte offset of the text.
    #[must_use]
    pub fn at(path: &Path, text: &str, offset: usize, problem: String) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count().saturating_add(1);
        let source_line = without_secret(text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim_end());
        Self::Line { path: path.into(), line, problem, source_line }
    }
}

/// The line as it may be shown: a value whose key is about a secret is left out, whatever is wrong with it.
fn without_secret(line: &str) -> String {
    let Some((key, _)) = line.split_once('=') else { return line.to_owned() };
    let lower = key.to_ascii_lowercase();
    let about_secret = ["pin", "pass", "secret", "credential"].iter().any(|word| lower.contains(word));
    if about_secret { format!("{key}= …") } else { line.to_owned() }
}

/// Adds "did you mean" to serde's "unknown field `x`, expected one of `a`, `b`".
fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(unknown), true) = (quoted.next(), message.starts_with("unknown ")) else { return message.to_owned() };
    let nearest = quoted.map(|known| (strsim::damerau_levenshtein(unknown, known), known)).min();
    let what = if message.starts_with("unknown field") { "key" } else { "value" };
    let known = message.split_once(", ").map_or("", |(_, known)| known);
    match nearest {
        Some((distance, known)) if distance <= 3 && distance < known.len() => {
            format!("unknown {what} `{unknown}`; did you mean `{known}`?")
        }
        _ => format!("unknown {what} `{unknown}`; {known}"),
    }
}
