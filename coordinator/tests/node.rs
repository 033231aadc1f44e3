//! The JSON-RPC client against a real bitcoind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::{collections::HashSet, path::PathBuf};

use bitcoin::{Network, Transaction};
use postern_coordinator::{
    config::BitcoindTable,
    node::{Acceptance, Node as _, NodeError, RpcNode},
};
use postern_testkit::{bitcoind::Bitcoind, run::TempRun};

fn node(bitcoind: &Bitcoind, cookie: PathBuf) -> RpcNode {
    let table = BitcoindTable { url: bitcoind.url(), cookie: Some(cookie), user: None, password: None, start_height: None };
    RpcNode::new(&table).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_asked_of_a_node_is_answered_by_a_real_one() {
    let run = TempRun::new("node").unwrap();
    let mut bitcoind = Bitcoind::start(&run).unwrap();
    let node = node(&bitcoind, bitcoind.cookie().to_owned());
    assert_eq!(node.network().await.unwrap(), Network::Regtest);
    let tip = node.tip().await.unwrap();
    assert_eq!(tip.height, bitcoind.height().unwrap());
    assert_eq!(node.hash_at(tip.height).await.unwrap(), Some(tip.hash));
    assert_eq!(node.hash_at(tip.height + 1).await.unwrap(), None);
    assert_eq!(node.block(tip.hash).await.unwrap().block_hash(), tip.hash);
    assert_eq!(node.fee_rate(6).await.unwrap(), None, "nothing to estimate from");

    // A hundred and some transactions: more than one call asks for.
    let script = bitcoin::ScriptBuf::new_p2wpkh(&bitcoin::hashes::Hash::from_byte_array([5; 20]));
    let sent: Vec<Transaction> = (0..12).map(|n| bitcoind.fund(&script, 10_000 + n).unwrap().transaction).collect();
    let all: HashSet<_> = node.mempool().await.unwrap().into_iter().collect();
    assert_eq!(all, sent.iter().map(Transaction::compute_txid).collect());
    let mut asked: Vec<_> = all.iter().copied().collect();
    asked.push(bitcoin::hashes::Hash::all_zeros());
    let found: HashSet<_> = node.mempool_transactions(&asked).await.unwrap().iter().map(Transaction::compute_txid).collect();
    assert_eq!(found, all, "one that is not there is left out");

    assert_eq!(node.accepts(&sent[0]).await.unwrap(), Acceptance::Known);
    assert_eq!(node.send(&sent[0]).await.unwrap(), Acceptance::Yes, "sent again is sent");
    let mut unsigned = sent[0].clone();
    unsigned.input[0].witness.clear();
    unsigned.output[0].value -= bitcoin::Amount::from_sat(1);
    assert!(matches!(node.accepts(&unsigned).await.unwrap(), Acceptance::No(_)));
    assert!(matches!(node.send(&unsigned).await.unwrap(), Acceptance::No(_)));

    bitcoind.mine(1).unwrap();
    assert_eq!(node.accepts(&sent[0]).await.unwrap(), Acceptance::Known, "in a block");
    assert_eq!(node.send(&sent[0]).await.unwrap(), Acceptance::Known);

    // A restarted node has a new cookie.
    bitcoind.restart().unwrap();
    assert_eq!(node.tip().await.unwrap().height, tip.height + 1);
    bitcoind.stop().unwrap();
    assert!(matches!(node.tip().await, Err(NodeError::Unreachable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_called_so() {
    let run = TempRun::new("node_cookie").unwrap();
    let bitcoind = Bitcoind::start(&run).unwrap();
    let wrong = run.folder("wrong").unwrap().join("cookie");
    std::fs::write(&wrong, "__cookie__:00\n").unwrap();
    assert!(matches!(node(&bitcoind, wrong).tip().await, Err(NodeError::Unauthorized { .. })));
}
