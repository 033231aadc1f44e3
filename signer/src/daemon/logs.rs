//! Where the log goes: to the journal with structured fields when systemd runs us, else to stderr.

use log::LevelFilter;

/// Whether the log goes to systemd's journal.
#[must_use]
pub fn to_journal() -> bool {
    systemd_journal_logger::connected_to_journal()
}

/// Starts logging, at the level that `RUST_LOG` names (error, warn, info, debug, trace), `info` without it; the TPM's library,
/// which logs what we report ourselves, is silent then.
///
/// # Errors
/// In words, when the journal cannot be reached or somebody else logs already.
pub fn start() -> Result<(), String> {
    if !to_journal() {
        return env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info,tss_esapi=off"))
            .try_init()
            .map_err(|e| format!("cannot log to stderr: {e}"));
    }
    let journal = systemd_journal_logger::JournalLog::new().map_err(|e| format!("cannot reach the journal: {e}"))?;
    journal.install().map_err(|e| format!("cannot log to the journal: {e}"))?;
    let level = std::env::var("RUST_LOG").ok().and_then(|level| level.parse().ok());
    log::set_max_level(level.unwrap_or(LevelFilter::Info));
    Ok(())
}
