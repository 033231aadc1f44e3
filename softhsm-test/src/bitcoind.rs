//! A `bitcoind` on regtest that is connected to nobody, with a miner that pays. Bitcoin Core is built without its wallet,
//! so the miner's key is ours.

mod miner;
mod rpc;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use bitcoin::{Amount, BlockHash, OutPoint, Script, ScriptBuf, Transaction, TxOut, Txid, consensus::encode};
use serde_json::{Value, json};

pub use self::rpc::{Rpc, RpcError};
use crate::{
    port::Port,
    process::Process,
    program,
    run::TempRun,
    wait::{PATIENCE, wait_for},
};
use miner::Miner;

/// Blocks that a fresh chain has: ten rewards of 50 BTC are mature.
pub const FIRST_BLOCKS: u32 = 110;

/// A running node.
#[derive(Debug)]
pub struct Bitcoind {
    run: TempRun,
    process: Option<Process>,
    rpc: Rpc,
    port: Port,
    folder: PathBuf,
    arguments: Vec<String>,
    miner: Mutex<Miner>,
}

/// A payment by the miner.
#[derive(Debug, Clone)]
pub struct Funding {
    /// The whole transaction.
    pub transaction: Transaction,
    /// Its outputs that were asked for, in order.
    pub outpoints: Vec<OutPoint>,
}

impl Funding {
    /// The first output that was asked for.
    #[must_use]
    pub fn outpoint(&self) -> OutPoint {
        self.outpoints.first().copied().unwrap_or_default()
    }
}

impl Bitcoind {
    /// Starts a node and mines [`FIRST_BLOCKS`].
    ///
    /// # Errors
    /// When there is no `bitcoind` or it does not start.
    pub fn start(run: &TempRun) -> Result<Self> {
        Self::start_with(run, &[])
    }

    /// The same with more arguments (`-txindex=1`).
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(run: &TempRun, arguments: &[&str]) -> Result<Self> {
        let folder = run.folder("bitcoind")?;
        let port = Port::reserve()?;
        let rpc = Rpc::new(port.number(), folder.join("regtest/.cookie"));
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut node = Self { run: run.clone(), process: None, rpc, port, folder, arguments, miner: Mutex::default() };
        node.launch()?;
        node.mine(FIRST_BLOCKS)?;
        Ok(node)
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(program::bitcoind()?);
        command.arg("-regtest").arg("-server").arg(format!("-datadir={}", self.folder.display()));
        command.arg(format!("-rpcport={}", self.port.number())).args(["-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1"]);
        // Alone on loopback.
        command.args(["-listen=0", "-connect=0", "-dnsseed=0", "-fixedseeds=0", "-discover=0", "-listenonion=0", "-natpmp=0"]);
        command.args(["-printtoconsole=1", "-nodebuglogfile", "-rpcthreads=8", "-dbcache=16", "-par=1"]).args(&self.arguments);
        // A cookie that a kill left behind would be tried and refused.
        let _ = std::fs::remove_file(self.cookie());
        let mut process = Process::start(&self.run, "bitcoind", command)?;
        wait_for("bitcoind to answer", PATIENCE, || {
            process.alive()?;
            Ok(self.rpc.call::<u32>("getblockcount", &[]).ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops it cleanly and starts it again, same folder and port.
    ///
    /// # Errors
    /// When it does not stop or start.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.launch()
    }

    /// Stops it cleanly; [`Self::restart`] starts it again.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(),
            None => Ok(()),
        }
    }

    /// Calls by JSON-RPC.
    #[must_use]
    pub fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// The file with user and password.
    #[must_use]
    pub fn cookie(&self) -> &Path {
        self.rpc.cookie()
    }

    /// Height of the best block.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn height(&self) -> Result<u32> {
        Ok(self.rpc.call("getblockcount", &[])?)
    }

    /// Mines blocks with whatever waits in the mempool.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn mine(&self, blocks: u32) -> Result<Vec<BlockHash>> {
        let mut miner = self.miner();
        let hashes: Vec<BlockHash> = self.rpc.call("generatetodescriptor", &[json!(blocks), json!(miner.descriptor())])?;
        for hash in &hashes {
            miner.note_block(&self.rpc, *hash)?;
        }
        Ok(hashes)
    }

    /// Mines blocks that leave the mempool waiting.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn mine_empty(&self, blocks: u32) -> Result<()> {
        (0..blocks).try_for_each(|_| self.mine_exactly(&[]).map(drop))
    }

    /// Mines one block with exactly these transactions, whether or not the mempool would take them.
    ///
    /// # Errors
    /// When the block would be invalid.
    pub fn mine_exactly(&self, transactions: &[Transaction]) -> Result<BlockHash> {
        let mut miner = self.miner();
        let raw: Vec<String> = transactions.iter().map(encode::serialize_hex).collect();
        let mined: Value = self.rpc.call("generateblock", &[json!(miner.descriptor()), json!(raw)])?;
        let hash = mined.get("hash").and_then(Value::as_str).context("generateblock gave no hash")?.parse()?;
        miner.note_block(&self.rpc, hash)?;
        Ok(hash)
    }

    /// Takes the last `depth` blocks back; their transactions return to the mempool. [`Self::mine`] or [`Self::mine_exactly`] makes
    /// the other branch, of at least `depth + 1` blocks when a monitor is to notice.
    ///
    /// # Errors
    /// When the chain is shorter.
    pub fn disconnect(&self, depth: u32) -> Result<()> {
        let first = self.height()?.checked_sub(depth).context("deeper than the chain")? + 1;
        let hash: String = self.rpc.call("getblockhash", &[json!(first)])?;
        let _: Value = self.rpc.call("invalidateblock", &[json!(hash)])?;
        // The same coinbase at the same height and second would be the same, now invalid, block.
        self.miner().next_key();
        Ok(())
    }

    /// Replaces the last `depth` blocks by `depth + 1` others with the same transactions, as far as they fit.
    ///
    /// # Errors
    /// As [`Self::disconnect`].
    pub fn reorg(&self, depth: u32) -> Result<()> {
        self.disconnect(depth)?;
        self.mine(depth + 1).map(drop)
    }

    /// Pays an output script; the transaction waits in the mempool.
    ///
    /// # Errors
    /// When the miner has no money left (mine more) or the node refuses.
    pub fn fund(&self, script: &Script, sat: u64) -> Result<Funding> {
        self.fund_all(&[(script.to_owned(), sat)])
    }

    /// The same for several outputs in one transaction.
    ///
    /// # Errors
    /// As [`Self::fund`].
    pub fn fund_all(&self, payments: &[(ScriptBuf, u64)]) -> Result<Funding> {
        let outputs = payments.iter().map(|(script, sat)| TxOut { value: Amount::from_sat(*sat), script_pubkey: script.clone() }).collect();
        let mut miner = self.miner();
        let transaction = miner.pay(&self.rpc, outputs)?;
        let txid = self.send(&transaction)?;
        miner.note_change(&transaction);
        let outpoints = (0..payments.len()).map(|n| OutPoint { txid, vout: u32::try_from(n).unwrap_or(u32::MAX) }).collect();
        Ok(Funding { transaction, outpoints })
    }

    /// [`Self::fund`] and a block that holds it.
    ///
    /// # Errors
    /// As [`Self::fund`].
    pub fn fund_confirmed(&self, script: &Script, sat: u64) -> Result<Funding> {
        let funding = self.fund(script, sat)?;
        self.mine(1)?;
        Ok(funding)
    }

    /// Hands a transaction to the mempool.
    ///
    /// # Errors
    /// With the node's reason when it refuses.
    pub fn send(&self, transaction: &Transaction) -> Result<Txid> {
        Ok(self.rpc.call("sendrawtransaction", &[json!(encode::serialize_hex(transaction)), json!(0)])?)
    }

    /// Asks whether the mempool would take a transaction.
    ///
    /// # Errors
    /// With the node's reason when it would not.
    pub fn accepts(&self, transaction: &Transaction) -> Result<()> {
        let verdicts: Vec<Value> = self.rpc.call("testmempoolaccept", &[json!([encode::serialize_hex(transaction)]), json!(0)])?;
        let verdict = verdicts.first().context("no verdict")?;
        if verdict.get("allowed").and_then(Value::as_bool) == Some(true) { Ok(()) } else { bail!("bitcoind would refuse: {verdict}") }
    }

    /// Blocks on top of a transaction, itself included; 0 while it waits in the mempool, none when the node knows of no output
    /// of it that is unspent.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn confirmations(&self, transaction: &Transaction) -> Result<Option<u32>> {
        let txid = transaction.compute_txid();
        for vout in 0..transaction.output.len() {
            let output: Option<Value> = self.rpc.call("gettxout", &[json!(txid), json!(vout), json!(true)])?;
            if let Some(confirmations) = output.as_ref().and_then(|o| o.get("confirmations")).and_then(Value::as_u64) {
                return Ok(Some(u32::try_from(confirmations)?));
            }
        }
        Ok(None)
    }

    /// What waits in the mempool.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn mempool(&self) -> Result<Vec<Txid>> {
        Ok(self.rpc.call("getrawmempool", &[])?)
    }

    fn miner(&self) -> MutexGuard<'_, Miner> {
        self.miner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn somebody() -> ScriptBuf {
        ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").unwrap()
    }

    #[test]
    fn the_miner_pays_a_reorg_takes_it_back_and_another_branch_can_leave_it_out() {
        let run = TempRun::new("reorg").unwrap();
        let node = Bitcoind::start(&run).unwrap();
        let paid = node.fund_confirmed(&somebody(), 1_000_000).unwrap();
        assert_eq!(node.confirmations(&paid.transaction).unwrap(), Some(1));
        assert_eq!(paid.transaction.output[paid.outpoint().vout as usize].value, Amount::from_sat(1_000_000));
        node.mine(2).unwrap();
        node.reorg(3).unwrap();
        assert_eq!(node.confirmations(&paid.transaction).unwrap(), Some(4));
        node.disconnect(4).unwrap();
        assert_eq!(node.confirmations(&paid.transaction).unwrap(), Some(0));
        node.mine_empty(5).unwrap();
        assert_eq!(node.mempool().unwrap(), [paid.transaction.compute_txid()]);
    }

    #[test]
    fn the_miner_can_pay_many_times_without_a_block_and_after_a_restart() {
        let run = TempRun::new("pays").unwrap();
        let mut node = Bitcoind::start(&run).unwrap();
        for _ in 0..15 {
            node.fund(&somebody(), 100_000).unwrap();
        }
        node.restart().unwrap();
        assert_eq!(node.mempool().unwrap().len(), 15);
        node.mine(1).unwrap();
        assert!(node.mempool().unwrap().is_empty());
        node.fund_all(&vec![(somebody(), 50_000); 100]).unwrap();
    }
}
