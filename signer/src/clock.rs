//! Time as the limits see it: how long this process has run. It does not move with the wall clock, and time in which the
//! signer did not run does not count.
//!
//! It is Linux's CLOCK_MONOTONIC_RAW, which nobody can set, which stands still while the machine is suspended (CLOCK_BOOTTIME goes
//! on), and which no time server can make run faster (CLOCK_MONOTONIC is slewed towards the wall clock, by chrony up to a tenth).

use std::time::Duration;

/// Time since the daemon started, suspended time not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uptime(pub Duration);

impl Uptime {
    /// From milliseconds.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// Whole milliseconds.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The one place that reads the clock. Everything else gets [`Uptime`] as an argument.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Duration,
}

impl Clock {
    /// Starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self { started: reading() }
    }

    /// How long ago that was.
    #[must_use]
    pub fn now(&self) -> Uptime {
        Uptime(reading().saturating_sub(self.started))
    }
}

fn reading() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicRaw);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    const INSIDE: &str = "POSTERN_CLOCK_TEST";
    const TEST: &str = "clock::tests::suspended_time_is_no_uptime";

    /// To a process a suspended machine is one whose CLOCK_BOOTTIME is ahead of its CLOCK_MONOTONIC. A time namespace is one as well.
    #[test]
    fn suspended_time_is_no_uptime() {
        if std::env::var_os(INSIDE).is_some() {
            let read = |clock| u64::try_from(clock_gettime(clock).tv_sec).unwrap();
            let suspended = read(ClockId::Boottime) - read(ClockId::Monotonic);
            assert!(suspended > 700_000, "the namespace does not look like a suspended machine: {suspended} s");
            let awake = read(ClockId::Monotonic);
            assert!(reading().as_secs().abs_diff(awake) < 3_600, "{:?} is not {awake} s", reading());
            return;
        }
        let program = std::env::current_exe().unwrap();
        let inside = |options: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(options).args(["--time", "--monotonic", "100000", "--boottime", "900000", "--"]).arg(&program);
            command.args(["--exact", TEST, "--nocapture"]).env(INSIDE, "1").output().unwrap()
        };
        // Without root a time namespace needs a user namespace around it.
        let plain = inside(&[]);
        let output = if plain.status.success() { plain } else { inside(&["--user", "--map-root-user"]) };
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    fn a_clock_starts_at_zero_and_never_goes_back() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(first < Uptime::from_millis(60_000));
        assert!((0..1_000).map(|_| clock.now()).is_sorted());
        assert!(clock.now() >= first);
    }
}
