//! A case through the signer's library: analysis, policy and a ledger in memory. No token, no socket.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use postern_protocol::refusal::{Refusal, RefusalCode};
use postern_signer::{
    analysis::{SpendPlan, analyze},
    anchor::NoAnchor,
    clock::Uptime,
    config::Config,
    ledger::{Charged, Ledger, LedgerOptions},
    policy::rules::SpendRules,
    wallet::Wallet,
};
use postern_testkit::run::memory;

use crate::{
    build::Builder,
    case::{Ask, Case, Every, Expect},
    wallets,
    words::World,
};

/// Refusals of inputs and outputs say which one.
const WHICH: [(&str, &[RefusalCode]); 2] = [
    (
        "input ",
        &[
            RefusalCode::PrevtxMissing,
            RefusalCode::PrevtxMismatch,
            RefusalCode::PrevtxIndex,
            RefusalCode::AmountConflict,
            RefusalCode::ForeignInput,
            RefusalCode::ForeignInputUnproven,
            RefusalCode::SighashForbidden,
            RefusalCode::ForeignSignatureSighash,
            RefusalCode::AnnexForbidden,
            RefusalCode::InputFinal,
            RefusalCode::TxDuplicateOutpoint,
            RefusalCode::TxCoinbasePrevout,
        ],
    ),
    (
        "output",
        &[
            RefusalCode::ChangeBeyondGap,
            RefusalCode::ChangeClaimFalse,
            RefusalCode::OutputScriptForbidden,
            RefusalCode::OutputOpReturn,
            RefusalCode::OutputDust,
        ],
    ),
];

/// Everything that stands between a request and the keys.
struct Rooms {
    wallet: Wallet,
    rules: SpendRules,
    ledger: Ledger,
    _folder: tempfile::TempDir,
}

impl Rooms {
    fn new(config: &Config, name: &str) -> Result<Self> {
        let table = config.wallets.get(name).with_context(|| format!("no wallet `{name}`"))?;
        let folder = tempfile::TempDir::new_in(memory())?;
        Ledger::create(folder.path())?;
        let options = LedgerOptions {
            folder: folder.path().into(),
            rules: config.policy_rules(),
            lease_sat: None,
            policy_hash: config.policy_hash(),
        };
        let ledger = Ledger::open(options, Box::new(NoAnchor))?;
        Ok(Self { wallet: config.wallet(name, table)?, rules: table.rules.clone(), ledger, _folder: folder })
    }

    fn ask(&self, psbt: &[u8], at_ms: u64) -> Result<Charged, Refusal> {
        let plan = Arc::new(analyze(&self.wallet, &self.rules, psbt)?);
        let charged = self.ledger.charge(plan, Uptime::from_millis(at_ms))?;
        let used = charged.plan().inputs().iter().map(|i| i.position).chain(charged.plan().change().iter().map(|c| c.position));
        used.for_each(|position| self.wallet.note_used(position));
        Ok(charged)
    }
}

/// The configuration and the world of the wallets with test keys.
pub(crate) fn world() -> Result<(Config, World)> {
    let config = Config::parse(Path::new("wallets.toml"), &wallets::library_config(&wallets::rows()?)?)?;
    let descriptors: BTreeMap<String, String> = config.wallets.iter().map(|(name, w)| (name.clone(), w.descriptor.clone())).collect();
    Ok((config, World::new(descriptors)?))
}

/// Runs one case.
pub(crate) fn run(name: &str, case: &Case) -> Result<()> {
    let (config, world) = world()?;
    let rooms = Rooms::new(&config, &case.wallet)?;
    let mut builder = Builder::new(world.side(&case.wallet), name);
    for (number, ask) in case.ask.iter().enumerate() {
        for time in 0..ask.times {
            one(&rooms, &mut builder, ask).with_context(|| format!("{}\nask {number}, time {time}", case.about))?;
        }
    }
    Ok(())
}

fn one(rooms: &Rooms, builder: &mut Builder<'_>, ask: &Ask) -> Result<()> {
    let bytes = builder.build(ask)?;
    if ask.every == Some(Every::Prefix) {
        for length in 0..bytes.len() {
            compare(ask, &rooms.ask(&bytes[..length], ask.at_ms)).with_context(|| format!("the first {length} bytes"))?;
        }
        return Ok(());
    }
    let before = rooms.ledger.totals().charged_sat;
    let outcome = rooms.ask(&bytes, ask.at_ms);
    compare(ask, &outcome)?;
    let charged = rooms.ledger.totals().charged_sat - before;
    match &outcome {
        Ok(done) => {
            numbers(ask, done.plan())?;
            ensure!(ask.charged_sat.is_none_or(|sat| sat == charged), "{charged} sat are charged");
        }
        Err(_) => ensure!(charged == 0, "refused, and {charged} sat are charged"),
    }
    Ok(())
}

fn compare(ask: &Ask, outcome: &Result<Charged, Refusal>) -> Result<()> {
    match (ask.expect, outcome) {
        (Expect::Signs, Ok(_)) => Ok(()),
        (Expect::Refused(code), Err(refusal)) if refusal.code == code => {
            let message = refusal.message.as_deref().unwrap_or_default();
            let which = WHICH.iter().find(|(_, codes)| codes.contains(&code)).map_or("", |(which, _)| which);
            ensure!(refusal.kind == code.kind() && message.len() > 20 && message.contains(which), "says too little: {refusal}");
            Ok(())
        }
        (Expect::Signs, Err(refusal)) => bail!("refused: {refusal}"),
        (Expect::Refused(code), Err(refusal)) => bail!("not {code}: {refusal}"),
        (Expect::Refused(code), Ok(done)) => bail!("not {code}: signed, with an outflow of {} sat", done.plan().outflow_sat()),
    }
}

fn numbers(ask: &Ask, plan: &SpendPlan) -> Result<()> {
    ensure!(ask.fee_sat.is_none_or(|sat| sat == plan.fee_sat()), "a fee of {} sat", plan.fee_sat());
    ensure!(ask.change.is_none_or(|count| count == plan.change().len()), "{} change outputs", plan.change().len());
    ensure!(!plan.tasks().is_empty(), "nothing to sign");
    Ok(())
}

/// Each code that the analysis can give stands in some case.
pub(crate) fn every_code(cases: &[(String, Case)]) -> Result<()> {
    let analysis = RefusalCode::ALL
        .iter()
        .skip_while(|code| **code != RefusalCode::PsbtTooLarge)
        .take_while(|code| **code != RefusalCode::DestinationForbidden);
    let covered = |code: RefusalCode| cases.iter().flat_map(|(_, case)| &case.ask).any(|ask| ask.expect == Expect::Refused(code));
    let missing: Vec<_> = analysis.filter(|code| !covered(**code)).collect();
    ensure!(missing.is_empty(), "no case for {missing:?}");
    Ok(())
}
