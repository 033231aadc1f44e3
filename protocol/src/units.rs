//! Amounts, times, fee rates and shares as people write them: `"0.04 BTC"`, `"1 min"`, `"12 sat/vB"`, `"5 %"`.
//! Exact integer arithmetic; what cannot be expressed exactly is refused.

/// Satoshi in a bitcoin.
pub const SAT_PER_BTC: u64 = 100_000_000;
/// All bitcoin there will be, in satoshi.
pub const MAX_MONEY_SAT: u64 = 21_000_000 * SAT_PER_BTC;

/// Why a text is no amount, time, rate or share. Says what was written and what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct UnitError {
    /// What was written.
    pub text: String,
    /// What would be right.
    pub wanted: &'static str,
}

fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let at = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '_')))?;
    let (number, unit) = text.split_at_checked(at)?;
    Some((number, unit.trim()))
}

/// `number * 10^places` as an integer, exact.
fn decimal(number: &str, places: usize) -> Option<u64> {
    let number: String = number.chars().filter(|c| *c != '_').collect();
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    if whole.is_empty() || fraction.len() > places || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{whole}{fraction:0<places$}");
    digits.parse().ok()
}

/// An amount in satoshi from `"0.04 BTC"` or `"4000000 sat"`; at most 21,000,000 BTC.
///
/// # Errors
/// [`UnitError`].
pub fn parse_amount_sat(text: &str) -> Result<u64, UnitError> {
    let parsed = split(text).and_then(|(number, unit)| match unit {
        "BTC" => decimal(number, 8),
        "sat" | "sats" => decimal(number, 0),
        _ => None,
    });
    parsed
        .filter(|sat| *sat <= MAX_MONEY_SAT)
        .ok_or_else(|| UnitError { text: text.into(), wanted: "an amount such as \"0.04 BTC\" or \"4000000 sat\", at most 21,000,000 BTC" })
}

/// A time in milliseconds from `"250 ms"`, `"30 s"`, `"1 min"`, `"2 h"`, `"1 day"`, `"1 week"`; more than zero.
///
/// # Errors
/// [`UnitError`].
pub fn parse_duration_ms(text: &str) -> Result<u64, UnitError> {
    let parsed = split(text).and_then(|(number, unit)| {
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" | "sec" | "second" | "seconds" => 1_000,
            "min" | "minute" | "minutes" => 60_000,
            "h" | "hour" | "hours" => 3_600_000,
            "d" | "day" | "days" => 86_400_000,
            "week" | "weeks" => 604_800_000,
            _ => return None,
        };
        decimal(number, 0)?.checked_mul(unit_ms)
    });
    parsed
        .filter(|ms| *ms > 0)
        .ok_or_else(|| UnitError { text: text.into(), wanted: "a time such as \"30 s\", \"1 min\", \"2 h\", \"1 day\" or \"1 week\"" })
}

/// A fee rate in satoshi per 1,000 virtual bytes from `"12 sat/vB"` or `"0.5 sat/vB"`.
///
/// # Errors
/// [`UnitError`].
pub fn parse_fee_rate_sat_per_kvb(text: &str) -> Result<u64, UnitError> {
    split(text)
        .and_then(|(number, unit)| (unit == "sat/vB").then(|| decimal(number, 3)).flatten())
        .ok_or_else(|| UnitError { text: text.into(), wanted: "a fee rate such as \"12 sat/vB\"" })
}

/// A share in parts per million from `"5 %"`, at most 100 %.
///
/// # Errors
/// [`UnitError`].
pub fn parse_share_ppm(text: &str) -> Result<u32, UnitError> {
    split(text)
        .and_then(|(number, unit)| (unit == "%").then(|| decimal(number, 4)).flatten())
        .filter(|ppm| *ppm <= 1_000_000)
        .and_then(|ppm| u32::try_from(ppm).ok())
        .ok_or_else(|| UnitError { text: text.into(), wanted: "a share such as \"5 %\", at most 100 %" })
}

/// A size in bytes from `"65536 B"`, `"64 KiB"` or `"16 MiB"`; more than zero.
///
/// # Errors
/// [`UnitError`].
pub fn parse_size_bytes(text: &str) -> Result<u64, UnitError> {
    let parsed = split(text).and_then(|(number, unit)| {
        let unit_bytes: u64 = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            _ => return None,
        };
        decimal(number, 0)?.checked_mul(unit_bytes)
    });
    parsed
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| UnitError { text: text.into(), wanted: "a size such as \"65536 B\", \"64 KiB\" or \"16 MiB\"" })
}

/// An amount for people: `0.04 BTC`, with no more places than needed.
#[must_use]
pub fn format_amount_sat(sat: u64) -> String {
    let whole = sat / SAT_PER_BTC;
    let fraction = format!("{:08}", sat % SAT_PER_BTC);
    match fraction.trim_end_matches('0') {
        "" => format!("{whole} BTC"),
        digits => format!("{whole}.{digits} BTC"),
    }
}

/// A fee rate for people: `12 sat/vB`, `0.5 sat/vB`.
#[must_use]
pub fn format_fee_rate_sat_per_kvb(sat_per_kvb: u64) -> String {
    let fraction = format!("{:03}", sat_per_kvb % 1_000);
    match fraction.trim_end_matches('0') {
        "" => format!("{} sat/vB", sat_per_kvb / 1_000),
        digits => format!("{}.{digits} sat/vB", sat_per_kvb / 1_000),
    }
}

/// A share for people: `5 %`, `0.25 %`.
#[must_use]
pub fn format_share_ppm(ppm: u32) -> String {
    let fraction = format!("{:04}", ppm % 10_000);
    match fraction.trim_end_matches('0') {
        "" => format!("{} %", ppm / 10_000),
        digits => format!("{}.{digits} %", ppm / 10_000),
    }
}

/// A time for people, in the largest unit that is exact: `1 min`, `90 s`.
#[must_use]
pub fn format_duration_ms(ms: u64) -> String {
    let units = [("week", 604_800_000), ("day", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    for (unit, unit_ms) in units {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{} {unit}", ms / unit_ms);
        }
    }
    format!("{ms} ms")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_exact_or_refused() {
        assert_eq!(parse_amount_sat("0.04 BTC").unwrap(), 4_000_000);
        assert_eq!(parse_amount_sat("1_000 sat").unwrap(), 1_000);
        for wrong in
            ["", "1", "BTC", ".5 BTC", "1.000000001 BTC", "0.5 sat", "-1 BTC", "1e3 BTC", "21000001 BTC", "1 btc", "١ BTC", "1.2.3 BTC"]
        {
            assert!(parse_amount_sat(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_rates_and_shares_are_exact_or_refused() {
        assert_eq!(parse_duration_ms("1 min").unwrap(), 60_000);
        assert_eq!(parse_fee_rate_sat_per_kvb("0.5 sat/vB").unwrap(), 500);
        assert_eq!(parse_share_ppm("5 %").unwrap(), 50_000);
        assert!(parse_duration_ms("0 s").is_err());
        assert!(parse_duration_ms("99999999999999999 week").is_err());
        assert!(parse_share_ppm("101 %").is_err());
        assert!(parse_fee_rate_sat_per_kvb("12 sat").is_err());
        assert_eq!(parse_size_bytes("64 KiB").unwrap(), 65_536);
        for wrong in ["64", "0 B", "1 MB", "0.5 MiB", "99999999999999 MiB"] {
            assert!(parse_size_bytes(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_reads_back_as_written(sat in 0..=MAX_MONEY_SAT) {
            prop_assert_eq!(parse_amount_sat(&format_amount_sat(sat)).unwrap(), sat);
        }

        #[test]
        fn a_rate_and_a_share_read_back_as_written(rate in 0_u64..10_000_000, ppm in 0_u32..=1_000_000) {
            prop_assert_eq!(parse_fee_rate_sat_per_kvb(&format_fee_rate_sat_per_kvb(rate)).unwrap(), rate);
            prop_assert_eq!(parse_share_ppm(&format_share_ppm(ppm)).unwrap(), ppm);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,40}") {
            let _ = (parse_amount_sat(&text), parse_duration_ms(&text), parse_fee_rate_sat_per_kvb(&text), parse_share_ppm(&text), parse_size_bytes(&text));
        }
    }
}
