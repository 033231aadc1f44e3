//! The signer's socket: signs heartbeats for real, answers `Sign` with the wallet's name, and can be made to wait.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use ed25519_dalek::SigningKey;
use postern_protocol::{
    PROTOCOL_VERSION, canonical,
    frame::{self, FRAME_MAX, PREFIX},
    heartbeat::{self, Heartbeat},
    key::PublicKey,
    reply::{Reply, ReplyBody, WalletInfo},
    request::{Request, RequestBody, SignRequest},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

pub(crate) struct Vault {
    pub(crate) path: PathBuf,
    key: SigningKey,
    asked: Mutex<BTreeMap<String, usize>>,
    changed: watch::Sender<()>,
    /// Requests to sign wait while this holds `false`.
    pub(crate) open: watch::Sender<bool>,
}

/// What to ask: the vault answers with this wallet's name.
pub(crate) fn sign(wallet: &str) -> RequestBody {
    RequestBody::Sign(SignRequest { wallet: wallet.into(), psbt: vec![0; 1000] })
}

/// What it answers.
pub(crate) fn signed(wallet: &str) -> ReplyBody {
    ReplyBody::Wallets(vec![WalletInfo { name: wallet.into(), kind: "seed".into(), descriptor: String::new(), gap: 1 }])
}

impl Vault {
    pub(crate) fn new(path: &Path) -> Arc<Self> {
        let key = SigningKey::from_bytes(&[7; 32]);
        Arc::new(Self { path: path.into(), key, asked: Mutex::default(), changed: watch::Sender::new(()), open: watch::Sender::new(true) })
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.key.verifying_key().into()
    }

    /// How often this wallet was asked for.
    pub(crate) fn asked(&self, wallet: &str) -> usize {
        self.asked.lock().unwrap().get(wallet).copied().unwrap_or_default()
    }

    /// Waits until it is asked for this wallet.
    pub(crate) async fn until_asked(&self, wallet: &str) {
        let mut changed = self.changed.subscribe();
        let asked = async {
            while self.asked(wallet) == 0 {
                changed.changed().await.unwrap();
            }
        };
        timeout(Duration::from_secs(120), asked).await.unwrap_or_else(|_| panic!("nobody asked for {wallet}"));
    }

    /// Listens until the task is aborted.
    pub(crate) fn listen(self: &Arc<Self>) -> JoinHandle<()> {
        let listener = UnixListener::bind(&self.path).unwrap();
        let vault = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(vault.clone().speak(stream));
            }
        })
    }

    async fn speak(self: Arc<Self>, stream: UnixStream) {
        let (mut reader, writer) = stream.into_split();
        let writer = Arc::new(tokio::sync::Mutex::new(writer));
        let mut prefix = [0; PREFIX];
        while reader.read_exact(&mut prefix).await.is_ok() {
            let mut body = vec![0; frame::body_length(prefix, FRAME_MAX).unwrap()];
            reader.read_exact(&mut body).await.unwrap();
            let request: Request = canonical::from_slice(&body).unwrap();
            let (vault, writer) = (self.clone(), writer.clone());
            tokio::spawn(async move {
                let reply = Reply { version: PROTOCOL_VERSION, id: request.id, body: vault.answer(request.body).await };
                let frame = frame::wrap(&canonical::to_vec(&reply)).unwrap();
                let _ = writer.lock().await.write_all(&frame).await;
            });
        }
    }

    async fn answer(&self, body: RequestBody) -> ReplyBody {
        match body {
            RequestBody::Heartbeat(asked) => ReplyBody::Heartbeat(self.report(asked.nonce)),
            RequestBody::Sign(request) => {
                *self.asked.lock().unwrap().entry(request.wallet.clone()).or_default() += 1;
                self.changed.send_replace(());
                self.open.subscribe().wait_for(|open| *open).await.unwrap();
                signed(&request.wallet)
            }
            other => panic!("{other:?} is not asked here"),
        }
    }

    fn report(&self, nonce: Vec<u8>) -> Vec<u8> {
        let report = Heartbeat {
            nonce,
            signer: "vault-1".into(),
            network: "regtest".into(),
            policy_hash: String::new(),
            ledger_seq: 1,
            ledger_head: String::new(),
            limits: vec![],
            charged_sat: 0,
            uptime_ms: 0,
            keystores_down: vec![],
            frozen: vec![],
        };
        heartbeat::sign(&report, &self.key).unwrap()
    }
}
