//! Worker threads, one session each, and the queue that they share. A session on which a call failed is closed: its next
//! operation may fail for ever.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc::sync_channel,
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
/// The time that a part may take on a slow token.
const SLOWEST: Duration = Duration::from_secs(1);
/// How often within that time it is looked whether something hangs.
const LOOKS: u32 = 15;
/// The same when the keystore is being closed, which waits for it.
const CLOSING_TICK: Duration = Duration::from_millis(5);
/// Parts that may wait in a queue.
const WAITING_MAX: usize = 100_000;
/// So many may wait for those who do not wait themselves; the rest is for those who do, who are few.
const SOON_MAX: usize = 10_000;

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

    /// Whether it has waited for the token for too long, given what that is, and that nothing was finished for so long.
    fn is_stalled(&self, stall: Duration, nothing_finished: Duration) -> bool;

    /// Says so to whoever waits. What is still being done no longer matters.
    fn give_up(&self);
}

/// What becomes of all parts, in order, or the first fault.
type Outcome<T> = Result<Vec<T>, Fault>;

/// What waits for a worker.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    finished: AtomicU64,
    under_way: Mutex<UnderWay>,
    begun: Condvar,
    stall: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            finished: AtomicU64::new(0),
            under_way: Mutex::default(),
            begun: Condvar::new(),
            stall: STALL,
        }
    }
}

#[derive(Default)]
struct Waiting {
    parts: VecDeque<(Arc<dyn Work>, usize)>,
    /// Workers that have nothing to do.
    idle: usize,
    closed: bool,
}

/// What may hang.
#[derive(Default)]
struct UnderWay {
    work: Vec<Weak<dyn Work>>,
    /// The watching thread sleeps until there is something.
    asleep: bool,
    closed: bool,
}

impl Queue {
    /// Runs `run` for each index below `parts` on whichever sessions are free, and returns the results in order. After the first
    /// fault no further part is started. `repeat` says that a part may be tried a second time on a fresh session.
    pub(super) fn run<T, F>(&self, connection: Connection, parts: usize, repeat: bool, run: F) -> Outcome<T>
    where
        T: Send + 'static,
        F: Fn(&mut Token<'_>, usize) -> Result<T, Fault> + Send + Sync + 'static,
    {
        let (done, outcome) = sync_channel(1);
        self.submit(connection, parts, repeat, run, move |outcome| {
            let _ = done.send(outcome);
        });
        outcome.recv().unwrap_or_else(|_| Err(Fault::lost("the work was dropped")))
    }

    /// Whether one who does not wait may [`Self::submit`] something.
    pub(super) fn has_room(&self) -> bool {
        lock(&self.waiting).parts.len() < SOON_MAX
    }

    /// The same without waiting: `done` is called once, most often by the worker that finishes the last part.
    pub(super) fn submit<T, F, D>(&self, connection: Connection, parts: usize, repeat: bool, run: F, done: D)
    where
        T: Send + 'static,
        F: Fn(&mut Token<'_>, usize) -> Result<T, Fault> + Send + Sync + 'static,
        D: FnOnce(Outcome<T>) + Send + 'static,
    {
        if parts == 0 {
            return done(Ok(Vec::new()));
        }
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            drop(waiting);
            return done(Err(Fault::lost("the keystore is closed")));
        }
        if waiting.parts.len().saturating_add(parts) > WAITING_MAX {
            drop(waiting);
            return done(Err(Fault::Call { function: "queue".into(), reason: "too much is waiting".into(), kind: Failure::Contended }));
        }
        let longest = self.stall.saturating_add(SLOWEST.saturating_mul(u32::try_from(parts).unwrap_or(u32::MAX)));
        let progress = Progress { results: (0..parts).map(|_| None).collect(), left: parts, taken: None, done: Some(done) };
        let batch = Arc::new(Batch { run, repeat, connection, asked: Instant::now(), longest, progress: Mutex::new(progress) });
        let work: Arc<dyn Work> = batch;
        self.watch_over(&work);
        waiting.parts.extend((0..parts).map(|index| (Arc::clone(&work), index)));
        let idle = waiting.idle;
        drop(waiting);
        // A worker that is busy looks by itself before it sleeps.
        (0..parts.min(idle)).for_each(|_| self.filled.notify_one());
    }

    /// Lets the workers finish what waits, and end.
    pub(super) fn close(&self) {
        lock(&self.waiting).closed = true;
        self.filled.notify_all();
        lock(&self.under_way).closed = true;
        self.begun.notify_all();
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

    fn watch_over(&self, work: &Arc<dyn Work>) {
        let mut under_way = lock(&self.under_way);
        under_way.work.push(Arc::downgrade(work));
        if std::mem::take(&mut under_way.asleep) {
            self.begun.notify_one();
        }
    }

    /// Gives up what hangs, until the queue is closed and nothing is under way. One thread's work: a token that does not answer
    /// takes the workers with it.
    pub(super) fn watch(&self) {
        let (mut finished, mut since) = (self.finished.load(Ordering::Relaxed), Instant::now());
        let mut under_way = lock(&self.under_way);
        loop {
            under_way.work.retain(|work| work.strong_count() > 0);
            if under_way.work.is_empty() {
                if under_way.closed {
                    return;
                }
                under_way.asleep = true;
                under_way = self.begun.wait(under_way).unwrap_or_else(PoisonError::into_inner);
                under_way.asleep = false;
                (finished, since) = (self.finished.load(Ordering::Relaxed), Instant::now());
                continue;
            }
            let tick = if under_way.closed { CLOSING_TICK } else { self.stall.checked_div(LOOKS).unwrap_or(CLOSING_TICK) };
            under_way = self.begun.wait_timeout(under_way, tick).unwrap_or_else(PoisonError::into_inner).0;
            let now_finished = self.finished.load(Ordering::Relaxed);
            if now_finished != finished {
                (finished, since) = (now_finished, Instant::now());
            }
            let stalled: Vec<Arc<dyn Work>> =
                under_way.work.iter().filter_map(Weak::upgrade).filter(|work| work.is_stalled(self.stall, since.elapsed())).collect();
            if !stalled.is_empty() {
                drop(under_way);
                stalled.iter().for_each(|work| work.give_up());
                drop(stalled);
                under_way = lock(&self.under_way);
            }
        }
    }
}

struct Batch<T, F, D> {
    run: F,
    repeat: bool,
    connection: Connection,
    asked: Instant,
    longest: Duration,
    progress: Mutex<Progress<T, D>>,
}

struct Progress<T, D> {
    results: Vec<Option<T>>,
    left: usize,
    /// When a worker took the first part.
    taken: Option<Instant>,
    /// None once it was called.
    done: Option<D>,
}

impl<T, F, D> Work for Batch<T, F, D>
where
    T: Send,
    F: Fn(&mut Token<'_>, usize) -> Result<T, Fault> + Send + Sync,
    D: FnOnce(Outcome<T>) + Send,
{
    fn part(&self, index: usize, worker: &mut Worker<'_>) {
        {
            let mut progress = lock(&self.progress);
            if progress.done.is_none() {
                return;
            }
            progress.taken.get_or_insert_with(Instant::now);
        }
        let result = worker.attempt(self.connection, self.repeat, |token| (self.run)(token, index));
        let mut progress = lock(&self.progress);
        progress.left = progress.left.saturating_sub(1);
        let outcome = match result {
            Ok(value) => {
                if let Some(place) = progress.results.get_mut(index) {
                    *place = Some(value);
                }
                if progress.left > 0 {
                    return;
                }
                let results: Option<Vec<T>> = std::mem::take(&mut progress.results).into_iter().collect();
                results.ok_or_else(|| Fault::lost("a part of the work was lost"))
            }
            Err(fault) => Err(fault),
        };
        let done = progress.done.take();
        drop(progress);
        if let Some(done) = done {
            done(outcome);
        }
    }

    fn is_stalled(&self, stall: Duration, nothing_finished: Duration) -> bool {
        let progress = lock(&self.progress);
        // One call that hangs must not hold its batch for ever because others go on. However long the queue was before it: a token
        // that works it off does not hang.
        let over = progress.taken.is_some_and(|taken| taken.elapsed() > self.longest);
        progress.done.is_some() && (over || self.asked.elapsed().min(nothing_finished) >= stall)
    }

    fn give_up(&self) {
        let done = lock(&self.progress).done.take();
        if let Some(done) = done {
            done(Err(Fault::lost(format!("the token has not answered for {} s", self.asked.elapsed().as_secs()))));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{sync::mpsc::channel, thread};

    use super::*;

    fn connection() -> Connection {
        Connection { generation: 1, slot: Slot::try_from(0_u64).unwrap() }
    }

    /// As of a token whose every call hangs: nobody takes anything from the queue.
    fn queue() -> Arc<Queue> {
        Arc::new(Queue { stall: Duration::from_millis(30), ..Queue::default() })
    }

    fn watching(queue: &Arc<Queue>) -> thread::JoinHandle<()> {
        let queue = Arc::clone(queue);
        thread::spawn(move || queue.watch())
    }

    #[test]
    fn whoever_asked_a_token_that_hangs_is_told_so_once_and_the_keystore_can_be_closed() {
        let (queue, (told, heard)) = (queue(), channel());
        let watch = watching(&queue);
        for parts in [1, 3] {
            let told = told.clone();
            queue.submit(connection(), parts, true, |_, _| Ok(()), move |outcome| told.send((parts, outcome)).unwrap());
        }
        let waited = queue.run(connection(), 1, true, |_, _| Ok(())).unwrap_err();
        assert!(matches!(waited, Fault::Call { kind: Failure::Lost, .. }), "{waited:?}");
        let mut told = [heard.recv().unwrap(), heard.recv().unwrap()];
        told.sort_by_key(|(parts, _)| *parts);
        assert!(matches!(told, [(1, Err(_)), (3, Err(_))]), "{told:?}");
        queue.close();
        // What still lies in the queue was answered, but is not gone; workers would take it now.
        lock(&queue.waiting).parts.clear();
        watch.join().unwrap();
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn whoever_waits_long_for_a_token_that_works_is_not_given_up() {
        let hour = Duration::from_secs(3_600);
        let long_ago = Instant::now().checked_sub(hour).unwrap();
        let batch = |taken| {
            let progress = Progress { results: vec![None::<()>], left: 1, taken, done: Some(|_: Outcome<()>| {}) };
            let run = |_: &mut Token<'_>, _: usize| Ok(());
            Batch { run, repeat: true, connection: connection(), asked: long_ago, longest: STALL, progress: Mutex::new(progress) }
        };
        // A queue of an hour stood before it, and is worked off.
        assert!(!batch(None).is_stalled(STALL, Duration::ZERO));
        assert!(!batch(Some(Instant::now())).is_stalled(STALL, Duration::ZERO));
        // Nothing is worked off any more, or this one call hangs while others go on.
        assert!(batch(None).is_stalled(STALL, STALL));
        assert!(batch(Some(long_ago)).is_stalled(STALL, Duration::ZERO));
    }

    #[test]
    fn what_comes_too_late_is_refused_and_nothing_takes_no_session() {
        let (queue, (told, heard)) = (queue(), channel());
        assert_eq!(queue.run(connection(), 0, true, |_, _| Ok(())).unwrap(), []);
        queue.close();
        queue.submit(connection(), 1, true, |_, _| Ok(()), move |outcome| told.send(outcome).unwrap());
        assert!(heard.recv().unwrap().is_err());
        watching(&queue).join().unwrap();
    }
}
