//! `postern simulate`: the analysis and the policy, without keys, ledger or charge.
//!
//! It sees the configuration only: limits count as untouched and addresses as unused. So a yes says that the transaction fits
//! the rules, `postern status` says what is left of the limits now.

use std::path::PathBuf;

use anyhow::{Result, bail};
use bitcoin::Address;
use postern_protocol::{
    refusal::{Refusal, RefusalCode},
    units::{format_amount_sat, format_fee_rate_sat_per_kvb},
};
use serde::Serialize;

use super::{
    Ending,
    paint::{BAD, DIM, GOOD, paint},
    psbt_file,
    site::Site,
    status::about,
};
use crate::{
    analysis::{SpendPlan, analyze},
    clock::Uptime,
    config::{Config, WalletConfig},
    policy::{Kin, PolicyState, Scopes, decide},
    wallet::{Position, WalletKind},
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Simulate {
    /// The transaction, binary or base64; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    psbt: PathBuf,
    /// The wallet that spends; without it, the one whose inputs these are.
    #[arg(long, value_name = "NAME")]
    wallet: Option<String>,
    /// The highest index that is in use: addresses are recognised up to the wallet's gap past it.
    #[arg(long, value_name = "INDEX")]
    used: Option<u32>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// The outcome, as it is printed with `--json`.
#[derive(Debug, Serialize)]
struct Verdict {
    verdict: &'static str,
    wallet: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Refusal>,
    #[serde(flatten)]
    spend: Option<Spend>,
}

/// What the transaction does.
#[derive(Debug, Serialize)]
struct Spend {
    unsigned_txid: String,
    outflow_sat: u64,
    fee_sat: u64,
    fee_rate_sat_per_kvb: u64,
    inputs: Vec<Place>,
    change: Vec<Place>,
    payments: Vec<Paid>,
}

/// A coin of ours.
#[derive(Debug, Serialize)]
struct Place {
    value_sat: u64,
    branch: u32,
    index: u32,
}

/// Money that leaves.
#[derive(Debug, Serialize)]
struct Paid {
    value_sat: u64,
    to: String,
}

impl Simulate {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        let config = site.config()?;
        let psbt = psbt_file::read(&self.psbt)?.bytes;
        let (wallet, outcome) = self.choose(&config, &psbt)?;
        let (spend, refusal) = match outcome {
            Ok(plan) => (Some(Spend::of(&plan, &config)), decide_fresh(&config, &plan).err()),
            Err(refusal) => (None, Some(refusal)),
        };
        let ending = if refusal.is_some() { Ending::Refused } else { Ending::Done };
        let verdict = Verdict { verdict: if refusal.is_some() { "refused" } else { "sign" }, wallet, refusal, spend };
        if self.json {
            say!("{}", serde_json::to_string_pretty(&verdict)?);
        } else {
            verdict.say();
        }
        Ok(ending)
    }

    /// The wallet whose transaction it is, and what its analysis says.
    fn choose(&self, config: &Config, psbt: &[u8]) -> Result<(String, Result<SpendPlan, Refusal>)> {
        let candidates: Vec<(&String, &WalletConfig)> = match &self.wallet {
            Some(name) => config.wallets.iter().filter(|(known, _)| *known == name).collect(),
            None => config.wallets.iter().collect(),
        };
        let mut first_no = None;
        let mut pools = vec![];
        for (name, table) in candidates {
            if table.kind == WalletKind::Pool {
                pools.push(name.as_str());
                continue;
            }
            let wallet = config.wallet(name, table)?;
            if let Some(index) = self.used {
                (0..wallet.branches()).for_each(|branch| wallet.note_used(Position { branch, index }));
            }
            match analyze(&wallet, &table.rules, psbt) {
                // Not this wallet's, so perhaps another's.
                Err(no) if matches!(no.code, RefusalCode::ForeignInput | RefusalCode::NothingToSign) => {
                    first_no.get_or_insert((name.clone(), Err(no)));
                }
                outcome => return Ok((name.clone(), outcome)),
            }
        }
        match (first_no, pools.is_empty()) {
            (_, false) => bail!(
                "only the token knows the keys of a pool ({}), so this cannot be told without it; ask the running signer: postern sign",
                pools.join(", ")
            ),
            (Some(no), _) => Ok(no),
            (None, _) => match &self.wallet {
                Some(name) => bail!("no [wallet.{name}] in {}", config.path.display()),
                None => bail!("no wallet is configured in {}", config.path.display()),
            },
        }
    }
}

/// The policy's decision with limits of which nothing is used.
fn decide_fresh(config: &Config, plan: &SpendPlan) -> Result<(), Refusal> {
    let rules = config.policy_rules();
    let scopes = Scopes::new(&rules);
    let state = PolicyState { rules: &rules, scopes: &scopes, kin: &Kin::default() };
    decide(&state, plan, Uptime::default()).map(|_| ())
}

impl Spend {
    fn of(plan: &SpendPlan, config: &Config) -> Self {
        let vbytes = plan.weight_wu().div_ceil(4).max(1);
        let place = |value_sat, at: Position| Place { value_sat, branch: at.branch, index: at.index };
        Self {
            unsigned_txid: plan.unsigned_txid().to_string(),
            outflow_sat: plan.outflow_sat(),
            fee_sat: plan.fee_sat(),
            fee_rate_sat_per_kvb: plan.fee_sat().saturating_mul(1_000).checked_div(vbytes).unwrap_or_default(),
            inputs: plan.inputs().iter().map(|input| place(input.value_sat, input.position)).collect(),
            change: plan.change().iter().map(|change| place(change.value_sat, change.position)).collect(),
            payments: plan
                .payments()
                .iter()
                .map(|payment| Paid {
                    value_sat: payment.value_sat,
                    to: Address::from_script(&payment.script_pubkey, config.network)
                        .map_or_else(|_| format!("script {}", payment.script_pubkey.to_hex_string()), |address| address.to_string()),
                })
                .collect(),
        }
    }
}

impl Verdict {
    fn say(&self) {
        match &self.refusal {
            None => say!("{} wallet {}", paint(GOOD, "Would be signed:"), self.wallet),
            Some(refusal) => {
                say!("{} wallet {}: {}", paint(BAD, "Refused:"), self.wallet, refusal.code);
                say!("  {}", refusal.message.as_deref().unwrap_or(refusal.code.meaning()));
                if let Some(wait_ms) = refusal.wait_ms {
                    say!("  It will pass in {}.", about(wait_ms));
                }
            }
        }
        let Some(spend) = &self.spend else { return };
        say!();
        for Paid { value_sat, to } in &spend.payments {
            say!("  pays     {} to {to}", format_amount_sat(*value_sat));
        }
        for Place { value_sat, branch, index } in &spend.change {
            say!("  change   {} to {branch}/{index}", format_amount_sat(*value_sat));
        }
        let rate = format_fee_rate_sat_per_kvb(spend.fee_rate_sat_per_kvb);
        say!("  fee      {}, at least {rate}", format_amount_sat(spend.fee_sat));
        say!("  outflow  {}, this is what is charged", format_amount_sat(spend.outflow_sat));
        say!("  txid     {} before signing", spend.unsigned_txid);
        say!("{}", paint(DIM, "Limits counted as untouched; `postern status` says what is left of them."));
    }
}
