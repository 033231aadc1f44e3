//! When a private network works. "Bootstrapped 100%" comes earlier than that: the first consensuses lack relays and flags.

use std::path::Path;

/// What each node must be to each node.
const FLAGS: [&str; 6] = ["Running", "Valid", "Fast", "Stable", "Guard", "HSDir"];

/// Whether the node's newest consensus lists so many relays with all flags, and is one of the regular interval.
pub(super) fn is_complete(folder: &Path, relays: usize) -> bool {
    let Ok(text) = std::fs::read_to_string(folder.join("cached-microdesc-consensus")) else { return false };
    let flagged = text
        .lines()
        .filter_map(|line| line.strip_prefix("s "))
        .filter(|flags| FLAGS.iter().all(|flag| flags.split(' ').any(|f| f == *flag)))
        .count();
    flagged == relays && is_regular(&text)
}

/// Clients reject a consensus of the shorter first interval for onion services: the time periods do not fit.
fn is_regular(text: &str) -> bool {
    let second = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let mut clock = line.trim().split(' ').nth(1)?.split(':').map(|part| part.parse::<u32>().ok());
        Some(clock.next()?? * 3600 + clock.next()?? * 60 + clock.next()??)
    };
    let (Some(from), Some(until)) = (second("valid-after "), second("fresh-until ")) else { return false };
    // Over midnight the difference wraps.
    (until + 86_400 - from) % 86_400 == super::torrc::INTERVAL_S
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_consensus_counts_when_all_relays_have_all_flags_at_the_regular_interval() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join("cached-microdesc-consensus"), text).unwrap();
        let head = "valid-after 2026-01-01 23:59:50\nfresh-until 2026-01-02 00:00:05\n";
        let good = "s Fast Guard HSDir Running Stable V2Dir Valid\n";
        assert!(!is_complete(folder.path(), 1), "no consensus");
        write(&format!("{head}{good}{good}"));
        assert!(is_complete(folder.path(), 2));
        assert!(!is_complete(folder.path(), 3), "a relay is missing");
        write(&format!("{head}{good}{}", good.replace("HSDir ", "")));
        assert!(!is_complete(folder.path(), 2), "a flag is missing");
        write(&format!("{}{good}", head.replace("00:00:05", "23:59:55")));
        assert!(!is_complete(folder.path(), 1), "the first, shorter interval");
    }
}
