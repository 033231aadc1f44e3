//! Refused for what comes in: amounts that are not proven, scripts that are not ours, signatures that say too little.

use bitcoin::{Amount, EcdsaSighashType, OutPoint, ScriptBuf, Witness, absolute::LockTime, ecdsa, hashes::Hash as _, secp256k1};
use postern_protocol::refusal::RefusalCode::{self, *};
use postern_testkit::spend::{self, Output};

use super::{Case, World, somebody};

pub(super) const CASES: &[Case] = &[
    case(PrevtxMissing, "hot", |w| w.changed("hot", |p| p.inputs[0].non_witness_utxo = None)),
    case(PrevtxMismatch, "hot", |w| {
        w.changed("hot", |p| {
            if let Some(previous) = &mut p.inputs[0].non_witness_utxo {
                previous.lock_time = LockTime::from_consensus(1);
            }
        })
    }),
    case(PrevtxIndex, "hot", |w| {
        let mut psbt = w.payment()?;
        let OutPoint { txid, .. } = psbt.unsigned_tx.input[0].previous_output;
        psbt.unsigned_tx.input[0].previous_output = OutPoint { txid, vout: 99 };
        Ok(psbt.serialize())
    }),
    // The amount of BIP 143: two requests, each with a lie about the other's input, would burn the difference as fee.
    case(AmountConflict, "hot", |w| {
        w.changed("hot", |p| {
            if let Some(output) = &mut p.inputs[0].witness_utxo {
                output.value += Amount::ONE_SAT;
            }
        })
    }),
    case(ForeignInput, "hot", |w| {
        let (own, foreign) = (w.coin("hot")?, w.coin("nested")?);
        Ok(spend::psbt(&[own, foreign], &[Output::Pay(somebody(), 1_000_000)])?.serialize())
    }),
    case(NothingToSign, "joint", |w| {
        let foreign = w.coin("hot")?;
        Ok(spend::psbt(&[foreign], &[Output::Pay(somebody(), 299_000)])?.serialize())
    }),
    case(ForeignInputUnproven, "joint", |w| {
        let (own, foreign) = (w.coin("joint")?, w.coin("hot")?);
        let mut psbt = spend::psbt(&[own, foreign], &[Output::Pay(somebody(), 1_000_000)])?;
        psbt.inputs[1].non_witness_utxo = None;
        psbt.inputs[1].witness_utxo = None;
        Ok(psbt.serialize())
    }),
    case(SighashForbidden, "hot", |w| w.changed("hot", |p| p.inputs[0].sighash_type = Some(EcdsaSighashType::None.into()))),
    case(ForeignSignatureSighash, "multisig", |w| {
        w.changed("multisig", |p| {
            let secp = secp256k1::Secp256k1::signing_only();
            let key = secp256k1::SecretKey::from_slice(&[9; 32]).unwrap();
            let digest = bitcoin::hashes::sha256::Hash::hash(b"anything").to_byte_array();
            let signature = secp.sign_ecdsa(&secp256k1::Message::from_digest(digest), &key);
            let other = *p.inputs[0].bip32_derivation.keys().last().unwrap();
            let sighash_type = EcdsaSighashType::SinglePlusAnyoneCanPay;
            p.inputs[0].partial_sigs.insert(other.into(), ecdsa::Signature { signature, sighash_type });
        })
    }),
    case(RedeemScriptMismatch, "nested", |w| w.changed("nested", |p| p.inputs[0].redeem_script = Some(ScriptBuf::from_bytes(vec![0x51])))),
    case(WitnessScriptMismatch, "multisig", |w| {
        w.changed("multisig", |p| p.inputs[0].witness_script = Some(ScriptBuf::from_bytes(vec![0x51])))
    }),
    case(TaprootMismatch, "taproot", |w| {
        w.changed("taproot", |p| {
            let other = secp256k1::Keypair::from_seckey_slice(&secp256k1::Secp256k1::signing_only(), &[7; 32]).unwrap();
            p.inputs[0].tap_internal_key = Some(other.x_only_public_key().0);
        })
    }),
    case(AnnexForbidden, "taproot", |w| {
        w.changed("taproot", |p| p.inputs[0].final_script_witness = Some(Witness::from_slice(&[[1, 1], [0x50, 1]])))
    }),
    case(InputFinal, "hot", |w| w.changed("hot", |p| p.inputs[0].final_script_witness = Some(Witness::from_slice(&[[1]])))),
];

const fn case(code: RefusalCode, wallet: &'static str, psbt: fn(&World) -> anyhow::Result<Vec<u8>>) -> Case {
    Case { code, wallet, psbt }
}
