//! JSON-RPC over HTTP/1.1, blocking, one connection a call. The address is loopback by construction.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(120);

/// A caller.
#[derive(Debug, Clone)]
pub struct Rpc {
    port: u16,
    cookie: PathBuf,
}

/// Why a call gave nothing.
#[derive(Debug)]
pub enum RpcError {
    /// The node did not answer, or not in JSON-RPC.
    Transport(String),
    /// The node said no.
    Refused {
        /// The call.
        method: String,
        /// Bitcoin Core's code (`src/rpc/protocol.h`).
        code: i64,
        /// Its reason.
        message: String,
    },
}

impl std::fmt::Display for RpcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RpcError::Transport(why) => write!(f, "bitcoind does not answer: {why}"),
            RpcError::Refused { method, code, message } => write!(f, "bitcoind refused {method}: {message} ({code})"),
        }
    }
}

impl std::error::Error for RpcError {}

#[derive(Deserialize)]
struct Answer {
    result: Value,
    error: Option<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    code: i64,
    message: String,
}

impl Rpc {
    pub(super) fn new(port: u16, cookie: PathBuf) -> Self {
        Self { port, cookie }
    }

    pub(super) fn cookie(&self) -> &Path {
        &self.cookie
    }

    /// Calls a method.
    ///
    /// # Errors
    /// [`RpcError`]; also when the result is not a `T`.
    pub fn call<T: DeserializeOwned>(&self, method: &str, params: &[Value]) -> Result<T, RpcError> {
        let transport = |e: &dyn std::fmt::Display| RpcError::Transport(format!("{method}: {e}"));
        let body = json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params }).to_string();
        let response = self.post(&body).map_err(|e| transport(&e))?;
        let (head, content) = response.split_once("\r\n\r\n").ok_or_else(|| transport(&"no HTTP answer"))?;
        let answer: Answer =
            serde_json::from_str(content).map_err(|e| transport(&format!("{e} in `{}`", head.lines().next().unwrap_or_default())))?;
        if let Some(Refused { code, message }) = answer.error {
            return Err(RpcError::Refused { method: method.into(), code, message });
        }
        serde_json::from_value(answer.result).map_err(|e| transport(&e))
    }

    fn post(&self, body: &str) -> std::io::Result<String> {
        let login = STANDARD.encode(fs::read(&self.cookie)?);
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), CONNECT)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let length = body.len();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {login}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        read_answer(stream)
    }
}

/// Head and body. Reads as much as the head announces: bitcoind takes its time to close a connection.
fn read_answer(stream: TcpStream) -> std::io::Result<String> {
    let mut reader = BufReader::new(stream);
    let (mut response, mut length) = (String::new(), 0);
    loop {
        let start = response.len();
        if reader.read_line(&mut response)? == 0 {
            return Ok(response);
        }
        let line = response.get(start..).unwrap_or_default();
        if line == "\r\n" {
            break;
        }
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    reader.take(length).read_to_string(&mut response)?;
    Ok(response)
}
