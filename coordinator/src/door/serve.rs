//! One stream: handshake, who is it, HTTP/1.1 until it ends.

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use postern_link::tls::{self, TlsIdentity, TlsPin};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::{
    DoorError, PairedSigner, Pins,
    pins::{Known, SignerName, name_of},
};

/// Most streams at one time, counted before the handshake.
const STREAMS_MAX: usize = 512;
/// Longest handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// Longest silence between two requests of one stream. A link speaks at least once in a long poll or heartbeat.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// How long answers may take after a shutdown.
const FAREWELL: Duration = Duration::from_secs(5);
/// Most bytes of request headers.
const HEADERS_MAX: usize = 16 * 1024;
/// Pause after the system refused a connection (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// All streams of the door.
pub(super) struct Guests {
    acceptor: TlsAcceptor,
    pins: watch::Receiver<Arc<[PairedSigner]>>,
    seats: Arc<Semaphore>,
}

impl Guests {
    pub(super) fn new(identity: &TlsIdentity, pins: Arc<dyn Pins>) -> Result<Self, DoorError> {
        let signers = pins.signers();
        let config = tls::server_config(identity, Arc::new(Known(signers.clone())))?;
        Ok(Self { acceptor: TlsAcceptor::from(config), pins: signers, seats: Arc::new(Semaphore::new(STREAMS_MAX)) })
    }

    pub(super) fn pins(&self) -> watch::Receiver<Arc<[PairedSigner]>> {
        self.pins.clone()
    }

    /// Waits for the streams to end, not for ever.
    pub(super) async fn leave(&self) {
        let all = u32::try_from(STREAMS_MAX).unwrap_or(u32::MAX);
        let _ = timeout(FAREWELL, self.seats.acquire_many(all)).await;
    }

    /// Takes a stream in, in a task of its own. `what` says where it came from, for the log.
    pub(super) fn welcome<S>(self: &Arc<Self>, stream: S, what: &'static str, router: Router, shutdown: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Ok(seat) = self.seats.clone().try_acquire_owned() else {
            tracing::warn!(what, "{STREAMS_MAX} streams are open; this one is dropped");
            return;
        };
        let guests = self.clone();
        tokio::spawn(async move {
            if let Err(e) = guests.serve(stream, what, router, shutdown).await {
                tracing::info!(what, "stream ended: {e}");
            }
            drop(seat);
        });
    }

    async fn serve<S>(&self, stream: S, what: &'static str, router: Router, mut shutdown: watch::Receiver<bool>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = timeout(HANDSHAKE_MAX, self.acceptor.accept(stream)).await??;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or(io::ErrorKind::PermissionDenied)?;
        let pin = TlsPin::of_certificate(certificate).map_err(io::Error::other)?;
        let name = name_of(&self.pins, &pin).ok_or(io::ErrorKind::PermissionDenied)?;
        tracing::info!(signer = %name, what, "link connected");

        let spoken = watch::Sender::new(());
        let listening = spoken.subscribe();
        let signer = SignerName(name.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            spoken.send_replace(());
            request.extensions_mut().insert(signer.clone());
            router.clone().oneshot(request.map(axum::body::Body::new))
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(SILENCE_MAX).max_buf_size(64 * 1024).max_headers(64);
        http.max_header_size(HEADERS_MAX);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = unpaired(self.pins.clone(), pin, &name) => {
                tracing::warn!(signer = %name, "no longer paired; its connection ends");
                return Ok(());
            }
            () = silent(listening) => {
                connection.as_mut().graceful_shutdown();
                timeout(HANDSHAKE_MAX, connection).await?
            }
            () = stopped(&mut shutdown) => {
                connection.as_mut().graceful_shutdown();
                timeout(FAREWELL, connection).await?
            }
        };
        ended.map_err(io::Error::other)
    }
}

/// Resolves when this key no longer belongs to this signer.
async fn unpaired(mut pins: watch::Receiver<Arc<[PairedSigner]>>, pin: TlsPin, name: &str) {
    // A table that is dropped means that the coordinator ends; the shutdown handles that.
    if pins.wait_for(|signers| !signers.iter().any(|s| s.tls_pin == pin && s.name == name)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves after a long time without a request.
async fn silent(mut spoken: watch::Receiver<()>) {
    while let Ok(Ok(())) = timeout(SILENCE_MAX, spoken.changed()).await {}
}

/// Resolves when the shutdown has begun.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: nobody can stop us in another way any more.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn accept_all<S, F>(
    guests: Arc<Guests>,
    mut accept: impl FnMut() -> F,
    what: &'static str,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = io::Result<S>>,
{
    loop {
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            () = stopped(&mut shutdown) => return,
        };
        match accepted {
            Ok(stream) => guests.welcome(stream, what, router.clone(), shutdown.clone()),
            Err(e) => {
                tracing::warn!(what, "a connection could not be accepted: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

pub(super) async fn tcp(guests: Arc<Guests>, listener: TcpListener, router: Router, shutdown: watch::Receiver<bool>) {
    let accept = || async {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    accept_all(guests, accept, "tcp", router, shutdown).await;
}

pub(super) async fn unix(guests: Arc<Guests>, listener: UnixListener, router: Router, shutdown: watch::Receiver<bool>) {
    let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
    accept_all(guests, accept, "unix", router, shutdown).await;
}
