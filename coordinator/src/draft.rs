//! Transactions to be signed: exact arithmetic, and PSBTs (BIP 174, version 0) that hold all a signer needs to believe them. Pure.

mod combine;
mod selection;

use bitcoin::{Amount, OutPoint, Psbt, ScriptBuf, Transaction, TxIn, TxOut, Txid, consensus::encode, transaction::Version};
use miniscript::psbt::PsbtExt as _;

pub use combine::{CombineError, accept, finalise};
pub use selection::{Selected, SelectionError, select};

use crate::{
    config::FeeRate,
    store::{Coin, OwnScript},
    wallet::{SpendShape, Wallet, WalletError},
};

/// Weight of version, lock time, and the segwit marker and flag.
const BASE_WU: u64 = 8 * 4 + 2;
/// Weight of outpoint, empty script and sequence.
const INPUT_WU: u64 = 41 * 4;
/// Relay wants each replacement to pay for its own way at this rate (Bitcoin Core's `-incrementalrelayfee`).
const INCREMENTAL: FeeRate = FeeRate::from_sat_per_kvb(1_000);

/// An output that is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// For this order.
    pub order: String,
    /// To this script.
    pub script: ScriptBuf,
    /// So much.
    pub amount_sat: u64,
}

/// Everything that a transaction of a family is made of.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    /// Pays from.
    pub wallet: &'a Wallet,
    /// Spends these, the family's anchor among them.
    pub coins: &'a [Coin],
    /// Pays these, in this order.
    pub payments: &'a [Payment],
    /// What is left goes here.
    pub change: &'a OwnScript,
    /// At this rate.
    pub rate: FeeRate,
    /// And at least this fee.
    pub min_fee_sat: u64,
}

/// A transaction to be signed.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// With everything signers need.
    pub psbt: Psbt,
    /// What the inputs are worth more than the outputs.
    pub fee_sat: u64,
    /// Upper bound of the signed weight.
    pub weight_wu: u64,
    /// Orders and the outputs that pay them.
    pub pays: Vec<(String, u32)>,
}

/// Why a transaction cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// The coins do not reach.
    #[error("{missing_sat} sat are missing")]
    Short {
        /// How much is missing.
        missing_sat: u64,
    },
    /// Sums over all bitcoin there will be.
    #[error("the amounts overflow")]
    Overflow,
    /// A script cannot be derived.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// A coin's transaction is not the one it names.
    #[error("the stored transaction of {0} is not the one that made it")]
    Previous(OutPoint),
    /// A descriptor does not give the script that a coin or change has.
    #[error("the descriptor does not give the script of {0}")]
    Script(String),
    /// Not a transaction.
    #[error("PSBT: {0}")]
    Psbt(#[from] bitcoin::psbt::Error),
}

fn compact_size_wu(n: usize) -> u64 {
    if n < 0xfd { 4 } else { 12 }
}

/// Upper bound of a signed transaction's weight.
#[must_use]
pub fn weight_wu(shape: &SpendShape, inputs: usize, output_scripts: &[&ScriptBuf]) -> u64 {
    let input_wu = INPUT_WU.saturating_add(shape.satisfaction_wu).saturating_add(u64::from(shape.segwit));
    let outputs_wu: u64 = output_scripts
        .iter()
        .map(|script| TxOut { value: Amount::ZERO, script_pubkey: (*script).clone() }.weight().to_wu())
        .fold(0, u64::saturating_add);
    BASE_WU
        .saturating_add(compact_size_wu(inputs))
        .saturating_add(compact_size_wu(output_scripts.len()))
        .saturating_add(input_wu.saturating_mul(u64::try_from(inputs).unwrap_or(u64::MAX)))
        .saturating_add(outputs_wu)
}

/// What a replacement of a transaction has to pay at least (BIP 125, rule 4), with room for its own size.
#[must_use]
pub fn replacement_fee_sat(old_fee_sat: u64, weight_wu: u64) -> u64 {
    old_fee_sat.saturating_add(INCREMENTAL.fee_sat(weight_wu))
}

fn sum(values: impl IntoIterator<Item = u64>) -> Option<u64> {
    values.into_iter().try_fold(0_u64, u64::checked_add).filter(|sum| *sum <= postern_protocol::units::MAX_MONEY_SAT)
}

/// Fee and change of a draft; change is none where it would be dust.
fn settle(draft: &Draft<'_>) -> Result<(u64, Option<u64>, u64), DraftError> {
    let shape = draft.wallet.shape();
    let coins_sat = sum(draft.coins.iter().map(|c| c.value_sat)).ok_or(DraftError::Overflow)?;
    let paid_sat = sum(draft.payments.iter().map(|p| p.amount_sat)).ok_or(DraftError::Overflow)?;
    let bare: Vec<&ScriptBuf> = draft.payments.iter().map(|p| &p.script).collect();
    let with: Vec<&ScriptBuf> = bare.iter().copied().chain([&draft.change.script]).collect();
    let fee_of = |weight| draft.rate.fee_sat(weight).max(draft.min_fee_sat);
    let with_wu = weight_wu(&shape, draft.coins.len(), &with);
    let left = coins_sat.checked_sub(paid_sat).and_then(|left| left.checked_sub(fee_of(with_wu)));
    let dust = draft.change.script.minimal_non_dust().to_sat();
    if let Some(change_sat) = left.filter(|left| *left >= dust) {
        return Ok((fee_of(with_wu), Some(change_sat), with_wu));
    }
    let bare_wu = weight_wu(&shape, draft.coins.len(), &bare);
    let needed = paid_sat.checked_add(fee_of(bare_wu)).ok_or(DraftError::Overflow)?;
    let missing_sat = needed.saturating_sub(coins_sat);
    // A transaction without any output is none.
    if missing_sat > 0 || bare.is_empty() {
        return Err(DraftError::Short { missing_sat: missing_sat.max(1) });
    }
    Ok((coins_sat.saturating_sub(paid_sat), None, bare_wu))
}

/// The whole transaction that made a coin, checked to be that.
fn previous(coin: &Coin) -> Result<Transaction, DraftError> {
    let wrong = || DraftError::Previous(coin.outpoint);
    let transaction: Transaction = encode::deserialize(&coin.transaction).map_err(|_| wrong())?;
    let output = usize::try_from(coin.outpoint.vout).ok().and_then(|vout| transaction.output.get(vout));
    let same = transaction.compute_txid() == coin.outpoint.txid && output.is_some_and(|o| o.value.to_sat() == coin.value_sat);
    if same { Ok(transaction) } else { Err(wrong()) }
}

/// Makes the transaction with its PSBT: full previous transactions, scripts and derivations for each input, and for the change.
///
/// # Errors
/// [`DraftError`].
pub fn assemble(draft: &Draft<'_>) -> Result<Assembled, DraftError> {
    let shape = draft.wallet.shape();
    let (fee_sat, change_sat, weight_wu) = settle(draft)?;
    let mut output: Vec<TxOut> =
        draft.payments.iter().map(|p| TxOut { value: Amount::from_sat(p.amount_sat), script_pubkey: p.script.clone() }).collect();
    let change_at = change_sat.map(|sat| {
        output.push(TxOut { value: Amount::from_sat(sat), script_pubkey: draft.change.script.clone() });
        output.len().saturating_sub(1)
    });
    let input = draft.coins.iter().map(|c| TxIn { previous_output: c.outpoint, sequence: shape.sequence, ..TxIn::default() }).collect();
    let mut psbt = Psbt::from_unsigned_tx(Transaction { version: Version::TWO, lock_time: shape.lock_time, input, output })?;
    for (index, coin) in draft.coins.iter().enumerate() {
        fill_input(&mut psbt, index, draft.wallet, coin)?;
    }
    if let Some(index) = change_at {
        let change = draft.change;
        let descriptor = draft.wallet.at(change.branch, change.index, change.public_key.as_deref())?;
        psbt.update_output_with_descriptor(index, &descriptor).map_err(|_| DraftError::Script("the change".into()))?;
    }
    let pays = draft
        .payments
        .iter()
        .enumerate()
        .map(|(vout, p)| Ok((p.order.clone(), u32::try_from(vout).map_err(|_| DraftError::Overflow)?)))
        .collect::<Result<_, DraftError>>()?;
    Ok(Assembled { psbt, fee_sat, weight_wu, pays })
}

fn fill_input(psbt: &mut Psbt, index: usize, wallet: &Wallet, coin: &Coin) -> Result<(), DraftError> {
    let wrong = || DraftError::Script(coin.outpoint.to_string());
    let transaction = previous(coin)?;
    let descriptor = wallet.at(coin.branch, coin.index, coin.public_key.as_deref())?;
    let field = psbt.inputs.get_mut(index).ok_or_else(wrong)?;
    if wallet.shape().segwit {
        field.witness_utxo = usize::try_from(coin.outpoint.vout).ok().and_then(|vout| transaction.output.get(vout)).cloned();
    }
    field.non_witness_utxo = Some(transaction);
    psbt.update_input_with_descriptor(index, &descriptor).map_err(|_| wrong())
}

impl Assembled {
    /// As the store keeps it.
    #[must_use]
    pub fn into_member(self, at: i64) -> crate::store::NewMember {
        let unsigned_txid: Txid = self.psbt.unsigned_tx.compute_txid();
        crate::store::NewMember {
            psbt: self.psbt.serialize(),
            unsigned_txid,
            fee_sat: self.fee_sat,
            weight_wu: self.weight_wu,
            pays: self.pays,
            at,
        }
    }
}

#[cfg(test)]
mod tests;
