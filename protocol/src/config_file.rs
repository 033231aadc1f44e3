//! Configuration files (TOML): a size cap, one read, one parse, and errors as people need them: file, line, what stands there,
//! what was probably meant. The only I/O of this crate.

use std::{
    fs::File,
    io::{self, Read as _},
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
    #[error("{path}: larger than {max} bytes, too large to be a configuration; is it the right file?")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is allowed, in bytes.
        max: u64,
    },
    /// A line is wrong.
    #[error("{path}:{line}:{column}: {problem}\n  {line:>4} | {source_line}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
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
/// [`ConfigError::Unreadable`], [`ConfigError::TooLarge`], and [`ConfigError::Line`] for what is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable { path: path.into(), cause };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // The cap holds for what is read, not for what the file says of its size: it may be a pipe or a device.
    file.take(CONFIG_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > CONFIG_MAX {
        return Err(ConfigError::TooLarge { path: path.into(), max: CONFIG_MAX });
    }
    String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(e.as_bytes());
        ConfigError::at(path, &text, good, "this is not UTF-8 text; save the file as UTF-8".into())
    })
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
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
        let source_line = showable(text, line.saturating_sub(1));
        Self::Line { path: path.into(), line, column, problem, source_line }
    }
}

/// A line as it may be shown: a value whose key is about a secret is left out, whatever is wrong with it and however many
/// lines it has.
fn showable(text: &str, number: usize) -> String {
    let mut about_secret = false;
    let mut shown = "";
    for line in text.lines().take(number.saturating_add(1)) {
        let lower = line.to_ascii_lowercase();
        if line.contains('=') || line.trim_start().starts_with('[') {
            about_secret = ["pin", "pass", "secret", "credential", "private"].iter().any(|word| lower.contains(word));
        }
        shown = line;
    }
    match (about_secret, shown.split_once('=')) {
        (false, _) => shown.trim_end().to_owned(),
        (true, Some((key, _))) => format!("{key}= …"),
        (true, None) => "…".to_owned(),
    }
}

/// Whether so many slips of the finger may have made another word of this one.
#[must_use]
pub fn is_near(distance: usize, word: &str) -> bool {
    distance <= (word.len() / 3).max(1)
}

/// Words serde's and toml's messages for people who read neither's source, and adds "did you mean" to "unknown field `x`,
/// expected one of `a`, `b`".
fn with_nearest(message: &str) -> String {
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {key} is missing here");
    }
    if message == "duplicate key" {
        return "duplicate key: each key and each table stands once".into();
    }
    if message.starts_with("invalid type") && message.ends_with("expected a string") {
        return format!("{message}; put it in quotes");
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(unknown), true) = (quoted.next(), message.starts_with("unknown ")) else { return message.to_owned() };
    let nearest = quoted.map(|known| (strsim::damerau_levenshtein(unknown, known), known)).min();
    let what = if message.starts_with("unknown field") { "key" } else { "value" };
    let known = message.split_once(", ").map_or("", |(_, known)| known);
    match nearest {
        Some((distance, known)) if is_near(distance, known) => format!("unknown {what} `{unknown}`; did you mean `{known}`?"),
        _ => format!("unknown {what} `{unknown}`; {known}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Table {
        #[allow(dead_code)]
        amount: u32,
    }

    fn said(text: &str) -> String {
        parse::<Table>(Path::new("f.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_line_and_column_and_the_key_that_was_meant() {
        assert_eq!(said("# ü\n  amuont = 1"), "f.toml:2:3: unknown key `amuont`; did you mean `amount`?\n     2 |   amuont = 1");
        assert_eq!(said("\n"), "f.toml:1:1: the key `amount` is missing here\n     1 | ");
    }

    #[test]
    fn a_secret_is_not_shown_wherever_it_stands() {
        for text in ["pin = 'hunter2' x", "x = { pin = 'hunter2' } y", "pin = \"\"\"\nhunter2 \\q", "passphrase = [\n'hunter2' 'x'"] {
            let said = said(text);
            assert!(said.starts_with("f.toml:") && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn what_is_not_a_small_text_is_not_a_configuration() {
        let refused = |name: &str| read_text(Path::new(name)).unwrap_err();
        assert!(matches!(refused("/dev/zero"), ConfigError::TooLarge { .. }));
        assert!(matches!(refused("/does/not/exist"), ConfigError::Unreadable { .. }));
        assert!(matches!(refused("/dev"), ConfigError::Unreadable { .. }));
    }
}
