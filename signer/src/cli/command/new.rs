//! `postern command new`: a command that nobody signed yet.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use postern_protocol::{
    command::{Action, Challenge, Command, Rate, Scope, SignedCommand, VALIDITY_MAX_S},
    key::PublicKey,
    reply::{RebaseNeeded, ReplyBody},
    request::RequestBody,
    units::{format_amount_sat, parse_amount_sat, parse_duration_ms},
};

use super::command_file;
use crate::cli::{
    Ending,
    paint::{DIM, paint},
    site::{Answer, Site, unexpected},
};

/// What to order.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum NewCommand {
    /// Let this much more out than the total allows so far.
    AddTotal {
        /// For example "1 BTC".
        #[arg(value_parser = parse_amount_sat)]
        amount: u64,
        #[command(flatten)]
        terms: Terms,
    },
    /// Let exactly this much out from now on, whatever was left.
    SetTotal {
        /// For example "1 BTC".
        #[arg(value_parser = parse_amount_sat)]
        amount: u64,
        #[command(flatten)]
        terms: Terms,
    },
    /// Replace the rates.
    SetRate {
        /// All rates that are to hold: "0.04 BTC per 1 min, burst 0.4 BTC".
        #[arg(value_parser = parse_rate, required = true, num_args = 1..=8)]
        rates: Vec<Rate>,
        #[command(flatten)]
        terms: Terms,
    },
    /// Sign nothing until an unfreeze. One manager's signature is enough.
    Freeze {
        #[command(flatten)]
        terms: Terms,
    },
    /// End a freeze or a lock.
    Unfreeze {
        #[command(flatten)]
        terms: Terms,
    },
    /// Go on from this ledger with this anchor, which do not agree. See docs/ledger.md first.
    Rebase {
        /// What counts as spent, ever, such as "12.5 BTC"; without it, the least that the signer accepts.
        #[arg(long, value_name = "AMOUNT", value_parser = parse_amount_sat)]
        spent: Option<u64>,
        /// What the signer shows in `postern status`; without it, the running signer is asked.
        #[arg(long, value_name = "HEX", value_parser = parse_challenge, requires_all = ["spent", "signer_key"])]
        challenge: Option<Challenge>,
        #[command(flatten)]
        terms: Terms,
    },
}

/// For whom, and until when.
#[derive(Debug, Args)]
pub(in crate::cli) struct Terms {
    /// `signer` for the whole signer, or a wallet's name.
    #[arg(long, default_value = "signer", value_name = "SCOPE")]
    scope: String,
    /// The signer's identity, `ed25519:…`; without it, the running signer is asked.
    #[arg(long, value_name = "KEY", requires = "network")]
    signer_key: Option<PublicKey>,
    /// The signer's network; without it, the running signer is asked.
    #[arg(long, requires = "signer_key")]
    network: Option<NetworkName>,
    /// The ledger's last re-base as `postern status` shows it, if there was one; without it, the running signer is asked.
    #[arg(long, value_name = "HEX", value_parser = parse_challenge, requires = "signer_key")]
    base: Option<Challenge>,
    /// How long the command may be applied.
    #[arg(long, default_value = "7 days", value_name = "TIME", value_parser = parse_duration_ms)]
    expires: u64,
    /// Where to write it.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// The networks' names.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum NetworkName {
    Bitcoin,
    Testnet4,
    Signet,
    Regtest,
}

impl NewCommand {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        let (Self::AddTotal { terms, .. }
        | Self::SetTotal { terms, .. }
        | Self::SetRate { terms, .. }
        | Self::Freeze { terms }
        | Self::Unfreeze { terms }
        | Self::Rebase { terms, .. }) = self;
        let scope = match terms.scope.as_str() {
            "signer" => Scope::Signer,
            name => Scope::Wallet(name.to_owned()),
        };
        let valid_s = terms.expires / 1_000;
        if !(60..=VALIDITY_MAX_S).contains(&valid_s) {
            bail!("--expires: a command is valid for 1 min to {} days", VALIDITY_MAX_S / 86_400);
        }
        let signer = terms.signer(site)?;
        let action = match self {
            Self::AddTotal { amount, .. } => Action::AddTotal(scope, *amount),
            Self::SetTotal { amount, .. } => Action::SetTotal(scope, *amount),
            Self::SetRate { rates, .. } => Action::SetRate(scope, rates.clone()),
            Self::Freeze { .. } => Action::Freeze(scope),
            Self::Unfreeze { .. } => Action::Unfreeze(scope),
            Self::Rebase { spent, challenge, .. } => rebase(*spent, *challenge, signer.rebase.as_ref())?,
        };
        let mut serial = [0; 8];
        getrandom::fill(&mut serial)?;
        let command = SignedCommand::new(Command {
            signer: signer.key.to_bytes(),
            network: signer.network,
            serial: u64::from_be_bytes(serial),
            expires: command_file::now_s().saturating_add(valid_s),
            action,
            base: signer.base,
        });
        if terms.output.exists() {
            bail!("{} exists; it may hold signatures, so it is kept", terms.output.display());
        }
        command_file::write(&terms.output, &command)?;
        command_file::say(&command, &command_file::managers(site)?);
        let next = format!("Written to {0}. Each manager signs it: postern command sign {0} --key FILE", terms.output.display());
        say!("{}", paint(DIM, next));
        Ok(Ending::Done)
    }
}

/// Whom a command is for.
struct Addressee {
    key: PublicKey,
    network: String,
    base: Option<Challenge>,
    rebase: Option<RebaseNeeded>,
}

impl Terms {
    /// Whom it is for: as was said, or whoever answers.
    fn signer(&self, site: &Site) -> Result<Addressee> {
        if let (Some(key), Some(network)) = (self.signer_key, self.network) {
            let network = network.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            return Ok(Addressee { key, network, base: self.base, rebase: None });
        }
        let hint = "say which signer it is for with --signer-key and --network";
        match site.ask(RequestBody::Status).context(hint)? {
            Answer::Reply(ReplyBody::Status(status)) => Ok(Addressee {
                key: status.identity.parse()?,
                network: status.network,
                base: status.base.as_deref().map(parse_challenge).transpose()?,
                rebase: status.rebase,
            }),
            Answer::Refused(refusal) => bail!("the signer does not tell who it is ({refusal}); {hint}"),
            Answer::Reply(_) => unexpected(),
        }
    }
}

/// The re-base that the signer asks for, or the one that was said.
fn rebase(spent_sat: Option<u64>, challenge: Option<Challenge>, needed: Option<&RebaseNeeded>) -> Result<Action> {
    if let (Some(challenge), Some(spent_sat)) = (challenge, spent_sat) {
        return Ok(Action::Rebase { challenge, spent_sat });
    }
    let needed = needed.context("the signer needs no re-base: ledger and anchor agree (postern status)")?;
    let spent_sat = spent_sat.unwrap_or(needed.least_sat);
    if spent_sat < needed.least_sat {
        bail!("--spent: ledger and anchor know of {}; a re-base counts at least that", format_amount_sat(needed.least_sat));
    }
    Ok(Action::Rebase { challenge: parse_challenge(&needed.challenge)?, spent_sat })
}

/// 32 hex digits.
fn parse_challenge(text: &str) -> Result<Challenge> {
    let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.with_context(|| format!("`{text}` is not 32 hex digits, as `postern status` shows them"))
}

/// `0.04 BTC per 1 min, burst 0.4 BTC`; the burst is the amount when it is left out.
fn parse_rate(text: &str) -> Result<Rate> {
    let wanted = || format!("`{text}` is not a rate such as \"0.04 BTC per 1 min, burst 0.4 BTC\"");
    let (amount, rest) = text.split_once(" per ").with_context(wanted)?;
    let (per, burst) = match rest.split_once("burst") {
        Some((per, burst)) => (per.trim_end().trim_end_matches(','), Some(burst)),
        None => (rest, None),
    };
    let amount_sat = parse_amount_sat(amount).with_context(wanted)?;
    let per_ms = parse_duration_ms(per).with_context(wanted)?;
    let burst_sat = burst.map_or(Ok(amount_sat), parse_amount_sat).with_context(wanted)?;
    if amount_sat == 0 || burst_sat < amount_sat {
        bail!("`{text}`: the amount must be more than nothing, and the burst at least as large");
    }
    Ok(Rate { amount_sat, per_ms, burst_sat })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command::words;

    #[test]
    fn a_rate_is_read_as_it_is_said() {
        let rate = Rate { amount_sat: 4_000_000, per_ms: 60_000, burst_sat: 40_000_000 };
        assert_eq!(parse_rate(&words::rate(&rate)).unwrap(), rate);
        assert_eq!(parse_rate("0.04 BTC per 1 min").unwrap(), Rate { burst_sat: 4_000_000, ..rate });
        for wrong in ["", "0.04 BTC", "0 BTC per 1 min", "1 BTC per 1 min, burst 0.5 BTC", "1 per 1 min", "1 BTC per min"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
