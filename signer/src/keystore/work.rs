//! Worker threads, one session each, and the queue that they share. A session on which a call failed is closed: its next
//! operation may fail for ever.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cryptoki::{context::Pkcs11, session::Session, slot::Slot};

use super::{
    call::Calls,
    fault::{Failure, Fault},
    module::{Entered, ModuleUser, lock},
    pool::Unwrapped,
    witness::Witness,
};

/// A batch gives up when no worker finishes anything for this long.
pub(super) const STALL: Duration = Duration::from_secs(15);
/// The time that a part may take on a slow token with everything else before it.
const SLOWEST: Duration = Duration::from_secs(1);
/// Parts that may wait in a queue.
const WAITING_MAX: usize = 100_000;

/// A token that was found, logged in to and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connection {
    /// Of the module: tells this connection from every other one of the keystore.
    pub(super) generation: u64,
    /// Where the token is for as long as the connection lasts.
    pub(super) slot: Slot,
}

/// A session as a piece of work sees it.
pub(super) struct Token<'a> {
    pub(super) context: &'static Pkcs11,
    pub(super) calls: &'static Calls,
    pub(super) session: &'a Session,
    pub(super) connection: Connection,
    pub(super) witness: &'a Witness,
    /// Pool keys that this session holds unwrapped.
    pub(super) unwrapped: &'a mut Unwrapped,
}

/// Something to do on a session, in parts that may run at once.
trait Work: Send + Sync {
    fn part(&self, index: usize, worker: &mut Worker<'_>);
}

/// What waits for a worker.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    finished: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    parts: VecDeque<(Arc<dyn Work>, usize)>,
    /// Workers that have nothing to do.
    idle: usize,
    closed: bool,
}

impl Queue {
    /// Runs `run` for each index below `parts` on whichever sessions are free, and returns the results in order. After the first
    /// fault no further part is started. `repeat` says that a part may be tried a second time on a fresh session.
    pub(super) fn run<T, F>(&self, connection: Connection, parts: usize, repeat: bool, run: F) -> Result<Vec<T>, Fault>
    where
        T: Send + 'static,
        F: Fn(&mut Token<'_>, usize) -> Result<T, Fault> + Send + Sync + 'static,
    {
        let outcome = Outcome { results: (0..parts).map(|_| None).collect(), left: parts, fault: None, given_up: false };
        let batch = Arc::new(Batch { run, repeat, connection, outcome: Mutex::new(outcome), done: Condvar::new() });
        let idle = {
            let mut waiting = lock(&self.waiting);
            if waiting.closed {
                return Err(Fault::lost("the keystore is closed"));
            }
            if waiting.parts.len().saturating_add(parts) > WAITING_MAX {
                return Err(Fault::Call { function: "queue".into(), reason: "too much is waiting".into(), kind: Failure::Contended });
            }
            waiting.parts.extend((0..parts).map(|index| (Arc::clone(&batch) as Arc<dyn Work>, index)));
            waiting.idle
        };
        // A worker that is busy looks by itself before it sleeps.
        (0..parts.min(idle)).for_each(|_| self.filled.notify_one());
        batch.wait(self)
    }

    /// Lets the workers finish what waits, and end.
    pub(super) fn close(&self) {
        lock(&self.waiting).closed = true;
        self.filled.notify_all();
    }

    fn next(&self) -> Option<(Arc<dyn Work>, usize)> {
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(next) = waiting.parts.pop_front() {
                return Some(next);
            }
            if waiting.closed {
                return None;
            }
            waiting.idle = waiting.idle.saturating_add(1);
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle = waiting.idle.saturating_sub(1);
        }
    }
}

struct Batch<T, F> {
    run: F,
    repeat: bool,
    connection: Connection,
    outcome: Mutex<Outcome<T>>,
    done: Condvar,
}

struct Outcome<T> {
    results: Vec<Option<T>>,
    left: usize,
    fault: Option<Fault>,
    given_up: bool,
}

impl<T: Send, F: Fn(&mut Token<'_>, usize) -> Result<T, Fault> + Send + Sync> Work for Batch<T, F> {
    fn part(&self, index: usize, worker: &mut Worker<'_>) {
        if lock(&self.outcome).given_up {
            return;
        }
        let result = worker.attempt(self.connection, self.repeat, |token| (self.run)(token, index));
        let mut outcome = lock(&self.outcome);
        outcome.left = outcome.left.saturating_sub(1);
        match result {
            Ok(value) => {
                if let Some(place) = outcome.results.get_mut(index) {
                    *place = Some(value);
                }
            }
            Err(fault) => {
                outcome.given_up = true;
                outcome.fault.get_or_insert(fault);
            }
        }
        if outcome.left == 0 || outcome.given_up {
            self.done.notify_all();
        }
    }
}

impl<T, F> Batch<T, F> {
    fn wait(&self, queue: &Queue) -> Result<Vec<T>, Fault> {
        let started = Instant::now();
        let mut outcome = lock(&self.outcome);
        let longest = STALL.saturating_add(SLOWEST.saturating_mul(u32::try_from(outcome.left).unwrap_or(u32::MAX)));
        loop {
            if let Some(fault) = outcome.fault.take() {
                return Err(fault);
            }
            if outcome.left == 0 {
                let results: Option<Vec<T>> = std::mem::take(&mut outcome.results).into_iter().collect();
                return results.ok_or_else(|| Fault::lost("a part of the work was lost"));
            }
            let finished = queue.finished.load(Ordering::Relaxed);
            let (again, timed_out) = self.done.wait_timeout(outcome, STALL).unwrap_or_else(PoisonError::into_inner);
            outcome = again;
            // One call that hangs must not hold its batch for ever because others go on.
            let idle = timed_out.timed_out() && queue.finished.load(Ordering::Relaxed) == finished;
            if idle || started.elapsed() > longest {
                outcome.given_up = true;
                return Err(Fault::lost(format!("the token has not answered for {} s", started.elapsed().as_secs())));
            }
        }
    }
}

/// A worker thread's own.
pub(super) struct Worker<'a> {
    module: &'a ModuleUser,
    witness: &'a Witness,
    open: Option<OpenSession>,
}

struct OpenSession {
    connection: Connection,
    session: Session,
    unwrapped: Unwrapped,
}

impl<'a> Worker<'a> {
    pub(super) fn new(module: &'a ModuleUser, witness: &'a Witness) -> Self {
        Self { module, witness, open: None }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self, queue: &Queue) {
        while let Some((work, index)) = queue.next() {
            if catch_unwind(AssertUnwindSafe(|| work.part(index, &mut self))).is_err() {
                log::error!("a keystore worker panicked; its session is closed");
                self.close();
            }
            queue.finished.fetch_add(1, Ordering::Relaxed);
        }
        self.close();
    }

    /// Runs `run` on a session of this connection, opened if need be.
    pub(super) fn attempt<T>(
        &mut self,
        connection: Connection,
        repeat: bool,
        run: impl Fn(&mut Token<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let first = self.attempt_once(connection, &run);
        match first {
            Err(Fault::Call { kind: Failure::Lost | Failure::Contended, .. }) if repeat => self.attempt_once(connection, &run),
            outcome => outcome,
        }
    }

    fn attempt_once<T>(&mut self, connection: Connection, run: impl Fn(&mut Token<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let entered = match self.module.enter(connection.generation) {
            Ok(entered) => entered,
            Err(stale) => {
                // Sessions of an older generation are gone already, and their handles may be another's by now: closing one here
                // would close that. They are opened so that dropping them closes nothing.
                self.open = None;
                return Err(stale);
            }
        };
        let witness = self.witness;
        let outcome = match self.session(connection, &entered) {
            Ok(open) => run(&mut Token {
                context: entered.context(),
                calls: entered.calls(),
                session: &open.session,
                connection,
                witness,
                unwrapped: &mut open.unwrapped,
            }),
            Err(fault) => Err(fault),
        };
        if outcome.is_err() {
            close_entered(self.open.take());
        }
        outcome
    }

    fn session(&mut self, connection: Connection, entered: &Entered<'_>) -> Result<&mut OpenSession, Fault> {
        if self.open.as_ref().is_some_and(|open| open.connection != connection) {
            self.open = None;
        }
        match &mut self.open {
            Some(open) => Ok(open),
            empty => {
                let session = entered.context().open_rw_session_no_drop(connection.slot)?;
                Ok(empty.insert(OpenSession { connection, session, unwrapped: Unwrapped::default() }))
            }
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take()
            && let Ok(_entered) = self.module.enter(open.connection.generation)
        {
            close_entered(Some(open));
        }
    }
}

/// Closes a session of the module's present generation; a token that has gone has closed it already.
fn close_entered(open: Option<OpenSession>) {
    if let Some(open) = open
        && let Err(error) = open.session.close()
    {
        log::debug!("C_CloseSession: {error}");
    }
}
