//! Reads frames from a peer that may lie about their length, stop half-way, or send a byte a minute. The cap is checked
//! before anything is allocated, and memory grows only with what has really arrived.

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use postern_protocol::frame::{self, FrameTooLarge, PREFIX};

use super::budget::Held;
use crate::intake;

/// One read takes at most this much; most frames come whole with one.
const CHUNK: usize = 64 * 1024;
/// Enough of a frame to know its id.
const HEAD: usize = 32;

/// How long a peer may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Between requests, with none in flight.
    pub(super) idle: Duration,
    /// From a frame's first byte to its last.
    pub(super) frame: Duration,
}

impl Patience {
    /// How often a waiting reader looks at the clock.
    fn tick(&self) -> Duration {
        self.idle.min(self.frame).checked_div(4).unwrap_or_default().clamp(Duration::from_millis(5), Duration::from_secs(1))
    }
}

/// What came.
pub(super) enum Incoming {
    /// A frame's body, and the memory it is held in.
    Frame(Vec<u8>, Held),
    /// A frame that there is no memory for now. It was read and thrown away; this is its id, or 0.
    Unaffordable(u64),
}

/// Why nothing more comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The peer is done.
    #[error("closed by the peer")]
    Closed,
    /// The peer went away in the middle of a frame.
    #[error("closed by the peer in the middle of a frame")]
    Half,
    /// No request for too long.
    #[error("idle for too long")]
    Idle,
    /// A frame took too long.
    #[error("a frame took too long to arrive")]
    Slow,
    /// The length prefix is over the cap.
    #[error(transparent)]
    TooLarge(#[from] FrameTooLarge),
    /// The system says no.
    #[error("{0}")]
    Broken(#[from] io::Error),
}

/// The reading half of a connection.
pub(super) struct Frames<'s> {
    stream: &'s UnixStream,
    patience: Patience,
    max: usize,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'s> Frames<'s> {
    pub(super) fn new(stream: &'s UnixStream, max: usize, patience: Patience) -> io::Result<Self> {
        stream.set_read_timeout(Some(patience.tick()))?;
        Ok(Self { stream, patience, max, buffer: vec![0; CHUNK], start: 0, end: 0 })
    }

    /// Waits for the next frame. `busy` says whether an answer is still owed: then the peer is not idle.
    pub(super) fn next(&mut self, mut held: Held, busy: impl Fn() -> bool) -> Result<Incoming, End> {
        self.wait_for_a_byte(busy)?;
        let deadline = Deadline { started: Instant::now(), allowed: self.patience.frame };
        let mut prefix = [0; PREFIX];
        self.read_exact(&mut prefix, deadline)?;
        let length = frame::body_length(prefix, self.max)?;

        let mut body = Vec::new();
        while body.len() < length {
            // Double what has arrived, so that a frame costs a peer as much as it costs us.
            let target = body.len().saturating_mul(2).max(CHUNK).min(length);
            if !held.grow(target) {
                return self.discard(body, length, deadline);
            }
            body.reserve_exact(target.saturating_sub(body.len()));
            self.read_until(&mut body, target, deadline)?;
        }
        Ok(Incoming::Frame(body, held))
    }

    /// Reads the rest of a frame without keeping it.
    fn discard(&mut self, mut body: Vec<u8>, length: usize, deadline: Deadline) -> Result<Incoming, End> {
        let mut left = length.saturating_sub(body.len());
        let head = HEAD.min(length);
        if body.len() < head {
            left = length.saturating_sub(head);
            self.read_until(&mut body, head, deadline)?;
        }
        let id = intake::header(&body).map_or(0, |(_, id)| id);
        drop(body);
        while left > 0 {
            if self.start == self.end {
                self.fill(deadline)?;
            }
            let take = left.min(self.end.saturating_sub(self.start));
            self.start = self.start.saturating_add(take);
            left = left.saturating_sub(take);
        }
        Ok(Incoming::Unaffordable(id))
    }

    fn wait_for_a_byte(&mut self, busy: impl Fn() -> bool) -> Result<(), End> {
        let mut since = Instant::now();
        while self.start == self.end {
            match self.read_chunk() {
                Ok(0) => return Err(End::Closed),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && busy() => since = Instant::now(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && since.elapsed() < self.patience.idle => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(End::Idle),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Appends to `body` until it has `target` bytes.
    fn read_until(&mut self, body: &mut Vec<u8>, target: usize, deadline: Deadline) -> Result<(), End> {
        while body.len() < target {
            let wanted = target.saturating_sub(body.len());
            let buffered = self.buffer.get(self.start..self.end).unwrap_or_default();
            if buffered.is_empty() && wanted >= CHUNK {
                // Large frames go straight to where they belong.
                deadline.check()?;
                let before = body.len();
                match self.stream.take(u64::try_from(wanted).unwrap_or(u64::MAX)).read_to_end(body) {
                    Ok(_) if body.len() == before => return Err(End::Half),
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e.into()),
                }
                continue;
            }
            if buffered.is_empty() {
                self.fill(deadline)?;
                continue;
            }
            let part = buffered.get(..wanted).unwrap_or(buffered);
            body.extend_from_slice(part);
            self.start = self.start.saturating_add(part.len());
        }
        Ok(())
    }

    fn read_exact(&mut self, into: &mut [u8], deadline: Deadline) -> Result<(), End> {
        for byte in into {
            if self.start == self.end {
                self.fill(deadline)?;
            }
            *byte = self.buffer.get(self.start).copied().unwrap_or_default();
            self.start = self.start.saturating_add(1);
        }
        Ok(())
    }

    /// Fills the empty buffer with at least a byte of a frame that has begun.
    fn fill(&mut self, deadline: Deadline) -> Result<(), End> {
        loop {
            match self.read_chunk() {
                Ok(0) => return Err(End::Half),
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => deadline.check()?,
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn read_chunk(&mut self) -> io::Result<usize> {
        loop {
            match self.stream.read(&mut self.buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(n) => {
                    (self.start, self.end) = (0, n);
                    return Ok(n);
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Deadline {
    started: Instant,
    allowed: Duration,
}

impl Deadline {
    fn check(self) -> Result<(), End> {
        if self.started.elapsed() > self.allowed { Err(End::Slow) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{daemon::budget::Budget, intake::Role};
    use postern_protocol::{PROTOCOL_VERSION, canonical, request};
    use std::{io::Write, net::Shutdown, sync::Arc, thread};

    const PATIENCE: Patience = Patience { idle: Duration::from_millis(50), frame: Duration::from_millis(200) };

    fn hold() -> Held {
        Budget::new(64 << 20, 64 << 20).hold(Role::Gate)
    }

    fn next(frames: &mut Frames<'_>) -> Vec<u8> {
        match frames.next(hold(), || false) {
            Ok(Incoming::Frame(body, held)) => {
                assert!(held.bytes() >= body.len());
                body
            }
            Ok(Incoming::Unaffordable(id)) => panic!("unaffordable {id}"),
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn frames_of_every_size_arrive_as_they_were_sent_however_they_are_cut() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let sizes = [0, 1, 3, HEAD, CHUNK - 5, CHUNK - 4, CHUNK, CHUNK + 1, 300_000, 2_000_001];
        let bodies: Vec<Vec<u8>> = sizes.iter().map(|n| (0..*n).map(|i| (i % 251) as u8).collect()).collect();
        let sent: Vec<u8> = bodies.iter().flat_map(|b| frame::wrap(b).unwrap()).collect();
        let writer = thread::spawn(move || sent.chunks(1013).for_each(|part| theirs.write_all(part).unwrap()));
        let mut frames = Frames::new(&ours, 4 << 20, Patience { idle: Duration::from_secs(30), frame: Duration::from_secs(30) }).unwrap();
        for body in &bodies {
            assert!(next(&mut frames) == *body, "frame of {} bytes", body.len());
        }
        writer.join().unwrap();
        assert!(matches!(frames.next(hold(), || false), Err(End::Closed)));
    }

    #[test]
    fn a_huge_length_prefix_is_refused_before_anything_is_allocated() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[0xff; 4]).unwrap();
        let mut frames = Frames::new(&ours, 1000, PATIENCE).unwrap();
        assert!(matches!(frames.next(hold(), || false), Err(End::TooLarge(FrameTooLarge { announced: 0xffff_ffff, max: 1000 }))));
    }

    #[test]
    fn a_frame_that_is_announced_and_not_sent_holds_little_memory_and_ends_in_time() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&(16u32 << 20).to_be_bytes()).unwrap();
        let budget = Budget::new(CHUNK, CHUNK);
        let mut frames = Frames::new(&ours, 16 << 20, PATIENCE).unwrap();
        assert!(matches!(frames.next(budget.hold(Role::Gate), || false), Err(End::Slow)));
        assert!(budget.hold(Role::Gate).grow(CHUNK), "what was held comes back");
    }

    #[test]
    fn a_peer_that_goes_away_in_a_frame_is_told_from_one_that_is_done() {
        for part in [&[0u8, 0][..], &[0, 0, 0, 9, 1, 2][..]] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(part).unwrap();
            theirs.shutdown(Shutdown::Write).unwrap();
            let mut frames = Frames::new(&ours, 1000, PATIENCE).unwrap();
            assert!(matches!(frames.next(hold(), || false), Err(End::Half)));
        }
    }

    #[test]
    fn an_idle_peer_is_let_go_only_when_no_answer_is_owed() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut frames = Frames::new(&ours, 1000, PATIENCE).unwrap();
        let asked = std::cell::Cell::new(0);
        let owed = || {
            asked.set(asked.get() + 1);
            asked.get() < 20
        };
        assert!(matches!(frames.next(hold(), owed), Err(End::Idle)));
        assert!(asked.get() >= 20);
    }

    #[test]
    fn a_frame_beyond_the_memory_is_skipped_and_the_next_one_is_read() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let request = |id, psbt| {
            let body = request::RequestBody::Sign(request::SignRequest { wallet: "hot".into(), psbt });
            canonical::to_vec(&request::Request { version: PROTOCOL_VERSION, id, body })
        };
        let (large, small) = (request(7, vec![5; 400_000]), request(8, vec![]));
        let sent = [frame::wrap(&large).unwrap(), frame::wrap(&small).unwrap()].concat();
        let writer = thread::spawn(move || theirs.write_all(&sent).map(|()| theirs).unwrap());
        let budget = Budget::new(100_000, 100_000);
        let mut frames = Frames::new(&ours, 1 << 20, Patience { idle: Duration::from_secs(30), frame: Duration::from_secs(30) }).unwrap();
        assert!(matches!(frames.next(Arc::clone(&budget).hold(Role::Gate), || false), Ok(Incoming::Unaffordable(7))));
        let Ok(Incoming::Frame(body, _)) = frames.next(budget.hold(Role::Gate), || false) else { panic!("the next frame is lost") };
        assert_eq!(body, small);
        writer.join().unwrap();
    }
}
