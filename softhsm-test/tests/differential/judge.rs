//! What bitcoind says of a payment, in the signer's words.

use std::collections::BTreeSet;

use bitcoin::{Amount, Psbt, Transaction, consensus::encode};
use postern_testkit::{Bitcoind, bitcoind::RpcError};
use serde_json::{Value, json};

/// The numbers by bitcoind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) txid: String,
    /// Of the coins on the chain, by input.
    pub(crate) inputs_sat: Vec<u64>,
    /// By output.
    pub(crate) outputs_sat: Vec<u64>,
    pub(crate) fee_sat: u64,
    /// Outputs whose address is one of the change branch's.
    pub(crate) change: Vec<u32>,
}

fn sat(value: &Value) -> u64 {
    Amount::from_btc(value.as_f64().expect("an amount")).unwrap().to_sat()
}

/// The addresses of a descriptor without wildcards, or of a range of one.
pub(crate) fn addresses(node: &Bitcoind, descriptors: impl IntoIterator<Item = String>) -> Result<BTreeSet<String>, RpcError> {
    let mut all = BTreeSet::new();
    for descriptor in descriptors {
        let text = descriptor.split('#').next().unwrap();
        let info: Value = node.rpc().call("getdescriptorinfo", &[json!(text)])?;
        let derived: Vec<String> = node.rpc().call("deriveaddresses", &[info["descriptor"].clone()])?;
        all.extend(derived);
    }
    Ok(all)
}

/// Asks it all of bitcoind; `change` are the addresses of the change branch.
pub(crate) fn numbers(node: &Bitcoind, psbt: &Psbt, change: &BTreeSet<String>) -> Result<Numbers, RpcError> {
    let text = psbt.to_string();
    let decoded: Value = node.rpc().call("decodepsbt", &[json!(text)])?;
    let analysed: Value = node.rpc().call("analyzepsbt", &[json!(text)])?;
    let fee_sat = sat(&decoded["fee"]);
    assert_eq!(sat(&analysed["fee"]), fee_sat, "bitcoind disagrees with itself");
    assert!(analysed.get("error").is_none(), "{analysed}");
    let mut inputs_sat = vec![];
    for input in decoded["tx"]["vin"].as_array().unwrap() {
        let coin: Value = node.rpc().call("gettxout", &[input["txid"].clone(), input["vout"].clone()])?;
        inputs_sat.push(sat(&coin["value"]));
    }
    let outputs = decoded["tx"]["vout"].as_array().unwrap();
    let is_change = |output: &Value| output["scriptPubKey"]["address"].as_str().is_some_and(|address| change.contains(address));
    Ok(Numbers {
        txid: decoded["tx"]["txid"].as_str().unwrap().into(),
        inputs_sat,
        outputs_sat: outputs.iter().map(|output| sat(&output["value"])).collect(),
        fee_sat,
        change: (0..).zip(outputs).filter(|(_, output)| is_change(output)).map(|(n, _)| n).collect(),
    })
}

/// bitcoind finalises the signed PSBT and takes the transaction for its mempool at that fee.
pub(crate) fn accepts(node: &Bitcoind, signed: &Psbt, fee_sat: u64) -> Transaction {
    let done: Value = node.rpc().call("finalizepsbt", &[json!(signed.to_string())]).unwrap();
    assert_eq!(done["complete"], json!(true), "bitcoind cannot finalise {signed}");
    let hex = done["hex"].as_str().unwrap();
    let verdicts: Vec<Value> = node.rpc().call("testmempoolaccept", &[json!([hex]), json!(0)]).unwrap();
    assert_eq!(verdicts[0]["allowed"], json!(true), "{}: {hex}", verdicts[0]);
    assert_eq!(sat(&verdicts[0]["fees"]["base"]), fee_sat);
    encode::deserialize(&hex::decode(hex).unwrap()).unwrap()
}
