//! Each refusal of the analysis, at least once, by a PSBT that is wrong in that one thing.

use bitcoin::{
    Amount, EcdsaSighashType, OutPoint, Psbt, ScriptBuf, Sequence, TapSighashType, Transaction, Witness,
    absolute::LockTime,
    consensus::{deserialize, serialize},
    psbt::PsbtSighashType,
    taproot::{ControlBlock, LeafVersion},
    transaction::Version,
};
use postern_protocol::{
    refusal::RefusalCode::{self, *},
    units::MAX_MONEY_SAT,
};

use super::{
    super::{PSBT_MAX, analyze},
    raw::Raw,
    site::{COIN_SAT, Out, Site, Spend, change, every_site, public, receive, somebody},
};

type Case = (RefusalCode, &'static str, fn() -> (Site, Vec<u8>));

fn hot(change: impl FnOnce(&mut Psbt)) -> (Site, Vec<u8>) {
    altered(Site::hot(), &Spend::usual(), change)
}

fn altered(site: Site, spend: &Spend, change: impl FnOnce(&mut Psbt)) -> (Site, Vec<u8>) {
    let mut psbt = site.psbt(spend);
    change(&mut psbt);
    let bytes = psbt.serialize();
    (site, bytes)
}

fn raw(change: impl FnOnce(Raw) -> Raw) -> (Site, Vec<u8>) {
    let site = Site::hot();
    let bytes = change(Raw::from(&site.psbt(&Spend::usual()))).bytes();
    (site, bytes)
}

fn taproot(change: impl FnOnce(&mut Psbt)) -> (Site, Vec<u8>) {
    altered(every_site().remove("seed p2tr key path with a tree").unwrap(), &Spend::usual(), change)
}

fn foreign_allowed(change: impl FnOnce(&mut Psbt)) -> (Site, Vec<u8>) {
    let spend = Spend { coins: vec![(receive(0), COIN_SAT), (receive(1), COIN_SAT)], ..Spend::usual() };
    let (site, other) = (Site::hot().rules(|r| r.allow_foreign_inputs = true), Site::hsm("wpkh(KEY)"));
    let mut psbt = site.psbt(&spend);
    let theirs = other.psbt(&Spend { coins: vec![(receive(0), COIN_SAT)], outputs: vec![] });
    psbt.unsigned_tx.input[1] = theirs.unsigned_tx.input[0].clone();
    psbt.inputs[1] = theirs.inputs[0].clone();
    change(&mut psbt);
    (site, psbt.serialize())
}

fn unsigned(change: impl FnOnce(&mut Transaction)) -> (Site, Vec<u8>) {
    raw(|raw| {
        raw.unsigned(|bytes| {
            let mut transaction = deserialize(bytes).unwrap();
            change(&mut transaction);
            *bytes = serialize(&transaction);
        })
    })
}

fn output_script(script: ScriptBuf) -> (Site, Vec<u8>) {
    let outputs = vec![Out::Pay(script, 500_000), Out::Own(change(0), 498_000)];
    altered(Site::hot(), &Spend::one(outputs), |_| {})
}

fn op_return(site: Site, pushed: usize, sat: u64) -> (Site, Vec<u8>) {
    let data = bitcoin::script::PushBytesBuf::try_from(vec![7; pushed]).unwrap();
    let outputs = vec![Out::Pay(ScriptBuf::new_op_return(data), sat), Out::Own(change(0), 990_000)];
    altered(site, &Spend::one(outputs), |_| {})
}

fn fee(rules: fn(&mut crate::policy::rules::SpendRules)) -> (Site, Vec<u8>) {
    altered(Site::hot().rules(rules), &Spend::usual(), |_| {})
}

const CASES: &[Case] = &[
    (PsbtTooLarge, "over the cap", || (Site::hot(), vec![0; PSBT_MAX + 1])),
    (PsbtMalformed, "empty", || (Site::hot(), vec![])),
    (PsbtMalformed, "base64", || (Site::hot(), b"cHNidP8BAHUCAAAAASaB".to_vec())),
    (PsbtMalformed, "a plain transaction", || {
        let site = Site::hot();
        let bytes = serialize(&site.psbt(&Spend::usual()).unsigned_tx);
        (site, bytes)
    }),
    (PsbtMalformed, "no unsigned transaction", || {
        raw(|mut raw| {
            raw.maps[0].clear();
            raw
        })
    }),
    (PsbtMalformed, "an output's map is missing", || {
        raw(|mut raw| {
            raw.maps.pop();
            raw
        })
    }),
    (PsbtMalformed, "a length in a longer form than need be", || {
        let (site, mut bytes) = hot(|_| {});
        // The last map is the change output's: its separator makes way for a field whose key's length takes three bytes.
        bytes.pop();
        bytes.extend([0xfd, 2, 0, 0xf0, 1, 0, 0]);
        (site, bytes)
    }),
    (PsbtMalformed, "a field's kind in a longer form than need be", || raw(|raw| raw.with(1, &[0xfd, 0xf0, 0x00], &[]))),
    (PsbtMalformed, "key data where there is none", || raw(|raw| raw.with(1, &[0x03, 0x01], &[1, 0, 0, 0]))),
    (PsbtMalformed, "a sighash type of three bytes", || raw(|raw| raw.with(1, &[0x03], &[1, 0, 0]))),
    (PsbtMalformed, "a key that is none", || raw(|raw| raw.with(1, &[&[0x06], [5u8; 33].as_slice()].concat(), &[0; 8]))),
    (PsbtMalformed, "a path that is cut off", || raw(|raw| raw.with(1, &[&[0x06], public("k").to_bytes().as_slice()].concat(), &[0; 7]))),
    (PsbtMalformed, "MuSig2 participants of odd length (BIP 373)", || {
        raw(|raw| raw.with(1, &[&[0x1a], public("k").to_bytes().as_slice()].concat(), &[2; 34]))
    }),
    (PsbtMalformed, "witness_utxo with a byte too many", || {
        raw(|mut raw| {
            raw.maps[1].iter_mut().find(|(key, _)| key == &[1]).unwrap().1.push(0);
            raw
        })
    }),
    (PsbtMalformed, "previous transaction with a byte too many", || {
        raw(|mut raw| {
            raw.maps[1].iter_mut().find(|(key, _)| key == &[0]).unwrap().1.push(0);
            raw
        })
    }),
    (PsbtMalformed, "bytes behind the unsigned transaction", || raw(|raw| raw.unsigned(|tx| tx.push(0)))),
    (PsbtMalformed, "5,000 fields in a map", || {
        raw(|mut raw| {
            raw.maps[1].extend((0..5_000u16).map(|n| ([&[0xf0], n.to_be_bytes().as_slice()].concat(), vec![])));
            raw
        })
    }),
    (PsbtTrailingBytes, "one byte", || {
        let (site, mut bytes) = hot(|_| {});
        bytes.push(0);
        (site, bytes)
    }),
    (PsbtTrailingBytes, "a second PSBT", || {
        let (site, bytes) = hot(|_| {});
        (site, bytes.repeat(2))
    }),
    (PsbtVersion, "announced", || raw(|raw| raw.with(0, &[0xfb], &2u32.to_le_bytes()))),
    (PsbtVersion, "version 1, which does not exist", || raw(|raw| raw.with(0, &[0xfb], &1u32.to_le_bytes()))),
    (PsbtVersion, "a global field of version 2", || raw(|raw| raw.with(0, &[0x02], &2u32.to_le_bytes()))),
    (PsbtVersion, "modifiable flags", || raw(|raw| raw.with(0, &[0x06], &[3]))),
    (PsbtVersion, "an input's field of version 2", || raw(|raw| raw.with(1, &[0x0e], &[7; 32]))),
    (PsbtVersion, "a required lock time", || raw(|raw| raw.with(2, &[0x12], &[7; 4]))),
    (PsbtVersion, "an output's amount of version 2", || raw(|raw| raw.with(3, &[0x03], &[7; 8]))),
    (PsbtVersion, "a silent payment (BIP 375)", || raw(|raw| raw.with(4, &[0x09], &[7; 66]))),
    (PsbtDuplicateKey, "known", || {
        raw(|mut raw| {
            let again = raw.maps[1][0].clone();
            raw.maps[1].push(again);
            raw
        })
    }),
    (PsbtDuplicateKey, "unknown, with another value", || raw(|raw| raw.with(3, &[0xf0, 1], &[1]).with(3, &[0xf0, 1], &[2]))),
    (PsbtDuplicateKey, "global", || raw(|raw| raw.with(0, &[0xfb], &[0; 4]).with(0, &[0xfb], &[0; 4]))),
    (TxNoInputs, "outputs only", || {
        raw(|raw| {
            raw.unsigned(|tx| {
                let transaction: Transaction = deserialize(tx).unwrap();
                *tx = [&[2, 0, 0, 0, 0], serialize(&transaction.output).as_slice(), &[0; 4]].concat();
            })
        })
    }),
    (TxNoInputs, "nothing at all", || raw(|raw| raw.unsigned(|tx| *tx = vec![2, 0, 0, 0, 0, 0, 0, 0, 0, 0]))),
    (TxNoOutputs, "inputs only", || unsigned(|tx| tx.output.clear())),
    (TxVersion, "4", || unsigned(|tx| tx.version = Version(4))),
    (TxVersion, "0", || unsigned(|tx| tx.version = Version(0))),
    (TxVersion, "negative", || unsigned(|tx| tx.version = Version(-1))),
    (TxDuplicateOutpoint, "twice the same", || hot(|p| p.unsigned_tx.input[1].previous_output = p.unsigned_tx.input[0].previous_output)),
    (TxCoinbasePrevout, "null", || hot(|p| p.unsigned_tx.input[1].previous_output = OutPoint::null())),
    (TxTooHeavy, "before it is signed", || {
        let (site, bytes) = unsigned(|tx| tx.output.extend(vec![tx.output[0].clone(); 4_000]));
        (site, bytes).into_same(|mut raw| {
            raw.maps.extend(vec![vec![]; 4_000]);
            raw
        })
    }),
    (TxTooHeavy, "once it is signed", || {
        // 41 × 4 weight units each unsigned, 109 more for a signature: 1,500 of them are too many only when signed.
        let coins = vec![(receive(0), COIN_SAT); 1_500];
        altered(Site::hot(), &Spend { coins, outputs: vec![Out::Pay(somebody(), 1_000_000)] }, |_| {})
    }),
    (TxSigned, "a script signature", || unsigned(|tx| tx.input[1].script_sig = ScriptBuf::from_bytes(vec![0x51]))),
    (TxSigned, "a witness", || unsigned(|tx| tx.input[0].witness = Witness::from_slice(&[[1u8; 64]]))),
    (TxLocktime, "past the policy's height", || {
        altered(Site::hot().rules(|r| r.max_locktime_height = Some(800_000)), &Spend::usual(), |p| {
            p.unsigned_tx.lock_time = LockTime::from_height(800_001).unwrap();
        })
    }),
    (TxLocktime, "a time stamp", || hot(|p| p.unsigned_tx.lock_time = LockTime::from_consensus(1_900_000_000))),
    (TxLocktime, "a relative lock time in blocks", || hot(|p| p.unsigned_tx.input[1].sequence = Sequence::from_height(1))),
    (TxLocktime, "a relative lock time in seconds", || hot(|p| p.unsigned_tx.input[0].sequence = Sequence::from_512_second_intervals(1))),
    (TxLocktime, "longer than the script asks for", || {
        let site = every_site().remove("seed p2wsh miniscript").unwrap().sequence(Sequence::from_height(145));
        altered(site, &Spend::usual(), |_| {})
    }),
    (AmountOutOfRange, "an output", || hot(|p| p.unsigned_tx.output[0].value = Amount::from_sat(MAX_MONEY_SAT + 1))),
    (AmountOutOfRange, "an output of 2^64 - 1", || hot(|p| p.unsigned_tx.output[1].value = Amount::from_sat(u64::MAX))),
    (AmountOutOfRange, "the outputs' sum", || {
        hot(|p| p.unsigned_tx.output.iter_mut().for_each(|o| o.value = Amount::from_sat(MAX_MONEY_SAT / 2 + 1)))
    }),
    (AmountOutOfRange, "an input", || {
        altered(Site::hot(), &Spend { coins: vec![(receive(0), MAX_MONEY_SAT + 1)], ..Spend::usual() }, |_| {})
    }),
    (AmountOutOfRange, "the inputs' sum", || {
        let coins = vec![(receive(0), MAX_MONEY_SAT / 2 + 1), (receive(1), MAX_MONEY_SAT / 2 + 1)];
        altered(Site::hot(), &Spend { coins, ..Spend::usual() }, |_| {})
    }),
    (AmountNegativeFee, "a satoshi too much", || altered(Site::hot(), &Spend::one(vec![Out::Pay(somebody(), COIN_SAT + 1)]), |_| {})),
    (PrevtxMissing, "with witness_utxo", || hot(|p| p.inputs[1].non_witness_utxo = None)),
    (PrevtxMissing, "without", || {
        hot(|p| {
            p.inputs[0].non_witness_utxo = None;
            p.inputs[0].witness_utxo = None;
        })
    }),
    (PrevtxMissing, "of ours, where foreign inputs are allowed", || foreign_allowed(|p| p.inputs[0].non_witness_utxo = None)),
    (PrevtxMissing, "P2TR beside another kind", || {
        let site = Site::seed("tr(KEY)").rules(|r| r.allow_foreign_inputs = true);
        let mut psbt = site.psbt(&Spend::usual());
        let theirs = Site::hsm("wpkh(KEY)").psbt(&Spend { coins: vec![(receive(0), COIN_SAT)], outputs: vec![] });
        psbt.unsigned_tx.input[1] = theirs.unsigned_tx.input[0].clone();
        psbt.inputs[1] = theirs.inputs[0].clone();
        psbt.inputs[0].non_witness_utxo = None;
        (site, psbt.serialize())
    }),
    (PrevtxMismatch, "another transaction", || {
        hot(|p| p.inputs[0].non_witness_utxo.as_mut().unwrap().lock_time = LockTime::from_consensus(1))
    }),
    (PrevtxMismatch, "a changed amount", || {
        hot(|p| {
            let previous = p.inputs[1].non_witness_utxo.as_mut().unwrap();
            previous.output[1].value += Amount::ONE_SAT;
            p.inputs[1].witness_utxo = Some(previous.output[1].clone());
        })
    }),
    (PrevtxMismatch, "the other input's", || {
        hot(|p| {
            let (first, second) = p.inputs.split_at_mut(1);
            std::mem::swap(&mut first[0].non_witness_utxo, &mut second[0].non_witness_utxo);
        })
    }),
    (PrevtxIndex, "past the last output", || hot(|p| p.unsigned_tx.input[0].previous_output.vout = 2)),
    (PrevtxIndex, "the highest there is", || hot(|p| p.unsigned_tx.input[0].previous_output.vout = u32::MAX)),
    (AmountConflict, "amount", || hot(|p| p.inputs[0].witness_utxo.as_mut().unwrap().value -= Amount::ONE_SAT)),
    (AmountConflict, "script", || hot(|p| p.inputs[1].witness_utxo.as_mut().unwrap().script_pubkey = somebody())),
    (AmountConflict, "P2TR", || taproot(|p| p.inputs[0].witness_utxo.as_mut().unwrap().value -= Amount::ONE_SAT)),
    (ForeignInput, "another's", || {
        let (site, bytes) = foreign_allowed(|_| {});
        (site.rules(|r| r.allow_foreign_inputs = false), bytes)
    }),
    (ForeignInput, "ours, past the gap", || {
        altered(Site::hot(), &Spend { coins: vec![(receive(20), COIN_SAT)], ..Spend::usual() }, |_| {})
    }),
    (ForeignInput, "ours, past the gap, where foreign inputs are allowed", || {
        let coins = vec![(receive(0), COIN_SAT), (receive(20), COIN_SAT)];
        altered(Site::hot().rules(|r| r.allow_foreign_inputs = true), &Spend { coins, ..Spend::usual() }, |_| {})
    }),
    (ForeignInputUnproven, "nothing given", || {
        foreign_allowed(|p| {
            p.inputs[1].non_witness_utxo = None;
            p.inputs[1].witness_utxo = None;
        })
    }),
    (ForeignInputUnproven, "a claim only", || foreign_allowed(|p| p.inputs[1].non_witness_utxo = None)),
    (NothingToSign, "all foreign", || {
        let site = Site::hot().rules(|r| r.allow_foreign_inputs = true);
        let bytes = Site::hsm("wpkh(KEY)").psbt(&Spend::single()).serialize();
        (site, bytes)
    }),
    (SighashForbidden, "NONE", || hot(|p| p.inputs[0].sighash_type = Some(EcdsaSighashType::None.into()))),
    (SighashForbidden, "SINGLE", || hot(|p| p.inputs[1].sighash_type = Some(EcdsaSighashType::Single.into()))),
    (SighashForbidden, "ALL with ANYONECANPAY", || hot(|p| p.inputs[0].sighash_type = Some(EcdsaSighashType::AllPlusAnyoneCanPay.into()))),
    (SighashForbidden, "DEFAULT outside Taproot", || hot(|p| p.inputs[0].sighash_type = Some(PsbtSighashType::from_u32(0)))),
    (SighashForbidden, "ALL in a high byte", || hot(|p| p.inputs[0].sighash_type = Some(PsbtSighashType::from_u32(0x0101)))),
    (SighashForbidden, "Taproot NONE", || taproot(|p| p.inputs[0].sighash_type = Some(TapSighashType::None.into()))),
    (ForeignSignatureSighash, "ECDSA", || {
        raw(|raw| raw.with(1, &[&[2], public("k").to_bytes().as_slice()].concat(), &[[0x30; 70].as_slice(), &[0x83]].concat()))
    }),
    (ForeignSignatureSighash, "key path", || {
        let (site, bytes) = taproot(|_| {});
        (site, bytes).into_same(|raw| raw.with(1, &[0x13], &[[7; 64].as_slice(), &[0x82]].concat()))
    }),
    (ForeignSignatureSighash, "script path", || {
        let (site, bytes) = taproot(|_| {});
        (site, bytes).into_same(|raw| raw.with(1, &[&[0x14], [7; 64].as_slice()].concat(), &[[7; 64].as_slice(), &[0x00]].concat()))
    }),
    (RedeemScriptMismatch, "another one", || {
        altered(Site::hsm("sh(wpkh(KEY))"), &Spend::single(), |p| p.inputs[0].redeem_script = Some(somebody()))
    }),
    (RedeemScriptMismatch, "where there is none", || hot(|p| p.inputs[1].redeem_script = Some(somebody()))),
    (RedeemScriptMismatch, "of a change output", || hot(|p| p.outputs[1].redeem_script = Some(somebody()))),
    (WitnessScriptMismatch, "another one", || {
        altered(Site::seed("wsh(sortedmulti(2,KEY,OTHER))"), &Spend::usual(), |p| {
            p.inputs[0].witness_script = p.inputs[1].witness_script.clone();
        })
    }),
    (WitnessScriptMismatch, "where there is none", || hot(|p| p.inputs[0].witness_script = Some(ScriptBuf::from_bytes(vec![0x51])))),
    (TaprootMismatch, "internal key", || taproot(|p| p.inputs[0].tap_internal_key = p.inputs[1].tap_internal_key)),
    (TaprootMismatch, "merkle root", || taproot(|p| p.inputs[0].tap_merkle_root = Some(bitcoin::TapNodeHash::assume_hidden([7; 32])))),
    (TaprootMismatch, "merkle root where there is no tree", || {
        altered(Site::seed("tr(KEY)"), &Spend::usual(), |p| {
            p.inputs[0].tap_merkle_root = Some(bitcoin::TapNodeHash::assume_hidden([7; 32]))
        })
    }),
    (TaprootMismatch, "a leaf that is not ours", || {
        taproot(|p| {
            let (block, _) = p.inputs[0].tap_scripts.pop_first().unwrap();
            p.inputs[0].tap_scripts.insert(block, (ScriptBuf::from_bytes(vec![0x51]), LeafVersion::TapScript));
        })
    }),
    (TaprootMismatch, "another parity", || {
        taproot(|p| {
            let (block, leaf) = p.inputs[0].tap_scripts.pop_first().unwrap();
            let other = ControlBlock { output_key_parity: block.output_key_parity ^ bitcoin::key::Parity::Odd, ..block };
            p.inputs[0].tap_scripts.insert(other, leaf);
        })
    }),
    (TaprootMismatch, "another internal key in a control block", || {
        taproot(|p| {
            let (block, leaf) = p.inputs[0].tap_scripts.pop_first().unwrap();
            let other = ControlBlock { internal_key: p.inputs[1].tap_internal_key.unwrap(), ..block };
            p.inputs[0].tap_scripts.insert(other, leaf);
        })
    }),
    (TaprootMismatch, "another path in the tree", || {
        taproot(|p| {
            let (block, leaf) = p.inputs[0].tap_scripts.pop_first().unwrap();
            let mut bytes = block.serialize();
            bytes.truncate(33);
            p.inputs[0].tap_scripts.insert(ControlBlock::decode(&bytes).unwrap(), leaf);
        })
    }),
    (TaprootMismatch, "a key's path", || {
        taproot(|p| {
            let internal = p.inputs[0].tap_internal_key.unwrap();
            p.inputs[0].tap_key_origins.get_mut(&internal).unwrap().1.1 = "m/84'/1'/0'/0/9".parse().unwrap();
        })
    }),
    (TaprootMismatch, "our fingerprint beside another's key", || {
        taproot(|p| {
            let internal = p.inputs[0].tap_internal_key.unwrap();
            let origin = p.inputs[0].tap_key_origins[&internal].clone();
            p.inputs[0].tap_key_origins.insert(public("k").inner.x_only_public_key().0, origin);
        })
    }),
    (TaprootMismatch, "Taproot fields on another kind of script", || hot(|p| p.inputs[0].tap_internal_key = Some(public("k").into()))),
    (AnnexForbidden, "in a final witness", || {
        taproot(|p| p.inputs[1].final_script_witness = Some(Witness::from_slice(&[[7u8; 64].as_slice(), &[0x50, 1]])))
    }),
    (InputFinal, "by its witness", || hot(|p| p.inputs[0].final_script_witness = Some(Witness::from_slice(&[[1]])))),
    (InputFinal, "by its script signature", || hot(|p| p.inputs[0].final_script_sig = Some(ScriptBuf::from_bytes(vec![0x51])))),
    (ChangeBeyondGap, "the first index past it", || {
        altered(Site::hot(), &Spend::one(vec![Out::Pay(somebody(), 500_000), Out::Own(change(20), 498_000)]), |_| {})
    }),
    (ChangeTooMany, "eleven", || altered(Site::hot(), &Spend::one((0..11).map(|n| Out::Own(change(n), 90_000)).collect()), |_| {})),
    (ChangeClaimFalse, "our origin, another's script", || hot(|p| p.outputs[0].bip32_derivation = p.outputs[1].bip32_derivation.clone())),
    (OutputScriptForbidden, "a bare script", || output_script(ScriptBuf::from_bytes(vec![0x51]))),
    (OutputScriptForbidden, "empty", || output_script(ScriptBuf::new())),
    (OutputScriptForbidden, "a bare key", || output_script(ScriptBuf::new_p2pk(&public("k")))),
    (OutputScriptForbidden, "a witness version that does not exist yet", || {
        output_script(ScriptBuf::from_bytes([&[0x52, 0x20], [7; 32].as_slice()].concat()))
    }),
    (OutputScriptForbidden, "pay to anchor", || output_script(ScriptBuf::from_bytes(vec![0x51, 0x02, 0x4e, 0x73]))),
    (OutputOpReturn, "not allowed", || op_return(Site::hot(), 20, 0)),
    (OutputOpReturn, "81 bytes", || op_return(Site::hot().rules(|r| r.allow_op_return = true), 81, 0)),
    (OutputOpReturn, "burns money", || op_return(Site::hot().rules(|r| r.allow_op_return = true), 20, 1_000)),
    (OutputDust, "a satoshi below", || {
        altered(Site::hot(), &Spend::one(vec![Out::Pay(somebody(), 293), Out::Own(change(0), 990_000)]), |_| {})
    }),
    (OutputDust, "nothing", || altered(Site::hot(), &Spend::one(vec![Out::Pay(somebody(), 0), Out::Own(change(0), 990_000)]), |_| {})),
    (OutputDust, "change", || altered(Site::hot(), &Spend::one(vec![Out::Pay(somebody(), 990_000), Out::Own(change(0), 293)]), |_| {})),
    (FeeAbsolute, "a satoshi over", || fee(|r| r.fee.max_sat = Some(1_999))),
    (FeeRate, "over", || fee(|r| r.fee.max_rate_sat_per_kvb = Some(5_000))),
    (FeeShare, "over", || fee(|r| r.fee.max_share_ppm = Some(1_300))),
    (FeeShare, "nothing is paid", || {
        altered(Site::hot().rules(|r| r.fee.max_share_ppm = Some(1_000_000)), &Spend::one(vec![Out::Own(change(0), 999_999)]), |_| {})
    }),
];

trait IntoSame {
    fn into_same(self, change: impl FnOnce(Raw) -> Raw) -> Self;
}

impl IntoSame for (Site, Vec<u8>) {
    /// The same bytes, changed field by field.
    fn into_same(self, change: impl FnOnce(Raw) -> Raw) -> Self {
        (self.0, change(Raw::read(&self.1)).bytes())
    }
}

#[test]
fn every_case_is_refused_for_its_own_reason() {
    for (code, what, case) in CASES {
        let (site, bytes) = case();
        let refusal = analyze(&site.wallet, &site.rules, &bytes).expect_err(&format!("{code} ({what}) is signed"));
        assert_eq!(refusal.code, *code, "{what}: {refusal}");
        assert_eq!(refusal.kind, code.kind());
        assert!(refusal.message.as_ref().is_some_and(|m| m.len() > 20), "{what}: the message says too little: {refusal}");
    }
}

#[test]
fn the_refusals_of_inputs_and_outputs_say_which() {
    let about_inputs = [
        PrevtxMissing,
        PrevtxMismatch,
        PrevtxIndex,
        AmountConflict,
        ForeignInput,
        ForeignInputUnproven,
        SighashForbidden,
        ForeignSignatureSighash,
        TaprootMismatch,
        AnnexForbidden,
        InputFinal,
        TxSigned,
        TxDuplicateOutpoint,
        TxCoinbasePrevout,
    ];
    let about_outputs = [ChangeBeyondGap, ChangeClaimFalse, OutputScriptForbidden, OutputOpReturn, OutputDust];
    for (code, what, case) in CASES {
        let (site, bytes) = case();
        let message = analyze(&site.wallet, &site.rules, &bytes).unwrap_err().message.unwrap();
        // A witness in the unsigned transaction is none of one input.
        if about_inputs.contains(code) && *what != "a witness" {
            assert!(message.contains("input 0") || message.contains("input 1"), "{code} ({what}): {message}");
        }
        if about_outputs.contains(code) {
            assert!(message.contains("output 0") || message.contains("output 1"), "{code} ({what}): {message}");
        }
    }
}

#[test]
fn no_refusal_of_the_analysis_is_without_a_case() {
    let section = RefusalCode::ALL.iter().skip_while(|code| **code != PsbtTooLarge).take_while(|code| **code != DestinationForbidden);
    let missing: Vec<_> = section.filter(|code| !CASES.iter().any(|(covered, ..)| covered == *code)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn what_the_cases_change_is_good_without_the_change() {
    let good = |site: Site, bytes: Vec<u8>| analyze(&site.wallet, &site.rules, &bytes).map(|_| ()).map_err(|e| e.to_string());
    for (site, bytes) in [
        hot(|_| {}),
        raw(|raw| raw.with(0, &[0xfb], &[0; 4]).with(1, &[0xf0, 1], &[2]).with(2, &[0xfc, 1, 7], &[])),
        taproot(|_| {}),
        foreign_allowed(|_| {}),
        unsigned(|tx| tx.version = Version::ONE),
        unsigned(|tx| tx.version = Version(3)),
        op_return(Site::hot().rules(|r| r.allow_op_return = true), 80, 0),
        altered(Site::hot().rules(|r| r.max_locktime_height = Some(800_000)), &Spend::usual(), |p| {
            p.unsigned_tx.lock_time = LockTime::from_height(800_000).unwrap();
        }),
        hot(|p| p.inputs[0].sighash_type = Some(EcdsaSighashType::All.into())),
        raw(|raw| raw.with(1, &[&[2], public("k").to_bytes().as_slice()].concat(), &[[0x30; 70].as_slice(), &[0x01]].concat())),
        altered(Site::hot(), &Spend::one(vec![Out::Pay(somebody(), 294), Out::Own(change(19), 990_000)]), |_| {}),
        altered(Site::hot(), &Spend::one((0..10).map(|n| Out::Own(change(n), 90_000)).collect()), |_| {}),
        fee(|r| r.fee.max_sat = Some(2_000)),
        fee(|r| r.fee.max_share_ppm = Some(1_334)),
        hot(|p| p.unsigned_tx.input[0].sequence = Sequence::ZERO),
    ] {
        assert_eq!(good(site, bytes), Ok(()));
    }
}
