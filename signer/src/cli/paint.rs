//! Colours, where there is a terminal; `anstream` leaves them out elsewhere and honours NO_COLOR.

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
pub(super) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}
