//! A command in words: what a manager reads before signing.

use postern_protocol::{
    command::{Action, Rate, Scope},
    units::{format_amount_sat, format_duration_ms},
};

/// What an action does.
pub(in crate::cli) fn action(action: &Action) -> String {
    match action {
        Action::AddTotal(scope, sat) => format!("let {} more leave {} than its total allows so far", format_amount_sat(*sat), whose(scope)),
        Action::SetTotal(scope, sat) => {
            format!("let exactly {} leave {} from now on, whatever was left of its total", format_amount_sat(*sat), whose(scope))
        }
        Action::SetRate(scope, rates) if rates.is_empty() => {
            format!("remove all rates of {}: up to its total everything may leave at once", whose(scope))
        }
        Action::SetRate(scope, rates) => {
            let rates: Vec<String> = rates.iter().map(rate).collect();
            format!("replace the rates of {} by: {}", whose(scope), rates.join("; "))
        }
        Action::Freeze(scope) => format!("freeze {}: nothing is signed until an unfreeze", whose(scope)),
        Action::Unfreeze(scope) => format!("end a freeze or a lock of {}", whose(scope)),
        Action::Rebase { challenge, spent_sat } => format!(
            "go on from the signer's ledger as it is, though its anchor does not agree, and count {} as spent in all; void all commands \
             made before. Only for the challenge {}",
            format_amount_sat(*spent_sat),
            hex::encode(challenge)
        ),
    }
}

/// A rate as it is typed.
pub(super) fn rate(rate: &Rate) -> String {
    let Rate { amount_sat, per_ms, burst_sat } = rate;
    format!("{} per {}, burst {}", format_amount_sat(*amount_sat), format_duration_ms(*per_ms), format_amount_sat(*burst_sat))
}

fn whose(scope: &Scope) -> String {
    match scope {
        Scope::Signer => "the whole signer".into(),
        // Unchecked: a command comes from outside, and a name must not draw on the terminal.
        Scope::Wallet(name) => format!("wallet {}", name.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_outside_cannot_draw_on_the_terminal() {
        let said = action(&Action::Freeze(Scope::Wallet("\u{1b}[2Jhot".into())));
        assert_eq!(said, "freeze wallet \\u{1b}[2Jhot: nothing is signed until an unfreeze");
    }
}
