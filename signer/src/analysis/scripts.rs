//! Scripts and Taproot data in the PSBT equal those that we derive. We sign over ours; a difference is a sign of fraud.

use bitcoin::{
    Script, TapLeafHash, TapNodeHash, XOnlyPublicKey,
    key::Parity,
    taproot::{LeafVersion, TAPROOT_LEAF_TAPSCRIPT},
};
use postern_protocol::refusal::{Refusal, RefusalCode};

use super::{
    psbt::{InputFields, KeyOrigin, OutputFields},
    refuse,
};
use crate::wallet::{KeyLocator, KeyRef, OwnScript, SpendScript, Wallet};

/// Checks what an input of ours claims.
pub(super) fn check_input(number: usize, wallet: &Wallet, fields: &InputFields<'_>, own: &OwnScript) -> Result<(), Refusal> {
    let place = format_args!("input {number}");
    check_redeem_script(place, fields.redeem_script, own)?;
    check_witness_script(place, fields.witness_script, own)?;
    if fields.has_taproot { check_taproot(number, wallet, fields, own) } else { Ok(()) }
}

/// Checks what an output of ours claims.
pub(super) fn check_output(number: usize, fields: &OutputFields<'_>, own: &OwnScript) -> Result<(), Refusal> {
    let place = format_args!("output {number}");
    check_redeem_script(place, fields.redeem_script, own)?;
    check_witness_script(place, fields.witness_script, own)?;
    let internal_key = match &own.spend {
        SpendScript::Taproot { internal_key, .. } => Some(internal_key.serialize()),
        _ => None,
    };
    match fields.tap_internal_key {
        Some(given) if internal_key.as_ref().map(<[u8; 32]>::as_slice) != Some(given) => {
            refuse(RefusalCode::TaprootMismatch, format!("{place}: the internal key is not the one that the descriptor derives"))
        }
        _ => Ok(()),
    }
}

fn check_redeem_script(place: std::fmt::Arguments<'_>, given: Option<&Script>, own: &OwnScript) -> Result<(), Refusal> {
    let derived = match &own.spend {
        SpendScript::P2shP2wpkh { redeem_script } => Some(redeem_script.as_script()),
        _ => None,
    };
    if given.is_none() || given == derived {
        return Ok(());
    }
    refuse(
        RefusalCode::RedeemScriptMismatch,
        format!("{place}: the redeem script is not the one that the descriptor derives at {}", own.position),
    )
}

fn check_witness_script(place: std::fmt::Arguments<'_>, given: Option<&Script>, own: &OwnScript) -> Result<(), Refusal> {
    let derived = match &own.spend {
        SpendScript::P2wsh { witness_script } => Some(witness_script.as_script()),
        _ => None,
    };
    if given.is_none() || given == derived {
        return Ok(());
    }
    refuse(
        RefusalCode::WitnessScriptMismatch,
        format!("{place}: the witness script is not the one that the descriptor derives at {}", own.position),
    )
}

fn check_taproot(number: usize, wallet: &Wallet, fields: &InputFields<'_>, own: &OwnScript) -> Result<(), Refusal> {
    let mismatch = |what: &str| {
        refuse(
            RefusalCode::TaprootMismatch,
            format!("input {number}: {what} is not the one that the descriptor derives at {}", own.position),
        )
    };
    let SpendScript::Taproot { internal_key, output_key_parity, merkle_root, leaves, .. } = &own.spend else {
        return refuse(RefusalCode::TaprootMismatch, format!("input {number} has Taproot fields, and our script there is not Taproot"));
    };
    if fields.tap_internal_key.is_some_and(|given| given != internal_key.serialize()) {
        return mismatch("the internal key");
    }
    if fields.tap_merkle_root.is_some_and(|given| merkle_root.is_none_or(|root| given != AsRef::<[u8; 32]>::as_ref(&root))) {
        return mismatch("the merkle root");
    }
    for (control_block, leaf) in fields.leaf_scripts() {
        if !is_our_leaf(control_block, leaf, internal_key, *output_key_parity, *merkle_root) {
            return mismatch("a leaf's script or control block");
        }
    }
    for origin in fields.tap_key_origins() {
        let ours = own.keys.iter().find(|key| XOnlyPublicKey::from(key.public_key.inner).serialize() == origin.key);
        let good = match ours {
            Some(key) => {
                let claim = wallet.claim(origin.key, origin.fingerprint, &origin.path());
                claim.ours && is_path_of(key, &origin) && leaf_hashes_are_ours(&origin, key, leaves)
            }
            None => !wallet.claim(origin.key, origin.fingerprint, &origin.path()).ours,
        };
        if !good {
            return mismatch("a key's origin");
        }
    }
    Ok(())
}

/// Whether a leaf stands in our tree: its hash and its path lead to our root (BIP 341).
fn is_our_leaf(control_block: &[u8], leaf: &[u8], internal_key: &XOnlyPublicKey, parity: Parity, root: Option<TapNodeHash>) -> bool {
    let Some((version, script)) = leaf.split_last() else { return false };
    let Some((first, rest)) = control_block.split_first() else { return false };
    let Some((key, path)) = rest.split_first_chunk::<32>() else { return false };
    let parity_bit = match parity {
        Parity::Even => 0,
        Parity::Odd => 1,
    };
    if *version != TAPROOT_LEAF_TAPSCRIPT || *first != TAPROOT_LEAF_TAPSCRIPT | parity_bit || *key != internal_key.serialize() {
        return false;
    }
    let (steps, odd) = path.as_chunks::<32>();
    let leaf = TapNodeHash::from(TapLeafHash::from_script(Script::from_bytes(script), LeafVersion::TapScript));
    let found = steps.iter().fold(leaf, |node, step| TapNodeHash::from_node_hashes(node, TapNodeHash::assume_hidden(*step)));
    odd.is_empty() && root == Some(found)
}

fn is_path_of(key: &KeyRef, origin: &KeyOrigin<'_>) -> bool {
    matches!(&key.locator, KeyLocator::Seed(path) if path.as_ref() == origin.path().as_slice())
}

/// Whether each leaf that the key is said to sign is one of ours that holds it.
fn leaf_hashes_are_ours(origin: &KeyOrigin<'_>, key: &KeyRef, leaves: &[crate::wallet::TapLeaf]) -> bool {
    let (hashes, _) = origin.leaf_hashes.as_chunks::<32>();
    hashes.iter().all(|hash| {
        let mut holding = leaves.iter().filter(|leaf| leaf.keys.contains(key));
        holding.any(|leaf| AsRef::<[u8; 32]>::as_ref(&TapLeafHash::from_script(&leaf.script, leaf.version)) == hash)
    })
}
