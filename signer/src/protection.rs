//! One protection: whether it is on, and in words what that means. `postern-signer check` lists all of them, and the daemon writes
//! them to its log when it starts.

use serde::Serialize;

/// A protection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protection {
    /// A stable name, for programs.
    pub name: &'static str,
    /// Whether it protects.
    pub on: bool,
    /// What that means, for people.
    pub words: String,
}

impl Protection {
    /// One that is on.
    #[must_use]
    pub fn on(name: &'static str, words: impl Into<String>) -> Self {
        Self { name, on: true, words: words.into() }
    }

    /// One that is off.
    #[must_use]
    pub fn off(name: &'static str, words: impl Into<String>) -> Self {
        Self { name, on: false, words: words.into() }
    }

    /// One or the other.
    #[must_use]
    pub fn new(name: &'static str, on: bool, when_on: &str, when_off: &str) -> Self {
        Self { name, on, words: if on { when_on } else { when_off }.into() }
    }
}

/// The line for the log: names of what is on, and of what is off. `postern-signer check` says what they mean.
#[must_use]
pub fn line(list: &[Protection]) -> String {
    let names = |on: bool| {
        let mut names: Vec<&str> = vec![];
        for protection in list.iter().filter(|protection| protection.on == on) {
            if !names.contains(&protection.name) {
                names.push(protection.name);
            }
        }
        if names.is_empty() { "nothing".into() } else { names.join(", ") }
    };
    format!("protections on: {}; off: {}", names(true), names(false))
}
