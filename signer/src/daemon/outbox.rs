//! Writes replies. Whoever has one writes it at once when the peer keeps up, so a reply costs no handoff; what does not
//! fit the socket is left to a thread that waits for the peer, and for no longer than allowed.

use std::{
    collections::VecDeque,
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::net::{SendFlags, send};

/// The writing half of a connection.
pub(super) struct Outbox {
    stream: UnixStream,
    patience: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    /// Bytes in `waiting`.
    bytes: usize,
    /// The thread is writing a frame that is no longer in `waiting`.
    writing: bool,
    /// No more frames come; the thread ends when all are written.
    finished: bool,
    /// The peer is gone or too slow; frames are dropped.
    broken: bool,
}

impl Outbox {
    /// A peer may take this long for one frame.
    pub(super) fn new(stream: UnixStream, patience: Duration) -> io::Result<Self> {
        stream.set_write_timeout(Some(patience.checked_div(4).unwrap_or_default().max(Duration::from_millis(5))))?;
        Ok(Self { stream, patience, state: Mutex::default(), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame, prefix included, or queues it. Never waits for the peer.
    pub(super) fn send(&self, mut frame: Vec<u8>) {
        let mut state = self.lock();
        if state.broken {
            return;
        }
        if state.waiting.is_empty() && !state.writing {
            match send(&self.stream, &frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) if sent >= frame.len() => return,
                Ok(sent) => drop(frame.drain(..sent)),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return self.give_up(state),
            }
        }
        state.bytes = state.bytes.saturating_add(frame.len());
        state.waiting.push_back(frame);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the peer has taken so much that at most `backlog` bytes wait.
    pub(super) fn wait_below(&self, backlog: usize) {
        let mut state = self.lock();
        while state.bytes > backlog && !state.broken {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes what is queued until [`Self::finish`]; the thread's work.
    pub(super) fn run(&self) {
        let mut state = self.lock();
        loop {
            if state.broken {
                return;
            }
            if let Some(frame) = state.waiting.pop_front() {
                state.writing = true;
                state.bytes = state.bytes.saturating_sub(frame.len());
                drop(state);
                self.changed.notify_all();
                let written = self.write(&frame);
                state = self.lock();
                state.writing = false;
                if let Err(e) = written {
                    log::warn!("a peer does not take its replies ({e}); its connection is closed");
                    return self.give_up(state);
                }
            } else if state.finished {
                let _ = self.stream.shutdown(Shutdown::Write);
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn write(&self, frame: &[u8]) -> io::Result<()> {
        let started = Instant::now();
        let mut rest = frame;
        while !rest.is_empty() {
            match send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            if !rest.is_empty() && started.elapsed() > self.patience {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    fn give_up(&self, mut state: MutexGuard<'_, State>) {
        state.broken = true;
        state.waiting.clear();
        state.bytes = 0;
        drop(state);
        self.changed.notify_all();
        // Wakes the reader as well.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// No more frames come.
    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, sync::Arc, thread};

    #[test]
    fn replies_arrive_whole_and_in_order_when_the_peer_reads_late() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let outbox = Arc::new(Outbox::new(ours, Duration::from_secs(30)).unwrap());
        let frames: Vec<Vec<u8>> = (0..200u8).map(|n| vec![n; 9_000]).collect();
        // Nobody reads yet: sending must not wait.
        frames.iter().for_each(|f| outbox.send(f.clone()));
        let writer = thread::spawn({
            let outbox = Arc::clone(&outbox);
            move || outbox.run()
        });
        outbox.finish();
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).unwrap();
        writer.join().unwrap();
        assert!(read == frames.concat());
    }

    #[test]
    fn a_peer_that_never_reads_is_let_go() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let outbox = Outbox::new(ours, Duration::from_millis(50)).unwrap();
        for _ in 0..100 {
            outbox.send(vec![0; 100_000]);
        }
        outbox.run();
        outbox.send(vec![0; 100_000]);
        outbox.wait_below(0);
        assert!(outbox.lock().waiting.is_empty(), "nothing is kept for a peer that is gone");
        drop(theirs);
    }
}
