//! What people see: scenes, lines, checks, and the table at the end.

use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use anyhow::{Result, bail};
use postern_protocol::units::format_amount_sat;

const SCENE: Style = AnsiColor::Cyan.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const FAINT: Style = Style::new().dimmed();

/// A line of the table.
struct Row {
    what: String,
    amount_sat: u64,
    outcome: String,
    why: String,
}

/// The stage: remembers what happened and whether all of it was expected.
pub(super) struct Stage {
    began: Instant,
    scenes: usize,
    rows: Vec<Row>,
    failed: Vec<String>,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), scenes: 0, rows: vec![], failed: vec![] }
    }

    /// A new scene.
    pub(super) fn scene(&mut self, title: &str) {
        self.scenes += 1;
        anstream::println!("\n{SCENE}{}. {title}{SCENE:#}", self.scenes);
    }

    /// Something happened.
    pub(super) fn say(&self, text: impl AsRef<str>) {
        anstream::println!("{FAINT}{:>6.1} s{FAINT:#}  {}", self.began.elapsed().as_secs_f64(), text.as_ref());
    }

    /// Something was expected.
    pub(super) fn expect(&mut self, held: bool, text: impl AsRef<str>) {
        let text = text.as_ref();
        if held {
            anstream::println!("          {GOOD}✓{GOOD:#} {text}");
        } else {
            anstream::println!("          {BAD}✗ not so:{BAD:#} {text}");
            self.failed.push(text.to_owned());
        }
    }

    /// A line of the table at the end.
    pub(super) fn row(&mut self, what: &str, amount_sat: u64, outcome: &str, why: &str) {
        self.rows.push(Row { what: what.into(), amount_sat, outcome: outcome.into(), why: why.into() });
    }

    /// The table, and whether everything was as expected.
    pub(super) fn end(self) -> Result<()> {
        anstream::println!("\n{SCENE}What was paid, what was refused, and why{SCENE:#}");
        let wide = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        for Row { what, amount_sat, outcome, why } in &self.rows {
            let amount = format_amount_sat(*amount_sat);
            let style = if outcome == "paid" { GOOD } else { BAD };
            anstream::println!("  {what:<wide$}  {amount:>16}  {style}{outcome:<8}{style:#}  {why}");
        }
        let took = Duration::from_secs(self.began.elapsed().as_secs());
        if self.failed.is_empty() {
            anstream::println!("\n{GOOD}Every expectation held{GOOD:#} ({} s).", took.as_secs());
            return Ok(());
        }
        bail!("{} expectations did not hold: {}", self.failed.len(), self.failed.join("; "))
    }
}
