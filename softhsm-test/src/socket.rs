//! The signer's socket from a gate's side: one request at a time, or many in flight by hand.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use postern_protocol::{
    PROTOCOL_VERSION, canonical, frame,
    refusal::Refusal,
    reply::{Reply, ReplyBody, Signed, Status},
    request::{Request, RequestBody, SignRequest},
};

const ANSWER: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub struct SignerSocket {
    stream: UnixStream,
    next_id: u64,
}

impl SignerSocket {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).with_context(|| format!("no signer on {}", path.display()))?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        Ok(Self { stream, next_id: 1 })
    }

    /// Sends a request and does not wait; gives its id.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, body: RequestBody) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        self.send_bytes(&canonical::to_vec(&Request { version: PROTOCOL_VERSION, id, body }))?;
        Ok(id)
    }

    /// Sends any bytes as a frame.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send_bytes(&mut self, body: &[u8]) -> Result<()> {
        self.send_raw(&frame::wrap(body)?)
    }

    /// Sends any bytes, without a frame.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("the signer ended the connection")
    }

    /// The next reply, whichever request it belongs to.
    ///
    /// # Errors
    /// When the connection ends, or sends what is no reply.
    pub fn receive(&mut self) -> Result<Reply> {
        let mut prefix = [0; frame::PREFIX];
        self.stream.read_exact(&mut prefix).context("the signer ended the connection")?;
        let mut body = vec![0; frame::body_length(prefix, frame::FRAME_MAX)?];
        self.stream.read_exact(&mut body).context("the signer ended the connection inside a reply")?;
        Ok(canonical::from_slice(&body)?)
    }

    /// Asks and waits.
    ///
    /// # Errors
    /// As [`Self::receive`]. A refusal is an answer, not an error.
    pub fn ask(&mut self, body: RequestBody) -> Result<ReplyBody> {
        let id = self.send(body)?;
        let reply = self.receive()?;
        ensure!(reply.id == id, "asked {id}, answered {}", reply.id);
        Ok(reply.body)
    }

    /// Asks for signatures.
    ///
    /// # Errors
    /// When the answer is neither signatures nor a refusal.
    pub fn sign(&mut self, wallet: &str, psbt: &[u8]) -> Result<Result<Signed, Refusal>> {
        match self.ask(RequestBody::Sign(SignRequest { wallet: wallet.into(), psbt: psbt.into() }))? {
            ReplyBody::Signed(signed) => Ok(Ok(signed)),
            ReplyBody::Refused(refusal) => Ok(Err(refusal)),
            other => bail!("neither signatures nor a refusal: {other:?}"),
        }
    }

    /// Applies a manager's command; gives what it did.
    ///
    /// # Errors
    /// When the answer is neither an effect nor a refusal.
    pub fn command(&mut self, command: &[u8]) -> Result<Result<String, Refusal>> {
        match self.ask(RequestBody::Command(command.into()))? {
            ReplyBody::Applied(applied) => Ok(Ok(applied.effect)),
            ReplyBody::Refused(refusal) => Ok(Err(refusal)),
            other => bail!("neither applied nor refused: {other:?}"),
        }
    }

    /// What an operator sees.
    ///
    /// # Errors
    /// When it is refused.
    pub fn status(&mut self) -> Result<Status> {
        match self.ask(RequestBody::Status)? {
            ReplyBody::Status(status) => Ok(*status),
            other => bail!("no status: {other:?}"),
        }
    }
}
