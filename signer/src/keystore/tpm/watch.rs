//! Looks for the TPM, unseals, watches, and does it again when the TPM went away: for ever, with back-off.

use std::time::Duration;

use super::{
    super::{KeystoreError, backoff::Backoff},
    core::{Core, Link},
};

/// How often an idle TPM is looked at.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// Back-off between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(30);

/// Runs until the keystore is closed.
pub(super) fn run(core: &Core) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    let mut was_ready = false;
    loop {
        let pause = match look(core) {
            Ok(()) => {
                if !was_ready {
                    log::info!("keystore `{}`: the TPM at {} is ready", core.config.name, core.config.tcti);
                }
                was_ready = true;
                backoff.reset();
                core.set_link(Link::Ready);
                HEALTH_INTERVAL
            }
            Err(error) => {
                let KeystoreError::Unavailable { reason, .. } = error else {
                    // Only what makes the TPM unusable comes here.
                    log::error!("keystore `{}`: {error}", core.config.name);
                    core.set_link(Link::Connecting { failed: Some(error.to_string()) });
                    core.wait_while(RETRY_CAP, |link| !matches!(link, Link::Closed));
                    continue;
                };
                log::warn!("keystore `{}`: {reason}", core.config.name);
                was_ready = false;
                core.forget_keys();
                core.set_link(Link::Connecting { failed: Some(reason) });
                backoff.next_delay()
            }
        };
        if let Link::Closed = core.wait_while(pause, |link| !matches!(link, Link::Closed)) {
            return;
        }
    }
}

/// The TPM answers. Wallets that have no keys yet get them; one that does not does not disturb the others.
fn look(core: &Core) -> Result<(), KeystoreError> {
    core.tpm.with(|tpm| tpm.random(&mut [0; 8])).map_err(|error| core.explain_any(&error))?;
    core.all_bound().iter().for_each(|bound| core.check(bound));
    Ok(())
}
