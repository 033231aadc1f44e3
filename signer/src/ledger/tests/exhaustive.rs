//! Every story of a small world: three coins, a handful of transactions, crashes, an old disk, commands, a clock that is late. Each is
//! played on the real code (`decide`, `State::apply`, `Scopes::adopt`) and on the reference model, under an observer that
//! knows neither.
//!
//! What cannot be explored without a disk is done here in memory: the families' table and the anchor's few bytes. The random stories
//! of `tests/promise` have the real ones.
//!
//! `POSTERN_PROMISE_EXPLORE=large` explores larger worlds.

use std::{collections::BTreeSet, fmt::Debug, hash::Hash, sync::Arc};

use stateright::{Checker as _, Model as _, Property};

use super::*;

mod real;

#[path = "../../../tests/promise/model.rs"]
#[allow(dead_code, unreachable_pub)]
mod model;
#[path = "../../../tests/promise/observer.rs"]
#[allow(dead_code, unreachable_pub)]
mod observer;

use model::{Order, Published, Rules, Transaction, Verdict};
use observer::{Ahead, Coins, Grant, most_that_can_leave};
use real::{LEASE, Real, in_model, in_real};

/// What a story may hold.
#[derive(Debug, Clone)]
struct World<R> {
    /// Coins and outflow of each transaction.
    transactions: Vec<(Coins, u64)>,
    plans: Vec<Arc<SpendPlan>>,
    /// Before and after somebody edits the configuration.
    configured: [Limits; 2],
    orders: Vec<Order>,
    anchored: bool,
    /// Whether the real code is played as well. It is not when a rule is broken.
    real: bool,
    most: Most,
    rules: std::marker::PhantomData<R>,
}

/// How often what may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Most {
    grants: u8,
    ticks: u8,
    /// Starts after the first one.
    restarts: u8,
    rollbacks: u8,
    orders: u8,
    torn: u8,
    late: u8,
    steps: u8,
    edits: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Action {
    Ask(usize),
    /// By a clock that stands where it stood at the start.
    AskLate(usize),
    /// The power fails after the anchor was told and before the charge is on disk.
    AskTorn(usize),
    Tick,
    /// The wall clock is set a year forward.
    StepClock,
    Order(usize),
    Edit,
    Copy,
    Stop,
    Crash,
    Restore,
}

/// What the observer keeps. Its judgement of the rate is the form that needs no history (`tests/promise` compares it with the plain one).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Watch {
    grants: BTreeSet<Grant>,
    ahead: Ahead,
    ceiling: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Story<R> {
    real: Real,
    model: model::Model<R>,
    watch: Watch,
    copied: Option<Watch>,
    left: Most,
    /// Uptime of this run, and of all before it.
    now: u64,
    before: u64,
    edited: bool,
    lowered: bool,
    /// Which commands ever worked.
    ordered: u8,
    /// What the observer found broken; what the model did not expect.
    broken: bool,
    unexpected: bool,
    seen: Seen,
}

/// What has happened, to show that the world is not too small for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Seen {
    bumped: bool,
    waited: bool,
    burnt: bool,
    stale: bool,
}

impl Watch {
    fn most(&self) -> u64 {
        most_that_can_leave(&self.grants.iter().copied().collect::<Vec<_>>())
    }

    /// Notes a grant; false when that breaks the promise.
    fn granted(&mut self, grant: Grant, now: u64) -> bool {
        let before = self.most();
        self.grants.insert(grant);
        let most = self.most();
        self.ahead.grown(most - before, now) && (most == before || self.ceiling.is_none_or(|ceiling| most <= ceiling))
    }
}

const NOTHING: Most = Most { grants: 0, ticks: 0, restarts: 0, rollbacks: 0, orders: 0, torn: 0, late: 0, steps: 0, edits: 0 };

impl<R: Rules> World<R> {
    fn new(transactions: &[(Coins, u64)], most: Most, anchored: bool, total_sat: Option<u64>) -> Self {
        let plan = |(n, (spends, sat)): (u32, &(Coins, u64))| {
            let own: Vec<u8> = (0..3).filter(|c| spends & (1 << c) != 0).map(|c| c + 1).collect();
            super::plan(&own, *sat, n)
        };
        Self {
            plans: (0..).zip(transactions).map(plan).collect(),
            transactions: transactions.to_vec(),
            configured: [limits(&[rate(50, 1, 100)], total_sat), limits(&[rate(50, 1, 70)], total_sat.map(|sat| sat - 10))],
            orders: vec![
                Order::AddTotal(4),
                Order::SetRates(vec![observer::Rate { amount_sat: 40, per_ms: 1, burst_sat: 100 }]),
                Order::Freeze,
            ],
            anchored,
            real: true,
            most,
            rules: std::marker::PhantomData,
        }
    }

    fn limits(&self, edited: bool) -> &Limits {
        &self.configured[usize::from(edited)]
    }

    fn ask(&self, story: &mut Story<R>, number: usize, told: u64, torn: bool) {
        let (spends, outflow_sat) = self.transactions[number];
        let id = u64::try_from(number).unwrap();
        let transaction = Transaction { id, wallet: 0, own: spends, foreign: 0, outflow_sat, fee_sat: 10, least_sat: 0 };
        let on_disk = (story.real.disk.clone(), story.model.clone());
        let answer = story.model.ask(&transaction, told);
        if self.real {
            let rules = in_real(self.limits(story.edited));
            let real = story.real.ask(&rules, number, spends, &self.plans[number], told);
            story.unexpected |= real != answer;
        }
        if torn {
            story.real.tear(on_disk.0);
            story.model.tear(&on_disk.1);
            return;
        }
        match answer {
            Verdict::Granted { increase_sat, .. } => {
                story.seen.bumped |= (1..outflow_sat).contains(&increase_sat);
                let grant = Grant { transaction: id, wallet: 0, spends, outflow_sat };
                if !story.watch.grants.contains(&grant) {
                    story.left.grants -= 1;
                }
                story.broken |= !story.watch.granted(grant, story.before + story.model.seen_ms());
            }
            Verdict::WaitMs(_) => story.seen.waited = true,
            _ => {}
        }
    }

    fn order(&self, story: &mut Story<R>, n: usize) {
        let (serial, order) = (u64::try_from(n).unwrap(), &self.orders[n]);
        let applied = story.model.order(serial, None, 0, order, story.now);
        if self.real {
            story.unexpected |= story.real.order(serial, order, story.now) != applied;
        }
        if !applied {
            return;
        }
        let now = story.before + story.model.seen_ms();
        story.watch.ahead.pass(now);
        match order {
            // A command counts once, whatever the signer makes of it.
            Order::AddTotal(sat) if !story.seen_order(n) => story.watch.ceiling = story.watch.ceiling.map(|c| c + sat),
            Order::SetRates(rates) => story.watch.ahead.change(rates[0], now),
            _ => {}
        }
        story.ordered |= 1 << n;
    }

    /// The process is gone, and comes again.
    fn restart(&self, story: &mut Story<R>, action: Action) {
        match action {
            Action::Stop => {
                story.model.stop(story.now);
                story.real.stop(story.now);
            }
            Action::Restore => {
                story.left.rollbacks -= 1;
                story.model.crash();
                story.model.restore(0);
                story.real.disk = story.real.copy.clone().unwrap();
                let copied = story.copied.clone().unwrap();
                story.watch.ahead.change(copied.ahead.rate, story.before + story.model.seen_ms());
                let most = story.watch.most();
                // Without an anchor it has forgotten sums, and nobody can notice.
                story.watch.ceiling = copied.ceiling.filter(|_| self.anchored).map(|c| c.max(most));
            }
            _ => story.model.crash(),
        }
        story.before += story.model.seen_ms();
        story.now = 0;
        story.left.restarts -= 1;
        self.start(story);
    }

    fn start(&self, story: &mut Story<R>) {
        let limits = self.limits(story.edited);
        story.model.start(&in_model(limits));
        let burnt_sat = story.real.start(limits);
        story.seen.burnt |= burnt_sat > 0;
        story.seen.stale |= story.real.missing_commands > 0;
        // The observer is told of a lowered limit when it is in force, and not of one that was raised.
        story.watch.ahead.pass(story.before);
        if story.edited && story.left.edits == 0 && !story.lowered {
            story.lowered = true;
            let most = story.watch.most();
            let (old, new) = (self.configured[0].total_sat.unwrap(), self.configured[1].total_sat.unwrap());
            story.watch.ceiling = story.watch.ceiling.map(|c| (c - (old - new)).max(most));
            let (new, held) = (in_model(limits)[0].rates[0], story.watch.ahead.rate);
            if new.amount_sat <= held.amount_sat && new.burst_sat <= held.burst_sat {
                story.watch.ahead.change(new, story.before);
            }
        }
    }
}

impl<R: Rules> Story<R> {
    fn seen_order(&self, n: usize) -> bool {
        self.ordered & (1 << n) != 0
    }
}

impl<R: Rules> stateright::Model for World<R> {
    type State = Story<R>;
    type Action = Action;

    fn init_states(&self) -> Vec<Story<R>> {
        let limits = self.limits(false);
        let mut story = Story {
            real: Real::new(self.anchored),
            model: model::Model::new(&in_model(limits), self.anchored, LEASE),
            watch: Watch { grants: BTreeSet::new(), ahead: Ahead::new(in_model(limits)[0].rates[0], 0), ceiling: limits.total_sat },
            copied: None,
            left: self.most,
            now: 0,
            before: 0,
            edited: false,
            lowered: false,
            ordered: 0,
            broken: false,
            unexpected: false,
            seen: Seen::default(),
        };
        self.start(&mut story);
        vec![story]
    }

    fn actions(&self, story: &Story<R>, actions: &mut Vec<Action>) {
        if story.broken || story.unexpected {
            return;
        }
        let left = &story.left;
        for n in 0..self.transactions.len() {
            let id = u64::try_from(n).unwrap();
            let again = story.watch.grants.iter().any(|g| g.transaction == id);
            if again || left.grants > 0 {
                actions.push(Action::Ask(n));
                if left.late > 0 && story.now > 0 {
                    actions.push(Action::AskLate(n));
                }
                if left.torn > 0 && self.anchored && !again {
                    actions.push(Action::AskTorn(n));
                }
            }
        }
        let may = [
            (left.ticks > 0, Action::Tick),
            (left.steps > 0 && !self.real, Action::StepClock),
            (left.edits > 0, Action::Edit),
            (story.copied.is_none() && left.rollbacks > 0, Action::Copy),
            (left.restarts > 0, Action::Stop),
            (left.restarts > 0, Action::Crash),
            (left.restarts > 0 && left.rollbacks > 0 && story.copied.is_some(), Action::Restore),
        ];
        actions.extend(may.into_iter().filter(|(may, _)| *may).map(|(_, action)| action));
        if left.orders > 0 {
            actions.extend((0..self.orders.len()).map(Action::Order));
        }
    }

    fn next_state(&self, story: &Story<R>, action: Action) -> Option<Story<R>> {
        let mut next = story.clone();
        match action {
            Action::Ask(n) => self.ask(&mut next, n, story.now, false),
            Action::AskLate(n) => {
                next.left.late -= 1;
                self.ask(&mut next, n, 0, false);
            }
            Action::AskTorn(n) => {
                next.left.torn -= 1;
                self.ask(&mut next, n, story.now, true);
            }
            Action::Tick => {
                next.left.ticks -= 1;
                next.now += 1;
            }
            Action::StepClock => {
                next.left.steps -= 1;
                next.model.step_clock(1_000);
            }
            Action::Order(n) => {
                next.left.orders -= 1;
                self.order(&mut next, n);
            }
            Action::Edit => {
                next.left.edits -= 1;
                next.edited = true;
            }
            Action::Copy => self.copy(&mut next),
            Action::Stop | Action::Crash | Action::Restore => self.restart(&mut next, action),
        }
        (next != *story).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(KEPT, |_, story: &Story<R>| !story.broken),
            Property::always(EXPECTED, |_, story: &Story<R>| !story.unexpected),
            // That the world is large enough for them.
            Property::sometimes("a bump is charged its increase", |_, story: &Story<R>| story.seen.bumped),
            Property::sometimes("somebody is told to wait", |_, story: &Story<R>| story.seen.waited),
            Property::sometimes("all grants, restarts and rollbacks in one story", |_, story: &Story<R>| {
                story.left.grants + story.left.restarts + story.left.rollbacks == 0
            }),
            Property::sometimes("a lease is burnt", |world: &Self, story: &Story<R>| {
                story.seen.burnt || !world.anchored || world.most.restarts == 0
            }),
            Property::sometimes("commands are missing", |world: &Self, story: &Story<R>| {
                story.seen.stale || !world.anchored || world.most.orders == 0
            }),
        ]
    }
}

const KEPT: &str = "the promise is kept";
const EXPECTED: &str = "the signer answers as the model does";

impl<R: Rules> World<R> {
    fn copy(&self, story: &mut Story<R>) {
        story.real.copy = Some(story.real.disk.clone());
        story.model.copy();
        story.copied = Some(story.watch.clone());
    }
}

/// A bump, a rival, and what frees the rival.
const FEW: [(Coins, u64); 4] = [(0b011, 50), (0b011, 60), (0b110, 50), (0b001, 50)];
/// A bump and another payment.
const APART: [(Coins, u64); 3] = [(0b011, 50), (0b011, 60), (0b100, 45)];
/// Of the first two one can confirm; the third frees the second, which the fourth bumps.
const RIVALS: [(Coins, u64); 4] = [(0b011, 50), (0b110, 50), (0b001, 50), (0b110, 120)];
const MANY: [(Coins, u64); 8] = [(0b011, 50), (0b110, 50), (0b001, 50), (0b011, 60), (0b100, 45), (0b111, 70), (0b010, 20), (0b101, 30)];

fn is_large() -> bool {
    std::env::var_os("POSTERN_PROMISE_EXPLORE").is_some_and(|size| size == "large")
}

fn explore(world: World<Published>) {
    let started = std::time::Instant::now();
    let (most, anchored) = (world.most, world.anchored);
    let checker = world.checker().threads(2).spawn_bfs().join();
    println!(
        "{most:?}, anchored: {anchored}: {} states, {} of them different, up to {} steps deep, in {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    for property in [KEPT, EXPECTED] {
        if let Some(path) = checker.discovery(property) {
            let last = path.last_state().clone();
            panic!("{property}: {:?}\n{last:#?}", path.into_actions());
        }
    }
    checker.assert_properties();
}

#[test]
fn in_every_story_of_families_the_promise_is_kept() {
    let most = if is_large() { Most { grants: 5, ticks: 1, late: 1, ..NOTHING } } else { Most { grants: 4, ticks: 1, late: 1, ..NOTHING } };
    explore(World::new(&MANY, most, false, Some(150)));
}

fn crashes(anchored: bool) {
    let few = Most { grants: 3, ticks: 1, restarts: 2, rollbacks: 1, torn: 1, ..NOTHING };
    let many = Most { grants: 3, ticks: 2, restarts: 2, rollbacks: 2, torn: 1, late: 1, ..NOTHING };
    explore(World::new(&FEW, if is_large() { many } else { few }, anchored, Some(150)));
}

#[test]
fn in_every_story_of_crashes_and_old_disks_with_an_anchor_the_promise_is_kept() {
    crashes(true);
}

#[test]
fn in_every_story_of_crashes_and_old_disks_without_an_anchor_the_promise_is_kept() {
    crashes(false);
}

fn orders(anchored: bool) {
    let few = Most { grants: 2, ticks: 1, restarts: 1, rollbacks: 1, orders: 2, edits: 1, ..NOTHING };
    let many = Most { grants: 2, ticks: 2, restarts: 1, rollbacks: 1, orders: 3, edits: 1, ..NOTHING };
    let mut world = World::new(&APART, if is_large() { many } else { few }, anchored, Some(105));
    if !is_large() {
        // Freezing is left to the random stories.
        world.orders.truncate(2);
    }
    explore(world);
}

#[test]
fn in_every_story_of_commands_and_edits_with_an_anchor_the_promise_is_kept() {
    orders(true);
}

#[test]
fn in_every_story_of_commands_and_edits_without_an_anchor_the_promise_is_kept() {
    orders(false);
}

/// A rule is broken, and somebody notices.
fn is_noticed<R: Rules>(transactions: &[(Coins, u64)], most: Most, anchored: bool, total_sat: Option<u64>) {
    let mut world = World::<R>::new(transactions, most, anchored, total_sat);
    world.real = false;
    let checker = world.checker().threads(1).finish_when(stateright::HasDiscoveries::AnyFailures).spawn_bfs().join();
    let path = checker.discovery(KEPT).expect("nobody noticed");
    println!("{}: {:?}", std::any::type_name::<R>(), path.into_actions());
}

macro_rules! broken {
    ($($test:ident, $rule:ident, $transactions:ident, $most:expr, $anchored:literal, $total:expr, { $($body:tt)* };)+) => {$(
        #[test]
        fn $test() {
            #[derive(Debug, Clone, PartialEq, Eq, Hash)]
            struct $rule;
            impl Rules for $rule { $($body)* }
            is_noticed::<$rule>(&$transactions, $most, $anchored, $total);
        }
    )+};
}

broken! {
    joining_by_one_shared_coin_is_noticed, OneSharedCoin, RIVALS, Most { grants: 4, ticks: 2, ..NOTHING }, true, None, {
        fn joins(spends: Coins, coin: Coins, _: Coins) -> bool { spends & coin != 0 }
    };
    a_refund_is_noticed, Refund, APART, Most { grants: 3, ..NOTHING }, true, None, {
        fn given_back(before_sat: u64, member_sat: u64) -> u64 { before_sat.saturating_sub(member_sat) }
    };
    a_refill_over_a_restart_is_noticed, RefillOverRestart, APART, Most { grants: 2, restarts: 1, ..NOTHING }, true, None, {
        fn missing_at_start(_: u128, _: u128, _: bool) -> u128 { 0 }
    };
    keeping_the_level_of_an_old_ledger_is_noticed, KeepsLevel, APART, Most { grants: 2, restarts: 1, rollbacks: 1, ..NOTHING }, true, None, {
        fn missing_at_start(owed: u128, _: u128, _: bool) -> u128 { owed }
    };
    a_refill_by_changed_limits_is_noticed, RefillByChange, APART, Most { grants: 2, orders: 1, ..NOTHING }, true, None, {
        fn missing_after_change(_: u128) -> u128 { 0 }
    };
    forgetting_what_the_anchor_knows_is_noticed, ForgetsBound, APART,
    Most { grants: 2, ticks: 1, restarts: 1, rollbacks: 1, ..NOTHING }, true, Some(100), {
        fn charged_at_start(ledger_sat: u64, _: u64) -> u64 { ledger_sat }
    };
    filling_by_the_wall_clock_is_noticed, WallClock, APART, Most { grants: 2, steps: 1, ..NOTHING }, true, None, {
        fn time_ms(ran_ms: u64, stepped_ms: u64) -> u64 { ran_ms + stepped_ms }
    };
    not_charging_the_fee_is_noticed, FeeForgotten, APART, Most { grants: 2, ..NOTHING }, true, None, {
        fn charge(outflow_sat: u64, fee_sat: u64) -> u64 { outflow_sat - fee_sat }
    };
    granting_before_the_charge_is_on_disk_is_noticed, LateSync, APART, Most { grants: 2, ticks: 1, restarts: 1, ..NOTHING }, false, Some(100), {
        const DURABLE_FIRST: bool = false;
    };
    a_command_that_works_twice_is_noticed, SerialsForgotten, APART, Most { grants: 2, ticks: 1, orders: 2, ..NOTHING }, true, Some(100), {
        const SERIALS: bool = false;
    };
}
