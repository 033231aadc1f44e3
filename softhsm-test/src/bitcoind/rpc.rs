//! JSON-RPC over HTTP/1.1, blocking, one connection a call. The address is loopback by construction.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::http::{Answer, Ask};

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
struct Reply {
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
        let Answer { status, body } = self.post(&body).map_err(|e| transport(&e))?;
        let answer: Reply = serde_json::from_str(&body).map_err(|e| transport(&format!("HTTP {status}, {e}")))?;
        if let Some(Refused { code, message }) = answer.error {
            return Err(RpcError::Refused { method: method.into(), code, message });
        }
        serde_json::from_value(answer.result).map_err(|e| transport(&e))
    }

    fn post(&self, body: &str) -> std::io::Result<Answer> {
        let login = format!("Basic {}", STANDARD.encode(fs::read(&self.cookie)?));
        let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), CONNECT)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        Ask { method: "POST", path: "/", headers: &[("Authorization", &login)], body }.over(stream)
    }
}
