//! Clients of the daemon's socket.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use postern_protocol::{
    canonical, frame,
    reply::{Reply, ReplyBody},
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::processor::Rooms;

/// What a round brought.
pub(crate) struct Load {
    seconds: f64,
    /// Processor time of the daemon.
    pub(crate) rooms: Rooms,
}

impl Load {
    pub(crate) fn rate(&self) -> f64 {
        self.rooms.signatures as f64 / self.seconds
    }
}

/// All clients at once, each with one request under way; until the round is over. One thread plays them all: on a machine with few
/// processors, threads of their own would take from the signer what is to be measured.
pub(crate) fn round(socket: &Path, work: Vec<Vec<Vec<u8>>>, time: Duration, pid: u32) -> Result<Load> {
    let mut clients: Vec<Client> = work.into_iter().map(|frames| Client::connect(socket, frames)).collect::<Result<_>>()?;
    clients.iter_mut().try_for_each(Client::ask)?;
    // Both ends of the measure lie within the round: the connections are open, so their threads are counted.
    serve(&mut clients, time / 10)?;
    let (before, started) = (Rooms::read(pid)?, Instant::now());
    let signatures = serve(&mut clients, time)?;
    let (rooms, seconds) = (Rooms::read(pid)?, started.elapsed().as_secs_f64());
    ensure!(signatures > 0, "nothing was signed in a whole round");
    clients.iter_mut().try_for_each(|client| client.wait().map(drop))?;
    Ok(Load { seconds, rooms: rooms.since(&before, signatures) })
}

/// Takes answers and asks again, for this long. How many there were.
fn serve(clients: &mut [Client], time: Duration) -> Result<usize> {
    let (started, mut answers) = (Instant::now(), 0);
    while let Some(left) = time.checked_sub(started.elapsed()) {
        let mut ready: Vec<PollFd<'_>> = clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::IN)).collect();
        poll(&mut ready, Some(&left.try_into()?))?;
        let ready: Vec<bool> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (client, _) in clients.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            if client.take()? {
                answers += 1;
                client.ask()?;
            }
        }
    }
    Ok(answers)
}

/// A connection, what it still asks for, and what came of an answer.
struct Client {
    stream: UnixStream,
    frames: std::vec::IntoIter<Vec<u8>>,
    buffer: [u8; 1024],
    have: usize,
}

impl Client {
    fn connect(socket: &Path, frames: Vec<Vec<u8>>) -> Result<Self> {
        Ok(Self { stream: UnixStream::connect(socket)?, frames: frames.into_iter(), buffer: [0; 1024], have: 0 })
    }

    fn ask(&mut self) -> Result<()> {
        let frame = self.frames.next().context("the requests ran out before the round was over")?;
        Ok(self.stream.write_all(&frame)?)
    }

    /// Reads once. Whether the answer is whole.
    fn take(&mut self) -> Result<bool> {
        let room = self.buffer.get_mut(self.have..).context("an answer that is too long")?;
        let read = self.stream.read(room)?;
        ensure!(read > 0, "the signer hung up");
        self.have += read;
        let Some(prefix) = self.buffer[..self.have].first_chunk() else { return Ok(false) };
        let end = frame::PREFIX + frame::body_length(*prefix, self.buffer.len() - frame::PREFIX)?;
        if self.have < end {
            return Ok(false);
        }
        let reply: Reply = canonical::from_slice(&self.buffer[frame::PREFIX..end])?;
        ensure!(matches!(&reply.body, ReplyBody::Signed(signed) if signed.signatures.len() == 1), "{:?}", reply.body);
        self.have = 0;
        Ok(true)
    }

    /// Waits for an answer.
    fn wait(&mut self) -> Result<()> {
        while !self.take()? {}
        Ok(())
    }
}

/// Milliseconds of each request of a single client.
pub(crate) fn one_by_one(socket: &Path, frames: Vec<Vec<u8>>) -> Result<Vec<f64>> {
    let count = frames.len();
    let mut client = Client::connect(socket, frames)?;
    (0..count)
        .map(|_| {
            let started = Instant::now();
            client.ask()?;
            client.wait()?;
            Ok(started.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}
