//! The socket: who is let in, how much they may have under way, and how it all ends in order.

use std::{
    collections::BTreeMap,
    io,
    net::Shutdown,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use postern_protocol::{
    PROTOCOL_VERSION, canonical, frame,
    refusal::{Refusal, RefusalCode},
    reply::{Reply, ReplyBody},
    request::RequestBody,
};

use super::{
    budget::Budget,
    connection::Connection,
    frames::Patience,
    peer::Peer,
    socket::{self, SocketError, SocketFile},
};
use crate::{
    intake::{self, Admitted, Role},
    lane::Lane,
};

/// What stands behind the socket.
pub(crate) trait Office: Send + Sync + 'static {
    /// What a user may do; none for a stranger.
    fn role(&self, uid: u32) -> Option<Role>;
    /// Whether gates see numbers and reasons.
    fn discloses(&self) -> bool;
    /// Whether this is answered in no time, so that the thread which reads may do it.
    fn is_quick(&self, asked: &RequestBody) -> bool;
    /// Does what is asked, or says why not: with the refusal, in full. On the caller's thread, on `lane`, or wherever it ends.
    fn answer(&self, asked: Admitted, lane: &Arc<Lane>, answer: Answer);
    /// Charges nothing from now on; what is charged is answered.
    fn stop(&self);
    /// Called once for each refusal, before it is sent.
    fn refused(&self, refusal: &Refusal, about: &About<'_>);
}

/// Called once with what came of a request.
pub(crate) type Answer = Box<dyn FnOnce(Result<ReplyBody, Refusal>) + Send>;

/// What a refusal is about, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct About<'a> {
    /// The asker's user id.
    pub uid: u32,
    /// The request's id; 0 when it could not be read.
    pub request: u64,
    /// `sign`, `command`, …; `frame` when it could not be read.
    pub what: &'static str,
    /// The wallet that the request names; unchecked.
    pub wallet: Option<&'a str>,
}

impl<'a> About<'a> {
    pub(super) fn new(what: &'static str, wallet: Option<&'a str>) -> Self {
        Self { uid: 0, request: 0, what, wallet }
    }

    pub(super) fn frame() -> Self {
        Self::new("frame", None)
    }

    pub(super) fn request(body: &'a RequestBody) -> Self {
        Self::new(intake::name(body), intake::wallet(body))
    }

    pub(super) fn of(self, request: u64, uid: u32) -> Self {
        Self { uid, request, ..self }
    }
}

/// How much the socket takes on.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Largest frame, in bytes.
    pub frame_max: usize,
    /// Bytes of requests held at once, over all connections; gates get three quarters.
    pub memory: usize,
    /// Connections at once; gates get seven eighths.
    pub connections: usize,
    /// Requests in flight on one connection; one more is refused as busy.
    pub in_flight: usize,
    /// Threads for what signing requests may wait for, and for what takes them long.
    pub signing_threads: usize,
    /// How long a peer may take to ask.
    pub(super) patience: Patience,
    /// How long a peer may take to read one reply.
    pub(super) write_patience: Duration,
    /// How long requests under way may take when the signer stops.
    pub farewell: Duration,
}

impl Terms {
    /// The usual terms for frames up to this size.
    #[must_use]
    pub fn for_frames(frame_max: usize) -> Self {
        Self {
            frame_max,
            memory: frame_max.saturating_mul(8).max(MEMORY_MIN),
            connections: 64,
            in_flight: 256,
            signing_threads: 16,
            patience: Patience { idle: Duration::from_secs(600), frame: Duration::from_secs(30) },
            write_patience: Duration::from_secs(30),
            farewell: Duration::from_secs(60),
        }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self::for_frames(frame::FRAME_MAX)
    }
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) terms: Terms,
    pub(super) office: Arc<dyn Office>,
    pub(super) budget: Arc<Budget>,
    sign: Arc<Lane>,
    addresses: Arc<Lane>,
    desk: Arc<Lane>,
    attest: Arc<Lane>,
    connections: Mutex<BTreeMap<u64, Arc<Connection>>>,
    gone: Condvar,
    stopping: AtomicBool,
}

impl Shared {
    /// Where a request waits for its turn.
    pub(super) fn lane(&self, body: &RequestBody) -> &Arc<Lane> {
        match body {
            RequestBody::Sign(_) => &self.sign,
            RequestBody::Addresses(_) => &self.addresses,
            RequestBody::Wallets | RequestBody::Status | RequestBody::Heartbeat(_) | RequestBody::Command(_) => &self.desk,
            RequestBody::Attest(_) => &self.attest,
        }
    }

    /// Whether what is not charged yet is refused.
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that is being served.
pub(crate) struct Server {
    shared: Arc<Shared>,
    listener: Arc<UnixListener>,
    file: SocketFile,
    accepting: JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens and serves until [`Self::stop`].
    ///
    /// # Errors
    /// [`SocketError`].
    pub(crate) fn start(path: &Path, office: Arc<dyn Office>, terms: Terms) -> Result<Self, SocketError> {
        let (listener, file) = socket::listen(path)?;
        let listener = Arc::new(listener);
        let io = |source| SocketError::Io { path: path.into(), source };
        let (sign, mut workers) = Lane::start("sign", terms.signing_threads.max(1)).map_err(io)?;
        let (addresses, more) = Lane::start("addresses", 1).map_err(io)?;
        workers.extend(more);
        let (desk, more) = Lane::start("desk", 2).map_err(io)?;
        workers.extend(more);
        let (attest, more) = Lane::start("attest", 1).map_err(io)?;
        workers.extend(more);
        let shared = Arc::new(Shared {
            budget: Budget::new(terms.memory, part(terms.memory, 3, 4)),
            terms,
            office,
            sign,
            addresses,
            desk,
            attest,
            connections: Mutex::default(),
            gone: Condvar::new(),
            stopping: AtomicBool::new(false),
        });
        let accepting = thread::Builder::new()
            .name("accept".into())
            .spawn({
                let (shared, listener) = (Arc::clone(&shared), Arc::clone(&listener));
                move || accept(&shared, &listener)
            })
            .map_err(io)?;
        Ok(Self { shared, listener, file, accepting, workers })
    }

    /// Takes no more requests, finishes and answers what is under way, refuses what still waits, closes, and removes the
    /// socket. False when something did not end in time: then threads may still be at work.
    #[must_use]
    pub(crate) fn stop(self) -> bool {
        let Self { shared, listener, file, accepting, workers } = self;
        let until = Instant::now().checked_add(shared.terms.farewell);
        let left = || until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        shared.stopping.store(true, Ordering::SeqCst);
        shared.office.stop();
        let _ = rustix::net::shutdown(listener.as_fd(), rustix::net::Shutdown::Both);
        let mut in_order = accepting.join().is_ok();
        for connection in shared.connections().values() {
            connection.stop_reading();
        }
        for lane in [&shared.sign, &shared.addresses, &shared.desk, &shared.attest] {
            lane.close();
            in_order &= lane.drained(left());
        }
        let mut connections = shared.connections();
        while !connections.is_empty() {
            let (again, time) = shared.gone.wait_timeout(connections, left()).unwrap_or_else(PoisonError::into_inner);
            connections = again;
            if time.timed_out() {
                in_order = false;
                connections.values().for_each(|connection| connection.cut());
                break;
            }
        }
        drop(connections);
        if in_order {
            in_order = workers.into_iter().all(|worker| worker.join().is_ok());
        }
        drop(file);
        in_order
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    let mut next_id: u64 = 0;
    while !shared.stopping() {
        match listener.accept() {
            Ok((stream, _)) => {
                next_id = next_id.wrapping_add(1);
                if let Err(e) = welcome(shared, next_id, stream) {
                    log::warn!("a connection could not be served: {e}");
                }
            }
            Err(_) if shared.stopping() => return,
            Err(e) => {
                log::error!("cannot accept connections: {e}; trying again");
                // Out of file descriptors or memory: others must end something first.
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Lets a peer in, or tells it why not.
fn welcome(shared: &Arc<Shared>, id: u64, stream: UnixStream) -> io::Result<()> {
    let peer = Peer::of(&stream)?;
    let turn_away = |refusal: Refusal| {
        shared.office.refused(&refusal, &About::new("connect", None).of(0, peer.uid));
        let reply = Reply { version: PROTOCOL_VERSION, id: 0, body: ReplyBody::Refused(refusal.undisclosed()) };
        if let Ok(framed) = frame::wrap(&canonical::to_vec(&reply)) {
            // A fresh socket has room for it; whoever does not read it is not waited for.
            let _ = rustix::net::send(&stream, &framed, rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL);
        }
        let _ = stream.shutdown(Shutdown::Both);
    };
    let Some(role) = shared.office.role(peer.uid) else {
        let message = format!("user {} (process {}) is in neither [socket] gates nor operators", peer.uid, peer.pid);
        turn_away(Refusal::new(RefusalCode::NotPermitted, message));
        return Ok(());
    };
    let most = shared.terms.connections;
    let most = if role == Role::Operator { most } else { part(most, 7, 8) };
    let mut connections = shared.connections();
    let taken = connections.values().filter(|c| role == Role::Operator || c.role() == Role::Gate).count();
    if taken >= most {
        drop(connections);
        turn_away(Refusal::new(RefusalCode::Busy, format!("{taken} connections are open; close some")));
        return Ok(());
    }
    let connection = Connection::new(stream.try_clone()?, peer, role, shared)?;
    let writer = thread::Builder::new().name("write".into()).stack_size(THREAD_STACK).spawn({
        let connection = Arc::clone(&connection);
        move || connection.write()
    })?;
    connections.insert(id, Arc::clone(&connection));
    drop(connections);
    let reader = thread::Builder::new().name("read".into()).stack_size(THREAD_STACK).spawn({
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        move || {
            connection.read();
            let _ = writer.join();
            shared.connections().remove(&id);
            shared.gone.notify_all();
        }
    });
    if let Err(e) = reader {
        connection.cut();
        connection.abandon();
        shared.connections().remove(&id);
        return Err(e);
    }
    Ok(())
}

/// Small frames leave room for many requests all the same, in bytes.
const MEMORY_MIN: usize = 16 * 1024 * 1024;
/// Readers and writers hold no large value on their stacks.
const THREAD_STACK: usize = 256 * 1024;

fn part(of: usize, numerator: usize, denominator: usize) -> usize {
    of.saturating_mul(numerator).checked_div(denominator).unwrap_or(0)
}

#[cfg(test)]
mod tests;
