//! What can happen in a story, and how often.

use proptest::prelude::*;

use crate::{
    model::{Limits, Order},
    observer::Rate,
    site::{OWN, Spend},
};

/// What can happen.
#[derive(Debug, Clone)]
pub enum Step {
    /// A wallet is asked for a transaction.
    Ask(usize, Spend),
    /// The same again, of the earlier ones the one with this number.
    Again(usize),
    /// By the other wallet in it.
    Across(usize),
    /// The same with something changed, as a fee bump would, or somebody who hopes to pass for one.
    Bump(usize, Change),
    /// By three at once.
    Parallel(usize, Spend),
    /// Time passes.
    Pass(u64),
    /// The last one again, by a clock that is late.
    Late(u64),
    Copy,
    Crash,
    Stop,
    /// The process is gone, and the copy with this number is put back.
    Restore(usize),
    /// From the next start on the configuration states other limits for a scope.
    Configure(usize, Limits),
    /// Managers order something about a scope.
    Order(usize, Order),
    /// An old command again.
    Replay(usize),
    /// Managers answer what the signer shows when ledger and anchor do not agree.
    Rebase(Answer),
    /// The process is gone, and somebody erases the anchor.
    Erase,
}

/// How a re-base answers.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// With what was spent, or so much more.
    Honest(u64),
    /// With less than ledger and anchor know.
    TooLittle(u64),
    /// For another run.
    AnotherChallenge,
    /// With the serial of an earlier command.
    UsedSerial(usize),
    /// One of the earlier ones again.
    Replay(usize),
}

/// What a bump changes.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    Fee(u64),
    Payee(u8),
    SecondPayment(u64),
    AddCoin(u32),
    DropCoin(u32),
    Amount(u64),
}

impl Change {
    pub fn apply(self, mut spend: Spend, wallet: usize) -> Spend {
        match self {
            Self::Fee(more) => {
                spend.fee_sat += more;
                spend.from_sat[wallet] += more;
            }
            Self::Payee(payee) => spend.payee = payee,
            Self::SecondPayment(sat) => {
                spend.second_sat = sat;
                spend.from_sat[wallet] += sat;
            }
            Self::AddCoin(n) => spend.coins |= OWN[wallet] & (0b1001 << (n % 3)),
            Self::DropCoin(n) => spend.coins &= !(0b1001 << (n % 3)),
            Self::Amount(sat) => spend.from_sat[wallet] = sat,
        }
        spend
    }
}

fn any_spend() -> impl Strategy<Value = (usize, Spend)> {
    let coins = prop_oneof![3 => (1..8_u32).prop_map(|c| (0, c)), 3 => (1..8_u32).prop_map(|c| (1, c << 3)), 1 => (0..2_usize, 1..64_u32)];
    (coins, 60..9_000_u64, 0..4_000_u64, 60..600_u64, 0..3_u8).prop_map(|((wallet, coins), pays, other, fee_sat, payee)| {
        let mut from_sat = [other; 2];
        from_sat[wallet] = pays.max(fee_sat);
        (wallet, Spend { coins, from_sat, fee_sat, payee, second_sat: 0 })
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (1..800_u64).prop_map(Change::Fee),
        1 => (0..3_u8).prop_map(Change::Payee),
        1 => (330..3_000_u64).prop_map(Change::SecondPayment),
        2 => (0..3_u32).prop_map(Change::AddCoin),
        2 => (0..3_u32).prop_map(Change::DropCoin),
        1 => (600..9_000_u64).prop_map(Change::Amount),
    ]
}

fn any_rate() -> impl Strategy<Value = Rate> {
    let periods = prop::sample::select(vec![1_000, 5_000, 7_000, 60_000]);
    (1..4_000_u64, periods, 4_000..20_000_u64).prop_map(|(amount_sat, per_ms, burst_sat)| Rate { amount_sat, per_ms, burst_sat })
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let total = prop::option::of(8_000..80_000_u64);
    (prop::collection::vec(any_rate(), 0..3), total).prop_map(|(rates, total_sat)| Limits { rates, total_sat })
}

fn any_order() -> impl Strategy<Value = Order> {
    prop_oneof![
        (1..20_000_u64).prop_map(Order::AddTotal),
        (1..20_000_u64).prop_map(Order::SetTotal),
        prop::collection::vec(any_rate(), 0..3).prop_map(Order::SetRates),
        Just(Order::Freeze),
        Just(Order::Unfreeze),
        Just(Order::Unfreeze),
    ]
}

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => prop_oneof![Just(0), 0..5_000_u64].prop_map(Answer::Honest),
        1 => (1..5_000_u64).prop_map(Answer::TooLittle),
        1 => Just(Answer::AnotherChallenge),
        1 => any::<usize>().prop_map(Answer::UsedSerial),
        1 => any::<usize>().prop_map(Answer::Replay),
    ]
}

pub fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => any_spend().prop_map(|(wallet, spend)| Step::Ask(wallet, spend)),
        2 => any::<usize>().prop_map(Step::Again),
        1 => any::<usize>().prop_map(Step::Across),
        6 => (any::<usize>(), any_change()).prop_map(|(n, change)| Step::Bump(n, change)),
        1 => any_spend().prop_map(|(wallet, spend)| Step::Parallel(wallet, spend)),
        5 => prop_oneof![0..2_000_u64, 0..120_000_u64].prop_map(Step::Pass),
        1 => (0..60_000_u64).prop_map(Step::Late),
        1 => Just(Step::Copy),
        1 => Just(Step::Crash),
        2 => Just(Step::Stop),
        1 => any::<usize>().prop_map(Step::Restore),
        1 => (0..3_usize, any_limits()).prop_map(|(scope, limits)| Step::Configure(scope, limits)),
        2 => (0..3_usize, any_order()).prop_map(|(scope, order)| Step::Order(scope, order)),
        1 => any::<usize>().prop_map(Step::Replay),
        3 => any_answer().prop_map(Step::Rebase),
        1 => Just(Step::Erase),
    ]
}

pub fn three_limits() -> impl Strategy<Value = Vec<Limits>> {
    (any_limits(), any_limits(), prop_oneof![2 => Just(Limits::default()), 1 => any_limits()]).prop_map(|(a, b, c)| vec![a, b, c])
}
