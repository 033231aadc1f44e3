//! The signer's socket: many requests in flight, each answered in the end. A lost connection is made again and what is
//! unanswered is asked again; the signer makes repeats free.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use postern_protocol::{
    PROTOCOL_VERSION, canonical,
    frame::{self, FRAME_MAX, PREFIX},
    refusal::{Refusal, RefusalCode},
    reply::{Reply, ReplyBody},
    request::{Request, RequestBody},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::way::endless_backoff;

/// Longest connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest pause between attempts to connect: the signer is on the same machine.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Longest time without any reply while something is asked; then the connection is given up and made again.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// A request during which the connection was lost so often is answered with a refusal: it may be what breaks it.
const LOSSES_MAX: u32 = 10;

/// A handle on the signer. Clones share one connection; it ends with the last of them.
#[derive(Clone)]
pub struct SignerSocket(Arc<Shared>);

struct Shared {
    table: Arc<Table>,
    orders: mpsc::UnboundedSender<u64>,
    worker: JoinHandle<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

#[derive(Default)]
struct Table(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    last_id: u64,
    asked: HashMap<u64, Asked>,
}

struct Asked {
    frame: Arc<[u8]>,
    losses: u32,
    answer: oneshot::Sender<ReplyBody>,
}

impl Table {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what nobody waits for any more, and answers what seems to break the connection.
    fn after_loss(&self) {
        let mut table = self.lock();
        let mut broken = Vec::new();
        table.asked.retain(|id, asked| {
            asked.losses = asked.losses.saturating_add(1);
            if asked.losses >= LOSSES_MAX {
                broken.push(*id);
            }
            !asked.answer.is_closed()
        });
        for id in broken {
            if let Some(asked) = table.asked.remove(&id) {
                tracing::warn!("the signer's connection was lost {LOSSES_MAX} times during one request; it is answered as busy");
                let refusal = Refusal::new(RefusalCode::Busy, "the signer closed the connection each time this was asked");
                let _ = asked.answer.send(ReplyBody::Refused(refusal));
            }
        }
    }
}

/// A request that cannot be put into a frame.
#[derive(Debug, thiserror::Error)]
#[error("the request is larger than a frame to the signer may be: {0}")]
pub struct RequestTooLarge(#[from] frame::FrameTooLarge);

impl SignerSocket {
    /// Connects as soon as something is asked, and again for ever.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let table = Arc::new(Table::default());
        let (orders, inbox) = mpsc::unbounded_channel();
        let worker = tokio::spawn(work(path, table.clone(), inbox));
        Self(Arc::new(Shared { table, orders, worker }))
    }

    /// Asks and waits for the answer, over as many connections as it takes. Dropping the future forgets the request.
    ///
    /// # Errors
    /// [`RequestTooLarge`].
    pub async fn ask(&self, body: RequestBody) -> Result<ReplyBody, RequestTooLarge> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut table = self.0.table.lock();
            let id = table.last_id.wrapping_add(1);
            table.last_id = id;
            let frame = frame::wrap(&canonical::to_vec(&Request { version: PROTOCOL_VERSION, id, body }))?.into();
            table.asked.insert(id, Asked { frame, losses: 0, answer });
            id
        };
        // The worker lives as long as this handle, so neither of these two can fail.
        let _ = self.0.orders.send(id);
        Ok(answered.await.unwrap_or_else(|_| ReplyBody::Refused(Refusal::new(RefusalCode::ShuttingDown, "the link is stopping"))))
    }
}

async fn work(path: PathBuf, table: Arc<Table>, mut inbox: mpsc::UnboundedReceiver<u64>) {
    let mut pauses = endless_backoff();
    let mut reported = false;
    loop {
        // Connecting only for something: a link without work leaves the signer alone.
        if table.lock().asked.is_empty() {
            let Some(_) = inbox.recv().await else { return };
        }
        let connected = match timeout(CONNECT_MAX, UnixStream::connect(&path)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let ended = match connected {
            Ok(stream) => {
                tracing::debug!("connected to the signer");
                let mut spoke = false;
                let ended = speak(stream, &table, &mut inbox, &mut spoke).await;
                if spoke {
                    pauses = endless_backoff();
                    reported = false;
                }
                table.after_loss();
                ended
            }
            Err(e) => e,
        };
        if !reported {
            tracing::warn!(socket = %path.display(), "no connection to the signer: {ended}; trying again for ever");
            reported = true;
        }
        sleep(pauses.next().unwrap_or(PAUSE_MAX).min(PAUSE_MAX)).await;
    }
}

async fn speak(stream: UnixStream, table: &Table, inbox: &mut mpsc::UnboundedReceiver<u64>, spoke: &mut bool) -> io::Error {
    let (reader, writer) = stream.into_split();
    let heard = watch::Sender::new(None);
    let ended = tokio::select! {
        ended = write_all(writer, table, inbox) => ended,
        ended = read_all(reader, table, &heard) => ended,
        ended = silence(table, heard.subscribe()) => ended,
    };
    *spoke = heard.borrow().is_some();
    match ended {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

type Never = std::convert::Infallible;

async fn write_all(mut writer: OwnedWriteHalf, table: &Table, inbox: &mut mpsc::UnboundedReceiver<u64>) -> io::Result<Never> {
    // First what earlier connections left unanswered, oldest first. Orders for those may still be in the inbox.
    let mut left: Vec<u64> = table.lock().asked.keys().copied().collect();
    left.sort_unstable();
    let newest = left.last().copied().unwrap_or(0);
    for id in left {
        write_one(&mut writer, table, id).await?;
    }
    loop {
        let id = inbox.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
        if id > newest {
            write_one(&mut writer, table, id).await?;
        }
    }
}

async fn write_one(writer: &mut OwnedWriteHalf, table: &Table, id: u64) -> io::Result<()> {
    let frame = {
        let mut table = table.lock();
        match table.asked.get(&id) {
            Some(asked) if asked.answer.is_closed() => {
                table.asked.remove(&id);
                None
            }
            Some(asked) => Some(asked.frame.clone()),
            None => None,
        }
    };
    match frame {
        Some(frame) => writer.write_all(&frame).await,
        None => Ok(()),
    }
}

async fn read_all(mut reader: OwnedReadHalf, table: &Table, heard: &watch::Sender<Option<Instant>>) -> io::Result<Never> {
    loop {
        let mut prefix = [0; PREFIX];
        reader.read_exact(&mut prefix).await?;
        let length = frame::body_length(prefix, FRAME_MAX).map_err(io::Error::other)?;
        // Grows with what arrives, not with what is announced.
        let mut body = Vec::new();
        let limit = u64::try_from(length).map_err(io::Error::other)?;
        if (&mut reader).take(limit).read_to_end(&mut body).await? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let reply: Reply = canonical::from_slice(&body).map_err(io::Error::other)?;
        heard.send_replace(Some(Instant::now()));
        match table.lock().asked.remove(&reply.id) {
            Some(asked) => drop(asked.answer.send(reply.body)),
            None => tracing::warn!("the signer answered something that is not asked (any more): {}", kind(&reply.body)),
        }
    }
}

/// Ends the connection when something is asked and nothing is heard for long.
async fn silence(table: &Table, heard: watch::Receiver<Option<Instant>>) -> io::Result<Never> {
    let mut since = Instant::now();
    loop {
        sleep(SILENCE_MAX / 10).await;
        let quiet = table.lock().asked.is_empty();
        since = if quiet { Instant::now() } else { heard.borrow().map_or(since, |at| since.max(at)) };
        if since.elapsed() > SILENCE_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the signer does not answer"));
        }
    }
}

/// What kind of reply, for the log; the content stays out of it.
pub(crate) fn kind(body: &ReplyBody) -> String {
    match body {
        ReplyBody::Signed(signed) => format!("{} signatures", signed.signatures.len()),
        ReplyBody::Refused(refusal) => refusal.code.to_string(),
        ReplyBody::Addresses(list) => format!("{} addresses", list.len()),
        ReplyBody::Wallets(list) => format!("{} wallets", list.len()),
        ReplyBody::Status(_) => "status".into(),
        ReplyBody::Heartbeat(_) => "heartbeat".into(),
        ReplyBody::Attested(_) => "what was booted".into(),
        ReplyBody::Applied(applied) => format!("command {} applied", applied.serial),
    }
}

#[cfg(test)]
mod tests;
