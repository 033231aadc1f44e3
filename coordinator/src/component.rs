//! A component's life: take the lease, do a step, wait for the bell or for time, until told to stop. A second process with the same
//! component waits for the lease; were both to work, every step is still done once, by the store.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    app::{App, Step},
    clock::now_ms,
};

/// How long a lease lasts without being renewed, and so how long another process waits after a kill.
const LEASE_MS: i64 = 2_000;
/// Longest wait after errors.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Whether a step may have left work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing more for now.
    Idle,
    /// Go on at once.
    More,
}

/// Repeats `step` until `shutdown` holds `true` or its sender is gone.
pub async fn run<F, R>(app: Arc<App>, name: &'static str, mut shutdown: watch::Receiver<bool>, mut step: F)
where
    F: FnMut(i64) -> R + Send,
    R: Future<Output = Step<Progress>> + Send,
{
    let mut leased_until = 0_i64;
    let mut wait = app.config.coordinator.poll.duration();
    tracing::info!(component = name, "started");
    while !*shutdown.borrow() {
        let now = now_ms();
        if leased_until.saturating_sub(now) < LEASE_MS / 2 {
            let until = now.saturating_add(LEASE_MS);
            match app.store.lease(name, &app.holder, now, until).await {
                Ok(true) => leased_until = until,
                Ok(false) => leased_until = 0,
                Err(e) => tracing::error!(component = name, "{e}"),
            }
        }
        if leased_until > now {
            match step(now).await {
                Ok(Progress::More) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(Progress::Idle) => wait = app.config.coordinator.poll.duration(),
                Err(e) => {
                    tracing::warn!(component = name, "{e}");
                    wait = wait.saturating_mul(2).min(BACKOFF_MAX);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = app.work.notified() => {}
            changed = shutdown.changed() => if changed.is_err() { break },
        }
    }
    if let Err(e) = app.store.release(name, &app.holder).await {
        tracing::warn!(component = name, "the lease was not given back and runs out by itself: {e}");
    }
    tracing::info!(component = name, "stopped");
}
