//! Waiting for events: a condition is polled until it holds or a deadline passes. Nothing waits for time to pass.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Time enough for anything that happens on one machine, also on a busy one.
pub const PATIENCE: Duration = Duration::from_secs(60);

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Polls until there is a value. An error ends the wait at once.
///
/// # Errors
/// What `poll` reports, or that `what` did not come within `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut poll: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(value) = poll().with_context(|| format!("while waiting for {what}"))? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Polls until a condition holds.
///
/// # Errors
/// As [`wait_for`].
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, limit, || Ok(holds()?.then_some(())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_wait_ends_with_the_event_with_an_error_or_with_its_deadline() {
        let mut left = 3;
        let event = wait_for("three", PATIENCE, || {
            left -= 1;
            Ok((left == 0).then_some("came"))
        });
        assert_eq!(event.unwrap(), "came");
        let late = wait_until("godot", Duration::from_millis(5), || Ok(false)).unwrap_err();
        assert!(late.to_string().contains("godot"), "{late}");
        assert!(wait_until("a thing", PATIENCE, || bail!("broke")).is_err());
    }
}
