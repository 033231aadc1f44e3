//! Random payments: which coins, to whom, how much comes back, and which of the optional fields are there.

use bitcoin::{Psbt, ScriptBuf, Sequence, TapSighashType, absolute::LockTime, psbt::PsbtSighashType, transaction::Version};
use miniscript::{DefiniteDescriptorKey, Descriptor};
use postern_testkit::spend::{self, Coin, Output};
use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};

/// What is put together, and what of it is change.
pub(crate) struct Payment {
    pub(crate) psbt: Psbt,
    /// Indices of outputs to the change branch.
    pub(crate) change: Vec<u32>,
}

/// Where a wallet's own outputs go.
pub(crate) trait Own {
    /// The script at branch and index.
    fn at(&self, branch: u32, index: u32) -> Descriptor<DefiniteDescriptorKey>;
    /// Change goes to this branch; a wallet of one address has only branch 0.
    fn change_branch(&self) -> u32;
    /// The sequence that its scripts want.
    fn sequence(&self) -> Option<Sequence>;
}

/// Smallest output that is relayed, whatever its script.
const DUST_SAT: u64 = 546;

fn somebody(rng: &mut StdRng) -> ScriptBuf {
    let hash: [u8; 20] = rng.r#gen();
    let long: [u8; 32] = rng.r#gen();
    // The x of a point on the curve, so that the output is no burnt coin to any checker.
    let x =
        bitcoin::secp256k1::SecretKey::from_slice(&long).unwrap().x_only_public_key(&bitcoin::secp256k1::Secp256k1::new()).0.serialize();
    ScriptBuf::from_bytes(match rng.gen_range(0..5) {
        0 => [&[0x00, 0x14][..], &hash].concat(),
        1 => [&[0x00, 0x20][..], &long].concat(),
        2 => [&[0x51, 0x20][..], &x].concat(),
        3 => [&[0xa9, 0x14][..], &hash, &[0x87]].concat(),
        _ => [&[0x76, 0xa9, 0x14][..], &hash, &[0x88, 0xac]].concat(),
    })
}

/// A payment from some of these coins.
pub(crate) fn payment(rng: &mut StdRng, own: &impl Own, coins: &[Coin], indices: u32) -> Payment {
    let count = rng.gen_range(1..=coins.len().min(6));
    let mut coins: Vec<Coin> = coins.choose_multiple(rng, count).cloned().collect();
    for coin in &mut coins {
        coin.sequence = own.sequence().unwrap_or(if rng.gen_bool(0.8) { Sequence::ENABLE_RBF_NO_LOCKTIME } else { Sequence::MAX });
    }
    let total: u64 = coins.iter().map(|c| c.value().to_sat()).sum();
    // Between one and some forty sat/vB, for inputs of up to 150 vB.
    let fee = rng.gen_range(200..2_000) * (count as u64 + 6) / 4 + 160 * count as u64;
    let mut left = total.saturating_sub(fee);
    let mut outputs = Vec::new();
    let wanted = rng.gen_range(1..=7);
    while outputs.len() < wanted && left > 4 * DUST_SAT {
        let sat = if outputs.len() + 1 == wanted { left } else { rng.gen_range(DUST_SAT..left / 2) };
        left -= sat;
        let branch = rng.gen_range(0..3);
        outputs.push(match branch {
            0 => Output::Pay(somebody(rng), sat),
            1 => Output::Own(Box::new(own.at(own.change_branch(), rng.gen_range(0..indices))), sat),
            _ if own.change_branch() == 1 && rng.gen_bool(0.3) => Output::Own(Box::new(own.at(0, rng.gen_range(0..indices))), sat),
            _ => Output::Pay(somebody(rng), sat),
        });
    }
    outputs.shuffle(rng);
    let mut psbt = spend::psbt(&coins, &outputs).unwrap();
    let scripts: Vec<ScriptBuf> = (0..indices).map(|index| own.at(own.change_branch(), index).script_pubkey()).collect();
    let change = (0..).zip(&psbt.unsigned_tx.output).filter(|(_, o)| scripts.contains(&o.script_pubkey)).map(|(n, _)| n).collect();
    if own.sequence().is_none() && rng.gen_bool(0.1) {
        psbt.unsigned_tx.version = Version::ONE;
    }
    if rng.gen_bool(0.2) {
        psbt.unsigned_tx.lock_time = LockTime::from_height(rng.gen_range(0..100)).unwrap();
    }
    thin_out(rng, &mut psbt);
    Payment { psbt, change }
}

/// Takes away what the signer does not need. Finalisers need scripts, so those stay in inputs.
fn thin_out(rng: &mut StdRng, psbt: &mut Psbt) {
    let all_taproot = psbt.inputs.iter().all(|i| i.witness_utxo.as_ref().is_some_and(|o| o.script_pubkey.is_p2tr()));
    for input in &mut psbt.inputs {
        if all_taproot && rng.gen_bool(0.5) {
            input.non_witness_utxo = None;
        } else if rng.gen_bool(0.3) && !all_taproot {
            input.witness_utxo = None;
        }
        if rng.gen_bool(0.3) {
            input.bip32_derivation.clear();
        }
        if rng.gen_bool(0.3) {
            input.tap_key_origins.clear();
        }
        if rng.gen_bool(0.3) {
            let taproot = input.witness_utxo.as_ref().is_some_and(|o| o.script_pubkey.is_p2tr());
            let all = if taproot { PsbtSighashType::from(TapSighashType::All) } else { bitcoin::EcdsaSighashType::All.into() };
            input.sighash_type = Some(all);
        }
    }
    for output in &mut psbt.outputs {
        if rng.gen_bool(0.3) {
            *output = bitcoin::psbt::Output::default();
        }
    }
}
