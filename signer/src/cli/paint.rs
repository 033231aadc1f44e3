//! Colours, where there is a terminal; `anstream` leaves them out elsewhere and honours NO_COLOR.

use std::{fmt, io, io::Write as _, process};

use anstyle::{AnsiColor, Style};

/// Headings and names.
pub(super) const HEAD: Style = Style::new().bold();
/// All is well.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Worth a look.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();
/// A no, or an error.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Details.
pub(super) const DIM: Style = Style::new().dimmed();

/// A text in a style.
pub(super) fn paint(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A line on standard output. Where nobody reads on (`postern ledger show | head`) the program ends, without complaint.
pub(super) fn line(words: fmt::Arguments<'_>) {
    match writeln!(anstream::stdout().lock(), "{words}") {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => process::exit(0),
        Err(e) => {
            anstream::eprintln!("{} standard output: {e}", paint(BAD, "error:"));
            process::exit(1)
        }
    }
}
