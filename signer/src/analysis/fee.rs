//! The fee, and its caps.

use postern_protocol::{
    refusal::{Refusal, RefusalCode},
    units::format_amount_sat,
};

use super::{inputs::Inputs, outputs::Outputs, refuse, shape::SignedWeight};
use crate::policy::rules::FeeCaps;

/// Nodes relay nothing below this, in satoshi per 1,000 virtual bytes (`minrelaytxfee` of Bitcoin Core 30; earlier ones ask for more).
const RELAY_FEE_SAT_PER_KVB: u64 = 100;

/// The least fee at which a transaction is relayed, by the least that it can weigh (others' inputs not counted). Every entry
/// in the ledger costs at least as much, or whoever holds the gate could fill the disk for nothing.
pub(super) fn relay_fee_sat(weight: SignedWeight) -> u64 {
    weight.lightest.div_ceil(4).saturating_mul(RELAY_FEE_SAT_PER_KVB).div_ceil(1_000)
}

/// All inputs minus all outputs, within the caps and not below what nodes relay.
pub(super) fn check(caps: &FeeCaps, inputs: &Inputs<'_>, outputs: &Outputs, weight: SignedWeight) -> Result<u64, Refusal> {
    let paid_sat = outputs.payments_sat();
    let out_sat = paid_sat.saturating_add(outputs.change_sat());
    let in_sat = inputs.total_sat();
    let Some(fee_sat) = in_sat.checked_sub(out_sat) else {
        return refuse(
            RefusalCode::AmountNegativeFee,
            format!("the outputs are worth {}, the inputs only {}", format_amount_sat(out_sat), format_amount_sat(in_sat)),
        );
    };
    if let Some(max) = caps.max_sat.filter(|max| fee_sat > *max) {
        return refuse(RefusalCode::FeeAbsolute, format!("the fee is {fee_sat} sat; fee.max is {max} sat"));
    }
    if let Some(max) = caps.max_rate_sat_per_kvb {
        // Over the least that the transaction can weigh, so that the rate on the chain is never over the cap.
        let vbytes = weight.lightest.div_ceil(4);
        if u128::from(fee_sat).saturating_mul(1_000) > u128::from(max).saturating_mul(u128::from(vbytes)) {
            return refuse(
                RefusalCode::FeeRate,
                format!(
                    "the fee is {fee_sat} sat for {vbytes} vB or little more; fee.max_rate is {}.{:03} sat/vB",
                    max / 1_000,
                    max % 1_000
                ),
            );
        }
    }
    if let Some(max) = caps.max_share_ppm
        && u128::from(fee_sat).saturating_mul(1_000_000) > u128::from(max).saturating_mul(u128::from(paid_sat))
    {
        return refuse(
            RefusalCode::FeeShare,
            format!(
                "the fee is {fee_sat} sat and {} is paid; fee.max_share is {}.{:04} % of what is paid (change does not count)",
                format_amount_sat(paid_sat),
                max / 10_000,
                max % 10_000
            ),
        );
    }
    let least_sat = relay_fee_sat(weight);
    if fee_sat < least_sat {
        return refuse(
            RefusalCode::FeeTooLow,
            format!("the fee is {fee_sat} sat; nodes relay no transaction of this size below {least_sat} sat (0.1 sat/vB)"),
        );
    }
    Ok(fee_sat)
}
