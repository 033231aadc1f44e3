//! `postern status`: the running signer's limits as gauges, and whatever an operator wants to see.

use std::time::{Duration, UNIX_EPOCH};

use anstyle::Style;
use anyhow::Result;
use postern_protocol::{
    reply::{LimitLevel, ReplyBody, Status},
    request::RequestBody,
    units::{format_amount_sat, format_duration_ms},
};

use super::{
    Ending,
    paint::{BAD, DIM, GOOD, HEAD, WARN, paint},
    site::{Answer, Site, say_refusal, unexpected},
};

/// Cells of a gauge.
const CELLS: u64 = 20;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct ShowStatus {
    /// For programs.
    #[arg(long)]
    json: bool,
}

impl ShowStatus {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        let status = match site.ask(RequestBody::Status)? {
            Answer::Reply(ReplyBody::Status(status)) => status,
            Answer::Refused(refusal) => return Ok(say_refusal(&refusal)),
            Answer::Reply(_) => return unexpected(),
        };
        if self.json {
            say!("{}", serde_json::to_string_pretty(&status)?);
        } else {
            show(&status);
        }
        Ok(Ending::Done)
    }
}

fn show(status: &Status) {
    say!("{} on {}, running for {}", paint(HEAD, &status.signer), status.network, about(status.uptime_ms));
    say!("  identity  {}", status.identity);
    say!("  policy    {}", status.policy_hash);
    say!("  charged   {} in {}, ever", format_amount_sat(status.charged_sat), counted(status.charged_transactions, "transaction"));
    say!("  ledger    entry {}, {}", status.ledger_seq, status.ledger_head);
    say!("  anchor    {}", status.anchor);
    if let Some(base) = &status.base {
        say!("  re-based  {base}");
    }
    if let Some(needed) = &status.rebase {
        say!("{}", paint(BAD, "Nothing is signed: the managers must re-base (docs/ledger.md)"));
        say!("  why        {}", needed.why);
        say!("  challenge  {}", needed.challenge);
        say!("  spent      at least {}", format_amount_sat(needed.least_sat));
    }

    say!("{}", paint(HEAD, "Limits"));
    if status.limits.is_empty() && status.rebase.is_some() {
        say!("  {}", paint(DIM, "read with the re-base"));
    } else if status.limits.is_empty() {
        say!("  {}", paint(WARN, "none: everything may leave"));
    }
    let width = status.limits.iter().map(|limit| limit.scope.chars().count()).max().unwrap_or_default();
    for limit in &status.limits {
        let (style, bar) = gauge(limit);
        let (available, capacity) = (format_amount_sat(limit.available_sat), format_amount_sat(limit.capacity_sat));
        say!("  {:width$}  {}  {available} of {capacity}, {}", limit.scope, paint(style, bar), limit.name);
    }

    say!("{}", paint(HEAD, "Keystores"));
    for keystore in &status.keystores {
        let style = if keystore.ready { GOOD } else { BAD };
        say!("  {}  {}  {}", keystore.name, paint(style, &keystore.state), paint(DIM, &keystore.token));
    }
    if !status.frozen.is_empty() {
        say!("{}", paint(HEAD, "Stopped"));
        status.frozen.iter().for_each(|scope| say!("  {}", paint(BAD, scope)));
    }
    if !status.refusals.is_empty() {
        say!("{}", paint(HEAD, "Last refusals"));
        for refusal in &status.refusals {
            let wallet = if refusal.wallet.is_empty() { "-" } else { &refusal.wallet };
            say!("  {}  {wallet}  {}", date(refusal.at), paint(WARN, &refusal.code));
            say!("    {}", paint(DIM, &refusal.message));
        }
    }
}

/// What is left, in cells; a little is never shown as nothing, nor as all.
fn gauge(limit: &LimitLevel) -> (Style, String) {
    let (left, whole) = (u128::from(limit.available_sat.min(limit.capacity_sat)), u128::from(limit.capacity_sat.max(1)));
    let cells = left.saturating_mul(u128::from(CELLS)).checked_div(whole).and_then(|cells| u64::try_from(cells).ok()).unwrap_or(CELLS);
    let full = match (left, cells) {
        (0, _) => 0,
        (_, 0) => 1,
        (left, CELLS) if left < whole => CELLS.saturating_sub(1),
        (_, cells) => cells,
    };
    let style = match full {
        0 => BAD,
        1..=5 => WARN,
        _ => GOOD,
    };
    let bar: String = (0..CELLS).map(|cell| if cell < full { '█' } else { '░' }).collect();
    (style, bar)
}

/// `1 transaction`, `2 transactions`.
pub(super) fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A time for people, to two units: `3 h 5 min`.
pub(super) fn about(ms: u64) -> String {
    let units: [(&str, u64); 4] = [("day", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    let mut rest = ms;
    let mut words = vec![];
    for (unit, unit_ms) in units {
        let count = rest.checked_div(unit_ms).unwrap_or_default();
        rest = rest.saturating_sub(count.saturating_mul(unit_ms));
        if count > 0 && words.len() < 2 {
            let plural = if unit == "day" && count > 1 { "s" } else { "" };
            words.push(format!("{count} {unit}{plural}"));
        } else if !words.is_empty() {
            break;
        }
    }
    if words.is_empty() { format_duration_ms(ms) } else { words.join(" ") }
}

/// Seconds since 1970 as a date, UTC.
pub(super) fn date(at_s: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(at_s)) {
        // Years of more digits are not formatted.
        Some(time) if at_s < 253_402_300_800 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => format!("{at_s} s after 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(available_sat: u64, capacity_sat: u64) -> usize {
        let limit = LimitLevel { scope: "signer".into(), name: "total".into(), available_sat, capacity_sat, refill_sat: 0, per_ms: 0 };
        gauge(&limit).1.matches('█').count()
    }

    #[test]
    fn a_gauge_is_empty_only_when_nothing_is_left_and_full_only_when_nothing_is_used() {
        assert_eq!((full(0, 100), full(1, 1_000_000), full(999_999, 1_000_000), full(100, 100)), (0, 1, 19, 20));
        assert_eq!((full(0, 0), full(u64::MAX, u64::MAX), full(50, 100)), (0, 20, 10));
    }

    #[test]
    fn times_are_said_in_at_most_two_units() {
        assert_eq!(about(0), "0 ms");
        assert_eq!(about(1_500), "1 s");
        assert_eq!(about(11_100_000), "3 h 5 min");
        assert_eq!(about(2 * 86_400_000 + 5_000), "2 days");
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert!(date(u64::MAX).contains("after 1970"));
    }
}
