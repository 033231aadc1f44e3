//! The form of a case's file. `softhsm-test/hostile/README.md` describes it for people.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use postern_protocol::refusal::RefusalCode;
use serde::Deserialize;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What is tried, and why it would hurt.
    pub(crate) about: String,
    /// BIPs, CVEs, published attacks.
    pub(crate) references: Vec<String>,
    /// A wallet of `wallets.toml`.
    #[serde(default = "hot")]
    pub(crate) wallet: String,
    /// Also asked of a running signer with a token.
    #[serde(default)]
    pub(crate) socket: bool,
    /// What is asked, in this order.
    pub(crate) ask: Vec<Ask>,
}

fn hot() -> String {
    "hot".into()
}

/// One request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// Bytes that are sent as they are, in words; there is no transaction to build then.
    pub(crate) raw: Option<String>,
    /// What is spent; without it two coins of 1,000,000 sat, at 0/0 and 0/3.
    pub(crate) inputs: Option<Vec<Input>>,
    /// Where it goes; without it 1,500,000 sat to somebody and 498,000 sat to 1/2.
    pub(crate) outputs: Option<Vec<Output>>,
    /// What is changed in it, in this order.
    #[serde(default)]
    pub(crate) changes: Vec<Change>,
    /// Asked this often; what spends the transaction before spends another one each time.
    #[serde(default = "once")]
    pub(crate) times: u32,
    /// Not the bytes, but many that are made from them.
    pub(crate) every: Option<Every>,
    /// When, in milliseconds since the signer started; the library's cases only, a running signer has a clock of its own.
    #[serde(default)]
    pub(crate) at_ms: u64,
    /// `signs`, or a refusal's code.
    pub(crate) expect: Expect,
    /// What is charged for it, in satoshi.
    pub(crate) charged_sat: Option<u64>,
    /// Its fee, in satoshi.
    pub(crate) fee_sat: Option<u64>,
    /// How many outputs are change.
    pub(crate) change: Option<usize>,
}

fn once() -> u32 {
    1
}

/// A coin.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Input {
    /// Branch and index, `0/5`.
    pub(crate) own: Option<String>,
    /// Another wallet's: its name; `own` says where.
    pub(crate) of: Option<String>,
    /// A descriptor of anybody's, see [`crate::words`].
    pub(crate) script: Option<String>,
    /// Output of the transaction that was asked for before.
    pub(crate) spends: Option<u32>,
    /// Its value.
    pub(crate) sat: Option<u64>,
    /// The same name is the same coin.
    pub(crate) coin: Option<String>,
    /// So many of them.
    pub(crate) times: Option<usize>,
    /// All coins with this set are outputs of one transaction.
    pub(crate) together: bool,
}

/// A destination.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Output {
    /// A script, see [`crate::words`].
    pub(crate) pay: Option<String>,
    /// Ours, with the fields that prove it: `1/5`.
    pub(crate) own: Option<String>,
    /// A descriptor of anybody's, with the fields that would prove it to be ours.
    pub(crate) claims: Option<String>,
    /// Its value.
    pub(crate) sat: u64,
    /// So many of them.
    pub(crate) times: Option<usize>,
}

/// Something that is changed. Places are `global`, `input N` and `output N`; fields are named as in BIP 174, or are words that
/// give a key's bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Change {
    /// All fields of a name are gone.
    Remove { r#in: String, field: String },
    /// A field is as given, whether or not it was there.
    Set { r#in: String, field: String, to: String },
    /// One field more, even where it is there.
    Add { r#in: String, field: String, to: String },
    /// So many fields more, whose keys differ.
    Many { r#in: String, field: String, count: u32 },
    /// Bytes of a field's value are overwritten.
    Edit { r#in: String, field: String, at: usize, to: String },
    /// Bytes of a field's key are overwritten; its type is the first.
    Rekey { r#in: String, field: String, at: usize, to: String },
    /// A field's key ends early.
    CutKey { r#in: String, field: String, to: usize },
    /// Bytes behind a field's value.
    Extend { r#in: String, field: String, by: String },
    /// Fields of a name as they are in another place.
    Copy { field: String, from: String, to: String },
    /// All fields as they are in another place.
    Replace { r#in: String, by: String },
    /// A map less.
    Drop(String),
    /// The previous transaction that is given for an input says another amount, and so is another one.
    Previous { input: usize, sat: u64 },
    /// What is spent.
    Outpoint { input: usize, txid: Option<String>, vout: Option<u32> },
    /// As it says.
    Sequence { input: usize, to: u32 },
    /// In the unsigned transaction.
    ScriptSig { input: usize, to: String },
    /// Also in a witness that the unsigned transaction has no place for.
    Witness { input: usize, to: String },
    /// Of an output.
    Amount { output: usize, to: i64 },
    /// Of an output; its fields stay.
    Script { output: usize, to: String },
    /// The input is there so many times more, with its fields.
    RepeatInput { input: usize, times: usize },
    /// The output is there so many times more, with its fields.
    RepeatOutput { output: usize, times: usize },
    /// No inputs are left.
    NoInputs(bool),
    /// No outputs are left.
    NoOutputs(bool),
    /// nVersion.
    Version(i32),
    /// nLockTime.
    LockTime(u32),
    /// The unsigned transaction's bytes.
    Transaction(String),
    /// Bytes behind everything.
    Append(String),
    /// The first bytes only.
    Truncate(usize),
    /// In base64, as a file often is.
    Base64(bool),
}

/// Many requests from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Every {
    /// The first n bytes, for each n.
    Prefix,
}

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Expect {
    Signs,
    Refused(RefusalCode),
}

impl TryFrom<String> for Expect {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "signs" => Ok(Self::Signs),
            code => RefusalCode::parse(code).map(Self::Refused).ok_or_else(|| format!("`{code}` is neither `signs` nor a refusal's code")),
        }
    }
}

/// All cases by name: the folder and the file without its ending.
pub(crate) fn read_all(folder: &Path) -> Result<Vec<(String, Case)>> {
    let mut cases = Vec::new();
    for group in sorted(folder)? {
        if !group.is_dir() {
            continue;
        }
        for file in sorted(&group)? {
            ensure!(file.extension().is_some_and(|e| e == "toml"), "{}: a case is a .toml file", file.display());
            let text = fs::read_to_string(&file)?;
            let case: Case = toml::from_str(&text).with_context(|| file.display().to_string())?;
            let name = format!("{}::{}", part(&group)?, part(&file)?);
            ensure!(!case.about.is_empty() && !case.references.is_empty() && !case.ask.is_empty(), "{name} says too little");
            cases.push((name, case));
        }
    }
    if cases.is_empty() {
        bail!("no cases in {}", folder.display());
    }
    Ok(cases)
}

fn sorted(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut entries = fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

fn part(path: &Path) -> Result<String> {
    Ok(path.file_stem().and_then(|s| s.to_str()).context("an odd name")?.to_owned())
}
