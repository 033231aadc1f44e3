//! Clients of the daemon's socket.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use postern_protocol::{
    canonical, frame,
    reply::{Reply, ReplyBody},
};

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

/// All clients at once, each with one request under way; until the round is over.
pub(crate) fn round(socket: &Path, work: Vec<Vec<Vec<u8>>>, time: Duration, pid: u32) -> Result<Load> {
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = work
            .iter()
            .map(|frames| {
                let (over, done) = (&over, &done);
                scope.spawn(move || -> Result<()> {
                    let mut stream = UnixStream::connect(socket)?;
                    for frame in frames {
                        if over.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                        exchange(&mut stream, frame)?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    bail!("the requests ran out before the round was over")
                })
            })
            .collect();
        // Both ends of the measure lie within the round: the connections are open, so their threads are counted.
        thread::sleep(time / 10);
        let (before, first, started) = (Rooms::read(pid)?, done.load(Ordering::Relaxed), Instant::now());
        thread::sleep(time);
        let (rooms, last, seconds) = (Rooms::read(pid)?, done.load(Ordering::Relaxed), started.elapsed().as_secs_f64());
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        ensure!(last > first, "nothing was signed in a whole round");
        Ok(Load { seconds, rooms: rooms.since(&before, last - first) })
    })
}

/// Milliseconds of each request of a single client.
pub(crate) fn one_by_one(socket: &Path, frames: Vec<Vec<u8>>) -> Result<Vec<f64>> {
    let mut stream = UnixStream::connect(socket)?;
    frames
        .iter()
        .map(|frame| {
            let started = Instant::now();
            exchange(&mut stream, frame)?;
            Ok(started.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}

fn exchange(stream: &mut UnixStream, frame: &[u8]) -> Result<()> {
    stream.write_all(frame)?;
    let mut buffer = [0; 1024];
    let mut have = 0;
    loop {
        have += stream.read(&mut buffer[have..])?;
        let length = match buffer[..have].first_chunk() {
            Some(prefix) => frame::body_length(*prefix, buffer.len() - frame::PREFIX)?,
            None => continue,
        };
        if have == frame::PREFIX + length {
            let reply: Reply = canonical::from_slice(&buffer[frame::PREFIX..have])?;
            ensure!(matches!(&reply.body, ReplyBody::Signed(signed) if signed.signatures.len() == 1), "{:?}", reply.body);
            return Ok(());
        }
    }
}
