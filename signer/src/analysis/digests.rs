//! What is signed: hashes over the whole transaction and our own scripts, never over scripts from the request.

use bitcoin::{
    EcdsaSighashType, TapLeafHash, TapSighashType, Transaction, TxOut,
    hashes::Hash as _,
    sighash::{Prevouts, SighashCache},
};
use postern_protocol::refusal::{Refusal, RefusalCode};

use super::{SIGHASH_ALL, Scheme, SigningTask, inputs::Inputs, psbt::Psbt};
use crate::wallet::{KeyRef, OwnScript, SpendScript};

/// One task for each key of ours that can sign an input: all keys of an ECDSA script; for Taproot the key path where its key
/// is ours, else each leaf with each key of ours in it.
pub(super) fn tasks(psbt: &Psbt<'_>, inputs: &Inputs<'_>) -> Result<Vec<SigningTask>, Refusal> {
    let mut cache = SighashCache::new(&psbt.transaction);
    let taproot = inputs.own.iter().flatten().any(|own| matches!(own.spend, SpendScript::Taproot { .. }));
    let prevouts: Vec<TxOut> = if taproot {
        inputs.spent.iter().map(|spent| TxOut { value: spent.value, script_pubkey: spent.script.to_owned() }).collect()
    } else {
        Vec::new()
    };
    let mut tasks = Vec::with_capacity(inputs.own.len());
    for (number, ((own, spent), fields)) in inputs.own.iter().zip(&inputs.spent).zip(&psbt.inputs).enumerate() {
        let Some(own) = own else { continue };
        let input = u32::try_from(number).unwrap_or(u32::MAX);
        let sighash_byte = match own.spend {
            SpendScript::Taproot { .. } => fields.sighash.filter(|sighash| *sighash != 0).map(|_| SIGHASH_ALL),
            _ => Some(SIGHASH_ALL),
        };
        let digests = Digests { cache: &mut cache, number, prevouts: &prevouts, by_name: sighash_byte.is_some() };
        for (key, digest, scheme) in digests.of(own, spent.value).map_err(|reason| impossible(number, reason))? {
            tasks.push(SigningTask { input, key, digest, scheme, sighash_byte });
        }
    }
    Ok(tasks)
}

/// The index is in range and the scripts are ours, so rust-bitcoin has no reason to refuse.
fn impossible(number: usize, reason: String) -> Refusal {
    Refusal::new(RefusalCode::PsbtMalformed, format!("input {number}: no signature hash: {reason}"))
}

struct Digests<'c, 't> {
    cache: &'c mut SighashCache<&'t Transaction>,
    number: usize,
    prevouts: &'c [TxOut],
    /// Taproot: ALL, not DEFAULT.
    by_name: bool,
}

impl Digests<'_, '_> {
    fn of(self, own: &OwnScript, value: bitcoin::Amount) -> Result<Vec<(KeyRef, [u8; 32], Scheme)>, String> {
        let Self { cache, number, prevouts, by_name } = self;
        let all = EcdsaSighashType::All;
        let script = &own.script_pubkey;
        let digest = match &own.spend {
            SpendScript::P2pkh => cache.legacy_signature_hash(number, script, all.to_u32()).map_err(|e| e.to_string())?.to_byte_array(),
            SpendScript::P2wpkh => cache.p2wpkh_signature_hash(number, script, value, all).map_err(|e| e.to_string())?.to_byte_array(),
            SpendScript::P2shP2wpkh { redeem_script } => {
                cache.p2wpkh_signature_hash(number, redeem_script, value, all).map_err(|e| e.to_string())?.to_byte_array()
            }
            SpendScript::P2wsh { witness_script } => {
                cache.p2wsh_signature_hash(number, witness_script, value, all).map_err(|e| e.to_string())?.to_byte_array()
            }
            SpendScript::Taproot { merkle_root, key_path, leaves, .. } => {
                let prevouts = Prevouts::All(prevouts);
                let sighash = if by_name { TapSighashType::All } else { TapSighashType::Default };
                let mut hash = |leaf: Option<TapLeafHash>| {
                    let leaf = leaf.map(|leaf| (leaf, u32::MAX));
                    let hash = cache.taproot_signature_hash(number, &prevouts, None, leaf, sighash);
                    hash.map(|hash| hash.to_byte_array()).map_err(|e| e.to_string())
                };
                if let Some(key) = key_path {
                    return Ok(vec![(key.clone(), hash(None)?, Scheme::SchnorrKeyPath { merkle_root: *merkle_root })]);
                }
                let mut all = Vec::new();
                for leaf in leaves {
                    let leaf_hash = TapLeafHash::from_script(&leaf.script, leaf.version);
                    let digest = hash(Some(leaf_hash))?;
                    all.extend(leaf.keys.iter().map(|key| (key.clone(), digest, Scheme::SchnorrLeaf { leaf: leaf_hash })));
                }
                return Ok(all);
            }
        };
        Ok(own.keys.iter().map(|key| (key.clone(), digest, Scheme::Ecdsa)).collect())
    }
}
