//! A command's file: the bytes as they travel, COSE over canonical CBOR, at most 700.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use postern_protocol::{
    command::{COMMAND_MAX, SignedCommand},
    key::PublicKey,
};

use super::words;
use crate::cli::{
    paint::{BAD, DIM, GOOD, HEAD, WARN, paint},
    psbt_file::write_whole,
    site::Site,
    status::{about, date},
};

/// The file's bytes, at most one more than a command has.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let limit = u64::try_from(COMMAND_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(bytes)
}

pub(super) fn read(path: &Path) -> Result<SignedCommand> {
    SignedCommand::from_bytes(&read_bytes(path)?).with_context(|| format!("{} is not a command", path.display()))
}

pub(super) fn write(path: &Path, command: &SignedCommand) -> Result<()> {
    write_whole(path, &command.to_bytes()?)
}

/// Seconds since 1970 by the wall clock.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Managers by name, when this machine has a configuration that says so.
pub(super) fn managers(site: &Site) -> Result<BTreeMap<String, PublicKey>> {
    if !site.config_path().exists() {
        return Ok(BTreeMap::new());
    }
    Ok(site.config()?.managers.managers.into_iter().collect())
}

/// Everything that a command says, and who signed it.
pub(super) fn say(signed: &SignedCommand, managers: &BTreeMap<String, PublicKey>) {
    let command = signed.command();
    say!("{} {}", paint(HEAD, "Command:"), words::action(&command.action));
    say!("  for signer  ed25519:{}", hex::encode(command.signer));
    say!("  on network  {}", command.network.escape_debug());
    say!("  serial      {}", command.serial);
    let now = now_s();
    let left = match command.expires.checked_sub(now) {
        None | Some(0) => paint(BAD, "expired"),
        Some(left) => format!("in {}", about(left.saturating_mul(1_000))),
    };
    say!("  expires     {}, {left}", date(command.expires));
    if signed.signatures() == 0 {
        say!("  {}", paint(WARN, "signed by nobody yet"));
        return;
    }
    let keys: Vec<PublicKey> = managers.values().copied().collect();
    let names: Vec<&String> = managers.keys().collect();
    match signed.verify(&keys) {
        Ok(who) => {
            let who: Vec<&str> = who.iter().filter_map(|n| names.get(*n)).map(|name| name.as_str()).collect();
            say!("  signed by   {}", paint(GOOD, who.join(", ")));
        }
        Err(_) if managers.is_empty() => {
            let ids: Vec<String> = signed.key_ids().map(hex::encode).collect();
            say!("  signed by   keys {}, {}", ids.join(", "), paint(DIM, "unchecked: no managers are configured here"));
        }
        Err(e) => say!("  signed by   {}", paint(BAD, format!("not the configured managers: {e}"))),
    }
}
