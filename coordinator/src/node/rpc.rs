//! Bitcoin Core's JSON-RPC over HTTP. One connection a call: it is on the same machine, and a restarted node is just the next call.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bitcoin::{Block, BlockHash, Network, Transaction, Txid, consensus::encode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, body::Bytes, header};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use super::{Acceptance, Node, NodeError};
use crate::{
    config::{BitcoindTable, FeeRate},
    store::BlockRef,
};

/// Longest call.
const CALL_MAX: Duration = Duration::from_secs(60);
/// Largest answer, in bytes: a block of 4 MB in hex, or a mempool of half a million txids, with room.
const ANSWER_MAX: usize = 64 * 1024 * 1024;
/// Transactions asked for in one call.
const BATCH: usize = 100;

/// Bitcoin Core's error codes that mean something here.
mod code {
    pub(super) const VERIFY_REJECTED: i64 = -26;
    pub(super) const VERIFY_ERROR: i64 = -25;
    pub(super) const ALREADY_IN_CHAIN: i64 = -27;
    pub(super) const INVALID_PARAMETER: i64 = -8;
}

/// Host and port of a `http://` URL.
///
/// # Errors
/// What is wrong with it.
pub fn endpoint(url: &str) -> Result<String, String> {
    let wrong = || format!("[bitcoind] url: `{url}` is not of the form \"http://127.0.0.1:8332\"");
    let host = url.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
    let (name, port) = host.rsplit_once(':').ok_or_else(wrong)?;
    let well_formed = !name.is_empty() && port.parse::<u16>().is_ok() && !host.contains(['/', '@', '?', '#', ' ']);
    if well_formed { Ok(host.to_owned()) } else { Err(wrong()) }
}

#[derive(Debug)]
enum Credentials {
    Cookie(PathBuf),
    Password { user: String, file: PathBuf },
}

/// A node reached by JSON-RPC.
#[derive(Debug)]
pub struct RpcNode {
    url: String,
    host: String,
    credentials: Credentials,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    result: Value,
    error: Option<RpcFault>,
}

#[derive(Deserialize)]
struct RpcFault {
    code: i64,
    message: String,
}

impl RpcNode {
    /// As configured. Connects to nothing yet.
    ///
    /// # Errors
    /// What is wrong with the table.
    pub fn new(table: &BitcoindTable) -> Result<Self, String> {
        let credentials = match (&table.cookie, &table.user, &table.password) {
            (Some(cookie), None, None) => Credentials::Cookie(cookie.clone()),
            (None, Some(user), Some(password)) => Credentials::Password { user: user.clone(), file: password.path()? },
            _ => return Err("[bitcoind] needs either `cookie`, or `user` and `password`".into()),
        };
        Ok(Self { url: table.url.clone(), host: endpoint(&table.url)?, credentials })
    }

    fn unreachable(&self, problem: impl std::fmt::Display) -> NodeError {
        NodeError::Unreachable { url: self.url.clone(), problem: problem.to_string() }
    }

    /// Read for each call: bitcoind writes a new cookie at each start.
    async fn authorization(&self) -> Result<SecretString, NodeError> {
        let (path, user) = match &self.credentials {
            Credentials::Cookie(path) => (path, None),
            Credentials::Password { user, file } => (file, Some(user)),
        };
        let text = tokio::fs::read_to_string(path).await.map_err(|e| self.unreachable(format!("{}: {e}", path.display())))?;
        let secret = text.trim_end_matches(['\r', '\n']);
        let pair = user.map_or_else(|| secret.to_owned(), |user| format!("{user}:{secret}"));
        Ok(format!("Basic {}", STANDARD.encode(pair)).into())
    }

    async fn exchange(&self, body: Vec<u8>) -> Result<Bytes, NodeError> {
        let stream = TcpStream::connect(&self.host).await.map_err(|e| self.unreachable(e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.unreachable(e))?;
        tokio::spawn(connection);
        let authorization = self.authorization().await?;
        let request = Request::post("/")
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, authorization.expose_secret())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| self.unreachable(e))?;
        let response = sender.send_request(request).await.map_err(|e| self.unreachable(e))?;
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(NodeError::Unauthorized { url: self.url.clone() });
        }
        Ok(Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|e| self.unreachable(e))?.to_bytes())
    }

    async fn post(&self, body: &Value) -> Result<Bytes, NodeError> {
        let body = serde_json::to_vec(body).map_err(|e| self.unreachable(e))?;
        timeout(CALL_MAX, self.exchange(body)).await.map_err(|_| self.unreachable("no answer for a minute"))?
    }

    fn result<T: DeserializeOwned>(method: &'static str, answer: Answer) -> Result<T, NodeError> {
        if let Some(fault) = answer.error {
            return Err(NodeError::Rpc { method, code: fault.code, message: fault.message });
        }
        serde_json::from_value(answer.result).map_err(|e| NodeError::Answer { method, problem: e.to_string() })
    }

    async fn call<T: DeserializeOwned>(&self, method: &'static str, params: Value) -> Result<T, NodeError> {
        let body = json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params });
        let answer = self.post(&body).await?;
        let answer = serde_json::from_slice(&answer).map_err(|e| self.unreachable(format!("{method}: {e}")))?;
        Self::result(method, answer)
    }
}

fn decode<T: encode::Decodable>(method: &'static str, hex: &str) -> Result<T, NodeError> {
    encode::deserialize_hex(hex).map_err(|e| NodeError::Answer { method, problem: e.to_string() })
}

/// Bitcoin Core's words for a transaction that it has.
fn is_known(reason: &str) -> bool {
    ["txn-already-in-mempool", "txn-already-known", "already in utxo set", "already in block chain"]
        .iter()
        .any(|known| reason.contains(known))
}

#[async_trait]
impl Node for RpcNode {
    async fn network(&self) -> Result<Network, NodeError> {
        #[derive(Deserialize)]
        struct Info {
            chain: String,
        }
        let info: Info = self.call("getblockchaininfo", json!([])).await?;
        Network::from_core_arg(&info.chain).map_err(|e| NodeError::Answer { method: "getblockchaininfo", problem: e.to_string() })
    }

    async fn tip(&self) -> Result<BlockRef, NodeError> {
        #[derive(Deserialize)]
        struct Info {
            blocks: u32,
            bestblockhash: BlockHash,
        }
        let info: Info = self.call("getblockchaininfo", json!([])).await?;
        Ok(BlockRef { height: info.blocks, hash: info.bestblockhash })
    }

    async fn hash_at(&self, height: u32) -> Result<Option<BlockHash>, NodeError> {
        match self.call("getblockhash", json!([height])).await {
            Err(NodeError::Rpc { code: code::INVALID_PARAMETER, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    async fn block(&self, hash: BlockHash) -> Result<Block, NodeError> {
        let hex: String = self.call("getblock", json!([hash, 0])).await?;
        let block: Block = decode("getblock", &hex)?;
        let whole = block.block_hash() == hash && block.check_merkle_root();
        if whole { Ok(block) } else { Err(NodeError::Answer { method: "getblock", problem: format!("it is not block {hash}") }) }
    }

    async fn mempool(&self) -> Result<Vec<Txid>, NodeError> {
        self.call("getrawmempool", json!([])).await
    }

    async fn mempool_transactions(&self, txids: &[Txid]) -> Result<Vec<Transaction>, NodeError> {
        const METHOD: &str = "getrawtransaction";
        let mut found = Vec::new();
        for chunk in txids.chunks(BATCH) {
            let calls: Vec<Value> = chunk
                .iter()
                .enumerate()
                .map(|(id, txid)| json!({ "jsonrpc": "1.0", "id": id, "method": METHOD, "params": [txid, 0] }))
                .collect();
            let answer = self.post(&Value::Array(calls)).await?;
            let answers: Vec<Answer> = serde_json::from_slice(&answer).map_err(|e| self.unreachable(format!("{METHOD}: {e}")))?;
            for answer in answers {
                let asked = answer.id.as_u64().and_then(|id| usize::try_from(id).ok()).and_then(|id| chunk.get(id)).copied();
                // It may have left the mempool since.
                let Ok(hex) = Self::result::<String>(METHOD, answer) else { continue };
                let transaction: Transaction = decode(METHOD, &hex)?;
                if Some(transaction.compute_txid()) == asked {
                    found.push(transaction);
                }
            }
        }
        Ok(found)
    }

    async fn accepts(&self, transaction: &Transaction) -> Result<Acceptance, NodeError> {
        #[derive(Deserialize)]
        struct Verdict {
            allowed: Option<bool>,
            #[serde(rename = "reject-reason")]
            reason: Option<String>,
            #[serde(rename = "reject-details")]
            details: Option<String>,
        }
        // Our own fee caps and the signer's hold; the node's guess of what is absurd does not.
        let verdicts: Vec<Verdict> = self.call("testmempoolaccept", json!([[encode::serialize_hex(transaction)], 0])).await?;
        let verdict = verdicts.into_iter().next().ok_or(NodeError::Answer { method: "testmempoolaccept", problem: "no verdict".into() })?;
        let (reason, details) = (verdict.reason.unwrap_or_default(), verdict.details.unwrap_or_default());
        Ok(match verdict.allowed {
            Some(true) => Acceptance::Yes,
            _ if is_known(&reason) || is_known(&details) => Acceptance::Known,
            _ if details.is_empty() => Acceptance::No(reason),
            _ => Acceptance::No(details),
        })
    }

    async fn send(&self, transaction: &Transaction) -> Result<Acceptance, NodeError> {
        match self.call::<Txid>("sendrawtransaction", json!([encode::serialize_hex(transaction), 0])).await {
            Ok(_) => Ok(Acceptance::Yes),
            Err(NodeError::Rpc { code: code::ALREADY_IN_CHAIN, .. }) => Ok(Acceptance::Known),
            Err(NodeError::Rpc { code: code::VERIFY_REJECTED | code::VERIFY_ERROR, message, .. }) => {
                Ok(if is_known(&message) { Acceptance::Known } else { Acceptance::No(message) })
            }
            Err(e) => Err(e),
        }
    }

    async fn fee_rate(&self, target: u16) -> Result<Option<FeeRate>, NodeError> {
        #[derive(Deserialize)]
        struct Estimate {
            feerate: Option<serde_json::Number>,
        }
        let estimate: Estimate = self.call("estimatesmartfee", json!([target])).await?;
        // BTC per 1,000 virtual bytes; the same number in satoshi.
        let rate = estimate.feerate.and_then(|n| n.as_f64()).and_then(|btc| bitcoin::Amount::from_btc(btc).ok());
        Ok(rate.map(|rate| FeeRate::from_sat_per_kvb(rate.to_sat())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_plain_urls_with_a_port_name_a_node() {
        assert_eq!(endpoint("http://127.0.0.1:8332/").unwrap(), "127.0.0.1:8332");
        for wrong in
            ["127.0.0.1:8332", "https://127.0.0.1:8332", "http://127.0.0.1", "http://u:p@127.0.0.1:8332", "http://:8332", "http://h:1/x"]
        {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
