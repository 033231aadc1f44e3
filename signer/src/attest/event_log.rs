//! The firmware's event log, where the kernel shows it to us.

use std::{fs::File, io::Read as _, path::Path};

use postern_protocol::attest::EVENT_LOG_MAX;

/// The log of `/dev/tpmrm0` or `/dev/tpm0`; None where there is none, this user may not read it, or it is too large to be carried. It
/// is written before the kernel starts and does not change.
#[must_use]
pub fn event_log(device: &Path) -> Option<Vec<u8>> {
    let name = device.file_name()?.to_str()?;
    let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let file = File::open(format!("/sys/kernel/security/tpm{number}/binary_bios_measurements")).ok()?;
    let mut log = vec![];
    file.take(u64::try_from(EVENT_LOG_MAX).ok()?.saturating_add(1)).read_to_end(&mut log).ok()?;
    (!log.is_empty() && log.len() <= EVENT_LOG_MAX).then_some(log)
}
