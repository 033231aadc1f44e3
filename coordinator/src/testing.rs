//! For tests inside one process: a chain in memory, signers that answer as told, an app around them. Real parts stand in `softhsm-test`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, Psbt, ScriptBuf, Transaction, TxIn, TxMerkleNode, TxOut, Txid,
    absolute::LockTime, bip32::Xpriv, block, hashes::Hash as _, secp256k1::Secp256k1, transaction::Version,
};
use postern_protocol::reply::{InputSignature, SignaturePlace, Signed};

use crate::{
    app::App,
    config::{Config, FeeRate},
    node::{Acceptance, Node, NodeError},
    store::{BlockRef, SqliteStore},
};

/// A folder in memory where there is one.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// The master key number `n`.
pub(crate) fn master(n: u8) -> Xpriv {
    Xpriv::new_master(Network::Regtest, &[n; 32]).unwrap()
}

/// Its account key with origin, without branches.
pub(crate) fn account(n: u8) -> String {
    let secp = Secp256k1::new();
    let path: bitcoin::bip32::DerivationPath = "84h/1h/0h".parse().unwrap();
    let account = bitcoin::bip32::Xpub::from_priv(&secp, &master(n).derive_priv(&secp, &path).unwrap());
    format!("[{}/84h/1h/0h]{account}", master(n).fingerprint(&secp))
}

/// Signs as a signer with this master key does.
pub(crate) fn sign(psbt: &[u8], master: &Xpriv) -> Signed {
    let mut psbt = Psbt::deserialize(psbt).unwrap();
    let unsigned_txid = psbt.unsigned_tx.compute_txid().to_byte_array();
    let _ = psbt.sign(master, &Secp256k1::new());
    let mut signatures = Vec::new();
    for (n, input) in (0_u32..).zip(&psbt.inputs) {
        let mut add = |public_key: Vec<u8>, signature: Vec<u8>, place| {
            signatures.push(InputSignature { input: n, public_key, signature, place });
        };
        for (key, signature) in &input.partial_sigs {
            add(key.to_bytes(), signature.to_vec(), SignaturePlace::Partial);
        }
        if let Some(signature) = &input.tap_key_sig {
            let script = &input.witness_utxo.as_ref().unwrap().script_pubkey;
            add(script.as_bytes()[2..].to_vec(), signature.to_vec(), SignaturePlace::TapKey);
        }
        for ((key, leaf), signature) in &input.tap_script_sigs {
            add(key.serialize().to_vec(), signature.to_vec(), SignaturePlace::TapLeaf(leaf.to_byte_array()));
        }
    }
    Signed { unsigned_txid, signatures }
}

#[derive(Default)]
struct Chain {
    blocks: Vec<Block>,
    mempool: BTreeMap<Txid, Transaction>,
    /// Makes every block and every deposit another one.
    count: u32,
    down: bool,
}

/// A node with a chain in memory. Replaces by fee; scripts are not run.
#[derive(Default)]
pub(crate) struct FakeNode(Mutex<Chain>);

impl FakeNode {
    pub(crate) fn new() -> Arc<Self> {
        let node = Arc::new(Self::default());
        node.mine(1);
        node
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.0.lock().unwrap()
    }

    fn up(&self) -> Result<MutexGuard<'_, Chain>, NodeError> {
        let chain = self.chain();
        if chain.down { Err(NodeError::Unreachable { url: "fake".into(), problem: "down".into() }) } else { Ok(chain) }
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.chain().down = down;
    }

    /// A deposit that waits in the mempool.
    pub(crate) fn fund(&self, script: &ScriptBuf, sat: u64) -> OutPoint {
        let mut chain = self.chain();
        chain.count += 1;
        let from = OutPoint::new(Txid::from_byte_array([0xee; 32]), chain.count);
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn { previous_output: from, ..TxIn::default() }],
            output: vec![TxOut { value: Amount::from_sat(sat), script_pubkey: script.clone() }],
        };
        let txid = transaction.compute_txid();
        chain.mempool.insert(txid, transaction);
        OutPoint::new(txid, 0)
    }

    /// Mines blocks; the first holds the whole mempool.
    pub(crate) fn mine(&self, blocks: u32) {
        for _ in 0..blocks {
            let mut chain = self.chain();
            let transactions = std::mem::take(&mut chain.mempool).into_values().collect();
            chain.add_block(transactions);
        }
    }

    /// Mines blocks that leave the mempool waiting.
    pub(crate) fn mine_empty(&self, blocks: u32) {
        for _ in 0..blocks {
            self.chain().add_block(vec![]);
        }
    }

    /// Takes blocks back and adds one more empty ones; their transactions return to the mempool as far as they do not conflict with it.
    pub(crate) fn reorg(&self, depth: u32) {
        let mut chain = self.chain();
        for _ in 0..depth {
            if chain.blocks.len() <= 1 {
                break;
            }
            let block = chain.blocks.pop().unwrap();
            for transaction in block.txdata.into_iter().skip(1) {
                let taken = chain.mempool.values().any(|t| conflict(t, &transaction));
                if !taken {
                    chain.mempool.insert(transaction.compute_txid(), transaction);
                }
            }
        }
        for _ in 0..=depth {
            chain.add_block(vec![]);
        }
    }

    /// All outputs in blocks, by script, in satoshi.
    pub(crate) fn paid(&self) -> HashMap<ScriptBuf, Vec<u64>> {
        let mut paid: HashMap<ScriptBuf, Vec<u64>> = HashMap::new();
        for output in self.chain().blocks.iter().flat_map(|b| &b.txdata).flat_map(|t| &t.output) {
            paid.entry(output.script_pubkey.clone()).or_default().push(output.value.to_sat());
        }
        paid
    }

    /// The mempool's transactions.
    pub(crate) fn waiting(&self) -> Vec<Transaction> {
        self.chain().mempool.values().cloned().collect()
    }

    /// Empties the mempool of everything but deposits, which their makers broadcast again.
    pub(crate) fn forget(&self) {
        self.chain().mempool.retain(|_, t| is_deposit(t));
    }

    /// Anybody hands it a transaction.
    pub(crate) fn take(&self, transaction: &Transaction) -> Acceptance {
        self.chain().take(transaction)
    }
}

/// Its inputs come from outside of this chain.
fn is_deposit(transaction: &Transaction) -> bool {
    transaction.input.iter().all(|i| i.previous_output.txid == Txid::from_byte_array([0xee; 32]))
}

fn conflict(a: &Transaction, b: &Transaction) -> bool {
    a.input.iter().any(|x| b.input.iter().any(|y| x.previous_output == y.previous_output))
}

impl Chain {
    fn add_block(&mut self, transactions: Vec<Transaction>) {
        self.count += 1;
        let coinbase = Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(self.count),
            input: vec![TxIn { previous_output: OutPoint::null(), ..TxIn::default() }],
            output: vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() }],
        };
        let mut block = Block {
            header: block::Header {
                version: block::Version::TWO,
                prev_blockhash: self.blocks.last().map_or_else(BlockHash::all_zeros, Block::block_hash),
                merkle_root: TxMerkleNode::all_zeros(),
                time: self.count,
                bits: CompactTarget::from_consensus(0x207f_ffff),
                nonce: 0,
            },
            txdata: std::iter::once(coinbase).chain(transactions).collect(),
        };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        self.blocks.push(block);
    }

    fn outputs(&self) -> HashMap<OutPoint, TxOut> {
        let all = self.blocks.iter().flat_map(|b| &b.txdata).chain(self.mempool.values());
        all.flat_map(|t| {
            let txid = t.compute_txid();
            t.output.iter().zip(0_u32..).map(move |(o, vout)| (OutPoint::new(txid, vout), o.clone()))
        })
        .collect()
    }

    fn fee(&self, transaction: &Transaction) -> Option<u64> {
        let outputs = self.outputs();
        if is_deposit(transaction) {
            return Some(0);
        }
        let worth: Option<u64> = transaction.input.iter().map(|i| outputs.get(&i.previous_output).map(|o| o.value.to_sat())).sum();
        worth?.checked_sub(transaction.output.iter().map(|o| o.value.to_sat()).sum())
    }

    fn take(&mut self, transaction: &Transaction) -> Acceptance {
        let txid = transaction.compute_txid();
        let in_chain: Vec<&Transaction> = self.blocks.iter().flat_map(|b| &b.txdata).collect();
        if self.mempool.contains_key(&txid) || in_chain.iter().any(|t| t.compute_txid() == txid) {
            return Acceptance::Known;
        }
        if in_chain.iter().any(|t| conflict(t, transaction)) {
            return Acceptance::No("bad-txns-inputs-missingorspent".into());
        }
        let Some(fee) = self.fee(transaction) else { return Acceptance::No("missing inputs".into()) };
        let replaced: Vec<Txid> = self.mempool.iter().filter(|(_, t)| conflict(t, transaction)).map(|(txid, _)| *txid).collect();
        let replaced_fee: u64 = replaced.iter().map(|txid| self.fee(&self.mempool[txid]).unwrap()).sum();
        if !replaced.is_empty() && fee < replaced_fee + u64::try_from(transaction.vsize()).unwrap() {
            return Acceptance::No("insufficient fee".into());
        }
        for txid in replaced {
            self.mempool.remove(&txid);
        }
        self.mempool.insert(txid, transaction.clone());
        Acceptance::Yes
    }
}

#[async_trait]
impl Node for FakeNode {
    async fn network(&self) -> Result<Network, NodeError> {
        self.up().map(|_| Network::Regtest)
    }

    async fn tip(&self) -> Result<BlockRef, NodeError> {
        let chain = self.up()?;
        Ok(BlockRef { height: u32::try_from(chain.blocks.len() - 1).unwrap(), hash: chain.blocks.last().unwrap().block_hash() })
    }

    async fn hash_at(&self, height: u32) -> Result<Option<BlockHash>, NodeError> {
        Ok(self.up()?.blocks.get(height as usize).map(Block::block_hash))
    }

    async fn block(&self, hash: BlockHash) -> Result<Block, NodeError> {
        let found = self.up()?.blocks.iter().find(|b| b.block_hash() == hash).cloned();
        found.ok_or(NodeError::Answer { method: "getblock", problem: "no such block".into() })
    }

    async fn mempool(&self) -> Result<Vec<Txid>, NodeError> {
        Ok(self.up()?.mempool.keys().copied().collect())
    }

    async fn mempool_transactions(&self, txids: &[Txid]) -> Result<Vec<Transaction>, NodeError> {
        let chain = self.up()?;
        Ok(txids.iter().filter_map(|txid| chain.mempool.get(txid).cloned()).collect())
    }

    async fn accepts(&self, transaction: &Transaction) -> Result<Acceptance, NodeError> {
        let mut chain = self.up()?;
        let before = chain.mempool.clone();
        let verdict = chain.take(transaction);
        chain.mempool = before;
        Ok(verdict)
    }

    async fn send(&self, transaction: &Transaction) -> Result<Acceptance, NodeError> {
        Ok(self.up()?.take(transaction))
    }

    async fn fee_rate(&self, _: u16) -> Result<Option<FeeRate>, NodeError> {
        self.up().map(|_| None)
    }
}

/// A configuration with one wallet of these signers.
pub(crate) fn config(state: &Path, descriptor: &str, signers: &[&str], lines: &str) -> Config {
    let without_tpm: String = signers.iter().map(|name| format!("[signer.{name}]\nattestation = \"none\"\n")).collect();
    let text = format!(
        "[coordinator]\nnetwork = \"regtest\"\nstate = {state:?}\n[door]\nstate = {state:?}\ndirect = \"127.0.0.1:0\"\n\
         [bitcoind]\nurl = \"http://127.0.0.1:1\"\ncookie = \"/none\"\nstart_height = 0\n\
         [wallet.hot]\nsigners = {signers:?}\ndescriptor = \"{descriptor}\"\ngap = 10\n{lines}\n{without_tpm}"
    );
    Config::parse(Path::new("coordinator.toml"), &text).unwrap()
}

/// An app on a store in a file and a chain in memory.
pub(crate) async fn app(folder: &Path, node: Arc<FakeNode>, descriptor: &str, signers: &[&str], lines: &str) -> (Arc<App>, SqliteStore) {
    let config = config(folder, descriptor, signers, lines);
    let store = SqliteStore::open(&folder.join("c.sqlite"), Network::Regtest).await.unwrap();
    (Arc::new(App::new(config, Arc::new(store.clone()), node).unwrap()), store)
}

/// Every element once.
pub(crate) fn distinct<T: std::hash::Hash + Eq>(all: impl IntoIterator<Item = T>) -> usize {
    all.into_iter().collect::<HashSet<T>>().len()
}
