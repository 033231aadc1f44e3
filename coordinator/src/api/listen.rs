//! Serves the API on loopback or a Unix socket, with time-outs on every connection.

use std::{io, path::Path, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
    sync::{Semaphore, watch},
};

use crate::config::Listen;

/// Connections at one time; others wait.
const CONNECTIONS_MAX: usize = 256;
/// A request's head comes within this.
const HEAD_MAX: Duration = Duration::from_secs(15);
/// Calls that are being answered at the end get this long.
const GRACE: Duration = Duration::from_secs(10);

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// Binds; a socket file that nobody listens on any more is removed first.
async fn bind(listen: &Listen) -> io::Result<Listener> {
    match listen {
        Listen::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
        Listen::Unix(path) => {
            remove_dead(path).await?;
            Ok(Listener::Unix(UnixListener::bind(path)?))
        }
    }
}

async fn remove_dead(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Serves until `shutdown` holds `true` or its sender is gone, then answers what is being answered.
///
/// # Errors
/// When it cannot listen.
pub async fn serve(listen: &Listen, router: Router, mut shutdown: watch::Receiver<bool>) -> io::Result<()> {
    let listener = bind(listen).await?;
    match &listener {
        Listener::Tcp(l) => tracing::info!(address = %l.local_addr()?, "the API listens"),
        Listener::Unix(_) => tracing::info!(?listen, "the API listens"),
    }
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while !*shutdown.borrow() {
        let accepted = tokio::select! {
            changed = shutdown.changed() => match changed { Ok(()) => continue, Err(_) => break },
            accepted = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        let (Ok(place), stream) = accepted else { break };
        let Ok(stream) = stream.inspect_err(|e| tracing::warn!("API: a connection was not accepted: {e}")) else {
            // Out of file descriptors, most likely: let others end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(e) = watched.await {
                tracing::debug!("API connection: {e}");
            }
        });
    }
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("API: calls were cut off");
    }
    if let Listen::Unix(path) = listen {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}
