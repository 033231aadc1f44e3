//! Asks a running signer over its socket. Blocking and small: for the operators' CLI, the tests and the bench.

use std::{
    io::{self, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use postern_protocol::{
    PROTOCOL_VERSION,
    canonical::{self, CanonicalError},
    frame::{self, FrameTooLarge},
    reply::{Reply, ReplyBody},
    request::{Request, RequestBody},
};

/// Why there is no answer. A refusal is an answer: [`ReplyBody::Refused`].
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or this user may not open the socket.
    #[error("cannot reach the signer at {}: {source}; does postern-signer run, and may this user open its socket?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke. Whether the request took effect is unknown; repeating a sign request is free.
    #[error("the connection to the signer broke: {0}; ask again, a repeated request is charged once")]
    Broken(#[from] io::Error),
    /// The request is over the frame cap.
    #[error(transparent)]
    TooLarge(#[from] FrameTooLarge),
    /// The signer speaks another protocol.
    #[error("the signer's reply is not of this protocol: {0}; update the older side")]
    Reply(#[from] CanonicalError),
    /// The signer speaks another version.
    #[error("the signer speaks protocol version {0}, this program {PROTOCOL_VERSION}; update the older side")]
    Version(u16),
}

/// A connection to the signer.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path).map_err(|source| ClientError::Connect { path: path.into(), source })?;
        Ok(Self { stream: BufReader::with_capacity(64 * 1024, stream), next_id: 1 })
    }

    /// How long [`Self::receive`] and [`Self::send`] wait before they give up. None: for ever, the default.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the time is zero.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ClientError> {
        self.stream.get_ref().set_read_timeout(timeout)?;
        self.stream.get_ref().set_write_timeout(timeout)?;
        Ok(())
    }

    /// Sends a request and waits for its reply. Not to be mixed with requests whose reply is still to come: those
    /// replies are dropped.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask(&mut self, body: RequestBody) -> Result<ReplyBody, ClientError> {
        let id = self.send(body)?;
        loop {
            let reply = self.receive()?;
            // Id 0 answers what the signer could not read; it ends the wait as well.
            if reply.id == id || reply.id == 0 {
                return Ok(reply.body);
            }
        }
    }

    /// Sends a request without waiting; returns the id that its reply will carry.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn send(&mut self, body: RequestBody) -> Result<u64, ClientError> {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        let request = Request { version: PROTOCOL_VERSION, id, body };
        let framed = frame::wrap(&canonical::to_vec(&request))?;
        self.stream.get_mut().write_all(&framed)?;
        Ok(id)
    }

    /// Waits for the next reply, of whichever request.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        let mut prefix = [0; frame::PREFIX];
        self.stream.read_exact(&mut prefix)?;
        let mut body = vec![0; frame::body_length(prefix, frame::FRAME_MAX)?];
        self.stream.read_exact(&mut body)?;
        let reply: Reply = canonical::from_slice(&body)?;
        if reply.version == PROTOCOL_VERSION { Ok(reply) } else { Err(ClientError::Version(reply.version)) }
    }
}
