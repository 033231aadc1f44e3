//! What people read while they wait: headings, how long each part took, one line for what is wrong.

use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use anyhow::Result;

const HEADING: Style = AnsiColor::Cyan.on_default().bold();
const PROBLEM: Style = AnsiColor::Red.on_default().bold();

/// A heading.
pub(crate) fn heading(text: &str) {
    anstream::eprintln!("{HEADING}▸ {text}{HEADING:#}");
}

/// A line below a heading.
pub(crate) fn note(text: &str) {
    anstream::eprintln!("  {text}");
}

/// What went wrong.
pub(crate) fn problem(text: &str) {
    anstream::eprintln!("{PROBLEM}✗{PROBLEM:#} {text}");
}

/// Says what begins, does it, and says how long it took.
pub(crate) fn phase<T>(text: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    heading(text);
    let start = Instant::now();
    let result = work();
    if result.is_ok() {
        note(&format!("{text}: {}", seconds(start.elapsed())));
    }
    result
}

/// `0.8 s`, `4 min 12 s`.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..=59 => format!("{:.1} s", time.as_secs_f64()),
        s => format!("{} min {} s", s / 60, s % 60),
    }
}
