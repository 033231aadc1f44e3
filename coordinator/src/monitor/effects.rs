//! What transactions do to our coins.

use std::collections::HashMap;

use bitcoin::{OutPoint, ScriptBuf, Transaction};

use crate::store::{Effects, Received, Store, Stored};

/// Looks every output and input up. A coin that is made and spent in the same block counts as both.
pub(super) async fn of(store: &dyn Store, transactions: &[Transaction]) -> Stored<Effects> {
    let scripts: Vec<ScriptBuf> = transactions
        .iter()
        .flat_map(|t| &t.output)
        .map(|o| &o.script_pubkey)
        .filter(|script| !script.is_op_return() && !script.is_empty())
        .cloned()
        .collect();
    let own: HashMap<ScriptBuf, _> = store.own_scripts(&scripts).await?.into_iter().map(|s| (s.script.clone(), s)).collect();
    let mut effects = Effects::default();
    for transaction in transactions {
        let mine =
            transaction.output.iter().zip(0_u32..).filter_map(|(output, vout)| Some((output, vout, own.get(&output.script_pubkey)?)));
        let mut txid = None;
        for (output, vout, script) in mine {
            let txid = *txid.get_or_insert_with(|| transaction.compute_txid());
            effects.received.push(Received {
                outpoint: OutPoint { txid, vout },
                wallet: script.wallet.clone(),
                branch: script.branch,
                index: script.index,
                value_sat: output.value.to_sat(),
                coinbase: transaction.is_coinbase(),
            });
        }
        if txid.is_some() {
            effects.transactions.push(transaction.clone());
        }
    }
    let inputs: Vec<OutPoint> = transactions.iter().flat_map(|t| &t.input).map(|i| i.previous_output).collect();
    let mut coins: std::collections::HashSet<OutPoint> = store.own_coins(&inputs).await?.into_iter().collect();
    coins.extend(effects.received.iter().map(|r| r.outpoint));
    for transaction in transactions {
        let spends: Vec<OutPoint> = transaction.input.iter().map(|i| i.previous_output).filter(|o| coins.contains(o)).collect();
        if spends.is_empty() {
            continue;
        }
        let txid = transaction.compute_txid();
        effects.spent.extend(spends.into_iter().map(|outpoint| (outpoint, txid)));
        if !effects.transactions.iter().any(|t| t.compute_txid() == txid) {
            effects.transactions.push(transaction.clone());
        }
    }
    Ok(effects)
}
