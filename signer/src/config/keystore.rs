//! `[keystore.NAME]`: where keys are, by kind.

use std::path::PathBuf;

use postern_protocol::config_file::ConfigError;
use serde::Deserialize;
use serde_spanned::Spanned;

use super::{
    source::Source,
    value::{SecretTable, Sessions},
};
use crate::{
    keystore::SESSIONS_DEFAULT,
    sandbox::softhsm,
    tpm::{PcrSet, Tcti},
};

/// PCRs that a seed is sealed to, unless configured: the Secure Boot state and the unified kernel image.
const PCRS_DEFAULT: [u8; 2] = [7, 11];

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeystoreFile {
    /// `pkcs11` or `tpm`
    kind: Spanned<KeystoreKind>,
    /// For `pkcs11`: the vendor's PKCS#11 library.
    module: Option<Spanned<PathBuf>>,
    /// For `pkcs11`: the token.
    token: Option<Spanned<TokenTable>>,
    /// For `pkcs11`: where the user PIN is.
    pin: Option<Spanned<SecretTable>>,
    /// For `pkcs11`: sessions (and worker threads).
    sessions: Option<Spanned<Sessions>>,
    /// For `tpm`: where it is.
    tcti: Option<Spanned<String>>,
    /// For `tpm`: which PCRs seeds are sealed to.
    pcrs: Option<Spanned<Vec<u8>>>,
    /// For `tpm`: where the secret is that its auth values are made from.
    auth: Option<Spanned<SecretTable>>,
}

/// Kinds of keystore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeystoreKind {
    /// A PKCS#11 token.
    Pkcs11,
    /// A TPM 2.0.
    Tpm,
}

/// A token, known by label and serial number, never by slot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenTable {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
}

/// `[keystore.NAME]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeystoreTable {
    /// `kind = "pkcs11"`
    Pkcs11(Pkcs11Table),
    /// `kind = "tpm"`
    Tpm(TpmTable),
}

/// A PKCS#11 token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11Table {
    /// The vendor's PKCS#11 library.
    pub module: Spanned<PathBuf>,
    /// The token.
    pub token: TokenTable,
    /// Where the user PIN is.
    pub pin: Spanned<SecretTable>,
    /// Sessions (and worker threads).
    pub sessions: Sessions,
}

/// A TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmTable {
    /// Where it is.
    pub tcti: Spanned<Tcti>,
    /// Which PCRs seeds are sealed to.
    pub pcrs: PcrSet,
    /// Where the secret is that its auth values are made from.
    pub auth: Spanned<SecretTable>,
}

impl KeystoreTable {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> KeystoreKind {
        match self {
            Self::Pkcs11(_) => KeystoreKind::Pkcs11,
            Self::Tpm(_) => KeystoreKind::Tpm,
        }
    }

    /// The TPM, if it is one.
    #[must_use]
    pub fn tpm(&self) -> Option<&TpmTable> {
        match self {
            Self::Tpm(table) => Some(table),
            Self::Pkcs11(_) => None,
        }
    }

    /// Whether it is a token in software.
    #[must_use]
    pub fn is_softhsm(&self) -> bool {
        matches!(self, Self::Pkcs11(table) if softhsm::is_module(table.module.get_ref()))
    }

    /// Where its secret is, and the key that says so.
    #[must_use]
    pub fn secret(&self) -> (&'static str, &Spanned<SecretTable>) {
        match self {
            Self::Pkcs11(table) => ("pin", &table.pin),
            Self::Tpm(table) => ("auth", &table.auth),
        }
    }
}

/// Every key that the kind needs, and none that it does not know.
pub(super) fn check(source: &Source, file: KeystoreFile) -> Result<KeystoreTable, ConfigError> {
    let KeystoreFile { kind, module, token, pin, sessions, tcti, pcrs, auth } = file;
    let needs = |kind_name: &str, key: &str| source.at(kind.span(), format!("a keystore of kind \"{kind_name}\" needs {key}"));
    let foreign = |spans: [(&str, Option<std::ops::Range<usize>>); 4], kind_name: &str| {
        spans.into_iter().find_map(|(key, span)| span.map(|span| (key, span))).map_or(Ok(()), |(key, span)| {
            Err(source.at(span, format!("a keystore of kind \"{kind_name}\" has no `{key}`; remove this key")))
        })
    };
    match kind.get_ref() {
        KeystoreKind::Pkcs11 => {
            let spans = [
                ("tcti", tcti.as_ref().map(Spanned::span)),
                ("pcrs", pcrs.as_ref().map(Spanned::span)),
                ("auth", auth.as_ref().map(Spanned::span)),
                ("", None),
            ];
            foreign(spans, "pkcs11")?;
            Ok(KeystoreTable::Pkcs11(Pkcs11Table {
                module: module.ok_or_else(|| needs("pkcs11", "module = \"…\": the token vendor's PKCS#11 library"))?,
                token: token.ok_or_else(|| needs("pkcs11", "token = { label = \"…\", serial = \"…\" }"))?.into_inner(),
                pin: pin.ok_or_else(|| needs("pkcs11", "pin = { file = \"…\" } or { credential = \"…\" }"))?,
                sessions: sessions.map_or(Sessions(SESSIONS_DEFAULT), Spanned::into_inner),
            }))
        }
        KeystoreKind::Tpm => {
            let spans = [
                ("module", module.as_ref().map(Spanned::span)),
                ("token", token.as_ref().map(Spanned::span)),
                ("pin", pin.as_ref().map(Spanned::span)),
                ("sessions", sessions.as_ref().map(Spanned::span)),
            ];
            foreign(spans, "tpm")?;
            let tcti = tcti.ok_or_else(|| needs("tpm", "tcti = \"device:/dev/tpmrm0\": where the TPM is"))?;
            let place: Tcti = tcti.get_ref().parse().map_err(|e| source.at(tcti.span(), e))?;
            let pcrs = match pcrs {
                Some(pcrs) => PcrSet::new(pcrs.get_ref().iter().copied())
                    .ok_or_else(|| source.at(pcrs.span(), "PCRs are numbers from 0 to 23, such as [7, 11]"))?,
                None => PcrSet::new(PCRS_DEFAULT).ok_or_else(|| needs("tpm", "pcrs = [7, 11]"))?,
            };
            Ok(KeystoreTable::Tpm(TpmTable {
                tcti: Spanned::new(tcti.span(), place),
                pcrs,
                auth: auth.ok_or_else(|| needs("tpm", "auth = { file = \"…\" } or { credential = \"…\" }"))?,
            }))
        }
    }
}
