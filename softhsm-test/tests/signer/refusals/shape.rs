//! Refused for its shape: before anybody asks whose money it is.

use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, absolute::LockTime, consensus::encode, transaction::Version};
use postern_protocol::refusal::RefusalCode::{self, *};
use postern_testkit::spend::raw::RawPsbt;

use super::{Case, World};

const PSBT_GLOBAL_VERSION: u8 = 0xfb;

pub(super) const CASES: &[Case] = &[
    case(PsbtMalformed, |w| {
        let good = w.payment()?.serialize();
        Ok(good[..good.len() / 2].to_vec())
    }),
    case(PsbtTrailingBytes, |w| {
        let mut bytes = w.payment()?.serialize();
        bytes.push(0);
        Ok(bytes)
    }),
    case(PsbtVersion, |w| {
        let mut raw = RawPsbt::new(&w.payment()?)?;
        raw.global.push((vec![PSBT_GLOBAL_VERSION], 2u32.to_le_bytes().to_vec()));
        Ok(raw.to_bytes())
    }),
    case(PsbtDuplicateKey, |w| {
        let mut raw = RawPsbt::new(&w.payment()?)?;
        let unknown = (vec![0x7f, 1], vec![2]);
        raw.inputs[0].extend([unknown.clone(), unknown]);
        Ok(raw.to_bytes())
    }),
    case(TxNoInputs, |w| {
        let mut raw = RawPsbt::new(&w.payment()?)?;
        // No library writes this without the marker of a segwit transaction.
        let mut transaction = 2u32.to_le_bytes().to_vec();
        transaction.push(0);
        transaction.extend(encode::serialize(&w.payment()?.unsigned_tx.output));
        transaction.extend(0u32.to_le_bytes());
        raw.global[0].1 = transaction;
        raw.inputs.clear();
        Ok(raw.to_bytes())
    }),
    case(TxNoOutputs, |w| {
        let psbt = w.payment()?;
        let mut raw = RawPsbt::new(&psbt)?;
        raw.outputs.clear();
        let mut transaction = psbt.unsigned_tx;
        transaction.output.clear();
        Ok(raw.with_transaction(&transaction).to_bytes())
    }),
    case(TxVersion, |w| w.with_transaction(|tx| tx.version = Version(4))),
    case(TxDuplicateOutpoint, |w| {
        let psbt = w.payment()?;
        let mut raw = RawPsbt::new(&psbt)?;
        raw.inputs.push(raw.inputs[0].clone());
        let mut transaction = psbt.unsigned_tx;
        transaction.input.push(transaction.input[0].clone());
        Ok(raw.with_transaction(&transaction).to_bytes())
    }),
    case(TxCoinbasePrevout, |w| w.with_transaction(|tx| tx.input[0].previous_output = OutPoint::null())),
    case(TxTooHeavy, |w| {
        let psbt = w.payment()?;
        let mut raw = RawPsbt::new(&psbt)?;
        let mut transaction = psbt.unsigned_tx;
        transaction.output[0].value = Amount::from_sat(1_000);
        for _ in 0..3_300 {
            transaction.output.push(transaction.output[0].clone());
            raw.outputs.push(vec![]);
        }
        Ok(raw.with_transaction(&transaction).to_bytes())
    }),
    case(TxSigned, |w| w.with_transaction(|tx| tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51]))),
    case(TxLocktime, |w| {
        w.with_transaction(|tx| {
            tx.lock_time = LockTime::from_consensus(1_900_000_000);
            tx.input[0].sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
        })
    }),
    case(AmountOutOfRange, |w| w.with_transaction(|tx| tx.output[0].value = Amount::MAX_MONEY + Amount::ONE_SAT)),
    case(AmountNegativeFee, |w| w.with_transaction(|tx| tx.output[0].value = Amount::from_sat(900_000_000))),
];

const fn case(code: RefusalCode, psbt: fn(&World) -> anyhow::Result<Vec<u8>>) -> Case {
    Case { code, wallet: "hot", psbt }
}
