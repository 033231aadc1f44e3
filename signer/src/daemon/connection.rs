//! One peer: a thread that reads its requests, a thread that writes what it is slow to take, and a count of the answers
//! that it is owed.

use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use postern_protocol::{
    PROTOCOL_VERSION, canonical, frame,
    refusal::{Refusal, RefusalCode},
    reply::{Reply, ReplyBody},
};

use super::{
    budget::Held,
    frames::{End, Frames, Incoming},
    outbox::Outbox,
    peer::Peer,
    server::{About, Shared},
};
use crate::{
    intake::{self, Admitted, Role},
    lane::{Lane, guarded},
};

/// Bytes of replies that may wait for a slow peer before its next request is read. Enough for thousands of refusals, so
/// that a peer may send a batch before it reads the first answer.
const BACKLOG_MAX: usize = 1024 * 1024;

/// A connection that was accepted.
pub(super) struct Connection {
    stream: UnixStream,
    outbox: Outbox,
    peer: Peer,
    role: Role,
    owed: Mutex<Owed>,
    settled: Condvar,
    shared: Arc<Shared>,
}

/// Answers that are owed.
#[derive(Default)]
struct Owed {
    count: usize,
    /// Nothing more is read, and the reader waits for the last answer.
    awaited: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, peer: Peer, role: Role, shared: &Arc<Shared>) -> io::Result<Arc<Self>> {
        let outbox = Outbox::new(stream.try_clone()?, shared.terms.write_patience)?;
        Ok(Arc::new(Self { stream, outbox, peer, role, owed: Mutex::default(), settled: Condvar::new(), shared: Arc::clone(shared) }))
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// No more requests are read; answers still go out.
    pub(super) fn stop_reading(&self) {
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Ends the connection whatever is owed.
    pub(super) fn cut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// No thread reads or will: the writing thread ends as well.
    pub(super) fn abandon(&self) {
        self.outbox.finish();
    }

    /// The writing thread.
    pub(super) fn write(&self) {
        self.outbox.run();
    }

    /// The reading thread: until the peer is done, and every answer that it is owed is given.
    pub(super) fn read(self: &Arc<Self>) {
        let end = self.read_requests();
        log::debug!(uid = self.peer.uid, pid = self.peer.pid; "connection ends: {end}");
        if let End::TooLarge(e) = &end {
            self.refuse(0, &Refusal::new(RefusalCode::FrameTooLarge, e.to_string()), About::frame());
        }
        let mut owed = self.lock_owed();
        owed.awaited = true;
        while owed.count > 0 {
            owed = self.settled.wait(owed).unwrap_or_else(PoisonError::into_inner);
        }
        drop(owed);
        self.outbox.finish();
    }

    fn read_requests(self: &Arc<Self>) -> End {
        let shared = &self.shared;
        let mut frames = match Frames::new(&self.stream, shared.terms.frame_max, shared.terms.patience) {
            Ok(frames) => frames,
            Err(e) => return e.into(),
        };
        loop {
            self.outbox.wait_below(BACKLOG_MAX);
            match frames.next(shared.budget.hold(self.role), || self.lock_owed().count > 0) {
                Ok(Incoming::Frame(body, held)) => self.take(&body, held),
                Ok(Incoming::Unaffordable(id)) => {
                    let message = "the requests in flight fill the memory set apart for them; ask again when some are answered";
                    self.refuse(id, &Refusal::new(RefusalCode::Busy, message), About::frame());
                }
                Err(end) => return end,
            }
        }
    }

    fn lock_owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request in and queues it, or says why not.
    fn take(self: &Arc<Self>, body: &[u8], held: Held) {
        let shared = &self.shared;
        let admitted = match intake::admit(body, self.role) {
            Ok(admitted) => admitted,
            Err(rejected) => return self.refuse(rejected.id, &rejected.refusal, About::frame()),
        };
        let id = admitted.id();
        let mut owed = self.lock_owed();
        if owed.count >= shared.terms.in_flight {
            drop(owed);
            let message = format!("{} requests of this connection are in flight; ask again when some are answered", shared.terms.in_flight);
            return self.refuse(id, &Refusal::new(RefusalCode::Busy, message), About::request(admitted.body()));
        }
        owed.count = owed.count.saturating_add(1);
        drop(owed);
        let ticket = Ticket { connection: Arc::clone(self), id, answered: false, _held: held };
        let lane = shared.lane(admitted.body());
        let quick = shared.office.is_quick(admitted.body());
        let job = Job { admitted, ticket };
        if quick {
            guarded(|| job.work(lane))
        } else {
            lane.push(Box::new({
                let lane = Arc::clone(lane);
                move || job.work(&lane)
            }))
        }
    }

    /// Logs a refusal, in full, and sends it, as full as this peer may see it.
    fn refuse(&self, id: u64, refusal: &Refusal, about: About<'_>) {
        let office = &self.shared.office;
        office.refused(refusal, &about.of(id, self.peer.uid));
        let told = refusal.clone();
        let told = if self.role == Role::Operator || office.discloses() { told } else { told.undisclosed() };
        self.send(id, ReplyBody::Refused(told));
    }

    fn send(&self, id: u64, body: ReplyBody) {
        match frame::wrap(&canonical::to_vec(&Reply { version: PROTOCOL_VERSION, id, body })) {
            Ok(framed) => self.outbox.send(framed),
            Err(e) => {
                log::error!("a reply does not fit a frame ({e}); the connection is closed");
                self.cut();
            }
        }
    }
}

/// A request on its way, with the right to answer it.
struct Job {
    admitted: Admitted,
    ticket: Ticket,
}

impl Job {
    /// Does the work, and sees to it that it is answered.
    fn work(self, lane: &Arc<Lane>) {
        let Self { admitted, ticket } = self;
        let shared = Arc::clone(&ticket.connection.shared);
        if shared.stopping() {
            let refusal = Refusal::new(RefusalCode::ShuttingDown, "the signer is stopping; nothing was charged, ask again when it runs");
            return ticket.refuse(&refusal, About::request(admitted.body()));
        }
        // The log names the wallet, which the work consumes.
        let name = intake::name(admitted.body());
        let wallet = intake::wallet(admitted.body()).map(str::to_owned);
        let answer = move |outcome| match outcome {
            Ok(body) => ticket.send(body),
            Err(refusal) => ticket.refuse(&refusal, About::new(name, wallet.as_deref())),
        };
        shared.office.answer(admitted, lane, Box::new(answer));
    }
}

/// An answer that is owed. Dropping it without an answer ends the connection: the peer shall not wait for ever.
struct Ticket {
    connection: Arc<Connection>,
    id: u64,
    answered: bool,
    _held: Held,
}

impl Ticket {
    fn send(mut self, body: ReplyBody) {
        self.answered = true;
        self.connection.send(self.id, body);
    }

    fn refuse(mut self, refusal: &Refusal, about: About<'_>) {
        self.answered = true;
        self.connection.refuse(self.id, refusal, about);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.cut();
        }
        let mut owed = self.connection.lock_owed();
        owed.count = owed.count.saturating_sub(1);
        if owed.awaited && owed.count == 0 {
            self.connection.settled.notify_all();
        }
    }
}
