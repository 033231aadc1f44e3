//! What serde cannot see: values that are right alone and wrong together.

use std::collections::{BTreeMap, BTreeSet};

use postern_protocol::config_file::{ConfigError, is_near};
use serde_spanned::Spanned;

use super::{
    Anchor, Config, Managers,
    file::{AnchorKind, AnchorTable, CommandsTable, File, LimitsTable},
    keystore::{self, KeystoreKind, KeystoreTable},
    source::Source,
    wallet::WalletChecker,
};
use crate::{
    anchor::NV_INDEX_DEFAULT,
    policy::{
        RATES_MAX,
        rules::{Limits, Rate},
    },
};

/// Most managers: more would not fit a command of 700 bytes.
const MANAGERS_MAX: usize = 7;

/// From tables to a configuration.
pub(super) fn check(source: Source, file: File) -> Result<Config, ConfigError> {
    let mut keystores = BTreeMap::new();
    for (name, table) in file.keystore {
        keystores.insert(self::name(&source, &name)?, keystore::check(&source, table)?);
    }
    let mut config = Config {
        path: source.path().into(),
        name: name(&source, &file.signer.name)?,
        network: file.signer.network,
        state: source.beside(&file.signer.state),
        socket: source.beside(&file.signer.socket),
        disclose: file.signer.disclose,
        socket_terms: file.socket,
        raise: file.limits.raise.as_ref().map(|raise| raise.get_ref().0).unwrap_or_default(),
        limits: limits(&source, &file.limits)?,
        anchor: anchor(&source, file.anchor, &keystores)?,
        sandbox: file.sandbox,
        keystores,
        wallets: BTreeMap::new(),
        managers: managers(&source, file.commands)?,
        source,
    };
    let mut checker = WalletChecker::default();
    for (name, table) in file.wallet {
        let name_text = self::name(&config.source, &name)?;
        let wallet = checker.check(&config, &name, table)?;
        config.wallets.insert(name_text, wallet);
    }
    Ok(config)
}

/// Names become labels, file names and words of a sentence.
pub(super) fn name(source: &Source, name: &Spanned<String>) -> Result<String, ConfigError> {
    let text = name.get_ref();
    let fits = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits && text != "signer" {
        return Ok(text.clone());
    }
    let problem = if fits {
        "`signer` is a reserved name: it means the whole signer; choose another".into()
    } else {
        format!("`{text}` is no name: use 1 to 32 letters, digits, `-` and `_`")
    };
    Err(source.at(name.span(), problem))
}

/// Rates that let something out and can fill.
pub(super) fn limits(source: &Source, table: &LimitsTable) -> Result<Limits, ConfigError> {
    if let Some(extra) = table.rate.get(RATES_MAX) {
        return Err(source.at(extra.span(), format!("more than {RATES_MAX} rates; leave out those that others imply")));
    }
    let rates = table.rate.iter().map(|spanned| {
        let rate = spanned.get_ref();
        let burst_sat = rate.burst.unwrap_or(rate.amount).0;
        if rate.amount.0 == 0 {
            let problem = "a rate of nothing lets nothing out for ever; to stop all payments write total = \"0 BTC\" instead";
            return Err(source.at(spanned.span(), problem));
        }
        if burst_sat < rate.amount.0 {
            let problem = "`burst` is smaller than `amount`; it is the most that may leave at once, so make it at least as large";
            return Err(source.at(spanned.span(), problem));
        }
        Ok(Rate { amount_sat: rate.amount.0, per_ms: rate.per.0, burst_sat })
    });
    Ok(Limits { rates: rates.collect::<Result<_, _>>()?, total_sat: table.total.map(|total| total.0) })
}

fn anchor(source: &Source, table: Option<AnchorTable>, keystores: &BTreeMap<String, KeystoreTable>) -> Result<Anchor, ConfigError> {
    let Some(AnchorTable { kind, keystore, index, lease }) = table else { return Ok(Anchor::default()) };
    let wanted = match kind.get_ref() {
        AnchorKind::None => None,
        AnchorKind::Pkcs11 => Some((KeystoreKind::Pkcs11, "pkcs11", "the token that holds it")),
        AnchorKind::Tpm => Some((KeystoreKind::Tpm, "tpm", "the TPM that holds it")),
    };
    match (wanted, &keystore) {
        (None, Some(name)) => {
            let problem = "an anchor of kind \"none\" is in no keystore; remove this key, or write kind = \"pkcs11\"";
            return Err(source.at(name.span(), problem));
        }
        (Some((_, word, what)), None) => {
            return Err(source.at(kind.span(), format!("an anchor of kind \"{word}\" needs keystore = \"NAME\": {what}")));
        }
        (Some((wanted, word, _)), Some(name)) => {
            known_keystore(source, name, &keystores.keys().map(String::as_str).collect())?;
            if keystores.get(name.get_ref()).is_some_and(|table| table.kind() != wanted) {
                let problem =
                    format!("[keystore.{}] is of another kind; an anchor of kind \"{word}\" needs one of that kind", name.get_ref());
                return Err(source.at(name.span(), problem));
            }
        }
        (None, None) => {}
    }
    if let Some(index) = &index
        && *kind.get_ref() != AnchorKind::Tpm
    {
        return Err(source.at(index.span(), "only an anchor of kind \"tpm\" has an `index`; remove this key"));
    }
    let kind = kind.into_inner();
    let nv_index = (kind == AnchorKind::Tpm).then(|| index.map_or(NV_INDEX_DEFAULT, |index| index.into_inner().0));
    Ok(Anchor { kind, keystore: keystore.map(Spanned::into_inner), nv_index, lease_sat: lease.map(|lease| lease.0) })
}

pub(super) fn known_keystore(source: &Source, name: &Spanned<String>, known: &BTreeSet<&str>) -> Result<(), ConfigError> {
    let wanted = name.get_ref().as_str();
    if known.contains(wanted) {
        return Ok(());
    }
    let nearest = known.iter().map(|known| (strsim::damerau_levenshtein(wanted, known), *known)).min();
    let hint = match nearest {
        None => "no keystore is configured".into(),
        Some((distance, known)) if is_near(distance, known) => format!("did you mean `{known}`?"),
        Some(_) => format!("there is {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
    };
    Err(source.at(name.span(), format!("there is no [keystore.{wanted}]; {hint}")))
}

fn managers(source: &Source, table: Option<CommandsTable>) -> Result<Managers, ConfigError> {
    let Some(CommandsTable { quorum, managers, on_forgery }) = table else { return Ok(Managers::default()) };
    if let Some(extra) = managers.get(MANAGERS_MAX) {
        return Err(source.at(extra.span(), format!("more than {MANAGERS_MAX} managers; their signatures would not fit one command")));
    }
    if managers.is_empty() {
        return Err(source.at(quorum.span(), "[commands] without managers; name some, or remove the table"));
    }
    if !(1..=managers.len()).contains(quorum.get_ref()) {
        let count = managers.len();
        return Err(
            source.at(quorum.span(), format!("a quorum of {} of {count} managers; write a number from 1 to {count}", quorum.get_ref()))
        );
    }
    let mut seen: Vec<(String, postern_protocol::key::PublicKey)> = vec![];
    for manager in managers {
        let (span, manager) = (manager.span(), manager.into_inner());
        let name = self::name(source, &manager.name)?;
        if let Some((other, _)) = seen.iter().find(|(other, key)| *other == name || *key == manager.key) {
            return Err(source.at(span, format!("the same name or key as manager `{other}`; each counts once")));
        }
        seen.push((name, manager.key));
    }
    Ok(Managers { quorum: quorum.into_inner(), managers: seen, on_forgery })
}
