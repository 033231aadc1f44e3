//! Runs components until SIGTERM or SIGINT.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Mutex, watch},
    task::JoinSet,
};

use crate::{
    api,
    app::App,
    component,
    door::{Door, PairedSigner, PinTable},
    monitor::Monitor,
    orders, sender, signer_api,
};

/// How often the paired signers are read again: `signer add` and `remove` take effect without a restart.
const PINS_EVERY: Duration = Duration::from_secs(1);

/// What can run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The customers' API and the signers' door.
    Api,
    /// The chain monitor.
    Monitor,
    /// Approval and batching.
    Orders,
    /// Signing, broadcast, fee bumps.
    Sender,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Api, Self::Monitor, Self::Orders, Self::Sender];
}

/// A signer's keys as the door takes them.
///
/// # Errors
/// When a key is not one.
pub fn paired(name: &str, tls_pin: &str, client_auth: &str) -> Result<PairedSigner> {
    Ok(PairedSigner {
        name: name.to_owned(),
        tls_pin: tls_pin.parse().context("tls_pin")?,
        client_auth: client_auth.parse().context("client_auth")?,
    })
}

async fn signers(app: &App) -> Result<Vec<PairedSigner>> {
    let mut all = Vec::new();
    for s in app.store.signers().await? {
        match paired(&s.name, &s.tls_pin, &s.client_auth) {
            Ok(signer) => all.push(signer),
            Err(e) => tracing::error!(signer = s.name, "its keys in the database make no sense, it is left out: {e:#}"),
        }
    }
    Ok(all)
}

/// Runs these components; returns when one of them cannot, or all have stopped after a signal.
///
/// # Errors
/// What to tell the operator.
pub async fn run(app: Arc<App>, components: &[Component]) -> Result<()> {
    let (stop, shutdown) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut running = JoinSet::new();
    for component in components {
        match component {
            Component::Api => api_and_door(&app, &shutdown, &mut running).await?,
            Component::Monitor => {
                let monitor = Arc::new(Mutex::new(Monitor::new(app.clone())));
                let (app, shutdown) = (app.clone(), shutdown.clone());
                running.spawn(async move {
                    component::run(app, "monitor", shutdown, move |now| {
                        let monitor = monitor.clone();
                        async move { monitor.lock().await.step(now).await }
                    })
                    .await;
                    Ok(())
                });
            }
            Component::Orders => {
                let (of_step, app, shutdown) = (app.clone(), app.clone(), shutdown.clone());
                running.spawn(async move {
                    component::run(app, "orders", shutdown, move |now| {
                        let app = of_step.clone();
                        async move { orders::step(&app, now).await }
                    })
                    .await;
                    Ok(())
                });
            }
            Component::Sender => {
                let (of_step, app, shutdown) = (app.clone(), app.clone(), shutdown.clone());
                running.spawn(async move {
                    component::run(app, "sender", shutdown, move |now| {
                        let app = of_step.clone();
                        async move { sender::step(&app, now).await }
                    })
                    .await;
                    Ok(())
                });
            }
        }
    }
    drop(shutdown);
    let mut result = Ok(());
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            ended = running.join_next() => match ended {
                None => return result,
                Some(Ok(Ok(()))) if *stop.borrow() => continue,
                Some(Ok(Ok(()))) => result = result.and(Err(anyhow::anyhow!("a component ended by itself"))),
                Some(Ok(Err(e))) => result = result.and(Err(e)),
                Some(Err(e)) => result = result.and(Err(anyhow::Error::from(e).context("a component ended by a bug"))),
            },
        }
        stop.send_replace(true);
    }
}

async fn api_and_door(app: &Arc<App>, shutdown: &watch::Receiver<bool>, running: &mut JoinSet<Result<()>>) -> Result<()> {
    let listen = app.config.listen().map_err(anyhow::Error::msg)?;
    let router = api::router(app.clone());
    let of_api = shutdown.clone();
    running.spawn(async move { api::serve(&listen, router, of_api).await.with_context(|| format!("[api] listen {listen:?}")) });

    let pins = PinTable::new(signers(app).await?);
    let door = Door::open(&app.config.door, Arc::new(pins.clone())).await?;
    if let Some(address) = door.direct_address() {
        tracing::info!(%address, "the door's direct way");
    }
    let (router, of_door) = (signer_api::router(app.clone()), shutdown.clone());
    running.spawn(async move {
        door.serve(router, of_door).await;
        Ok(())
    });
    let (app, mut of_pins) = (app.clone(), shutdown.clone());
    running.spawn(async move {
        while !*of_pins.borrow() {
            match signers(&app).await {
                Ok(signers) => pins.replace(signers),
                Err(e) => tracing::error!("the paired signers cannot be read: {e:#}"),
            }
            tokio::select! {
                () = tokio::time::sleep(PINS_EVERY) => {}
                changed = of_pins.changed() => if changed.is_err() { break },
            }
        }
        Ok(())
    });
    Ok(())
}
