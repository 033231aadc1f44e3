//! Crashes at every commit, reorganisations, lost and lying answers, signatures kept back and published: in the end every order is paid
//! once or not at all, and says which.

use std::collections::BTreeMap;

use postern_protocol::refusal::RefusalCode;
use proptest::prelude::*;

use super::{Answer, LINES, World, one_key, payee};
use crate::store::{OrderFilter, OrderState, OrderStore as _};

#[derive(Debug, Clone, Copy)]
enum Deed {
    Order(u32),
    Round,
    Sign,
    Wait,
    Refuse,
    Lie,
    Lose,
    /// The link's owner publishes something that was kept back.
    Publish(usize),
    Mine,
    MineEmpty,
    Reorg(u32),
    Forget,
    Restart,
    /// The process ends at the n-th side of a commit from here.
    CrashIn(i64),
    Later,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (1_000_u32..60_000).prop_map(Deed::Order),
        12 => Just(Deed::Round),
        6 => Just(Deed::Sign),
        1 => Just(Deed::Wait),
        1 => Just(Deed::Refuse),
        1 => Just(Deed::Lie),
        1 => Just(Deed::Lose),
        1 => (0_usize..8).prop_map(Deed::Publish),
        3 => Just(Deed::Mine),
        1 => Just(Deed::MineEmpty),
        1 => (1_u32..4).prop_map(Deed::Reorg),
        1 => Just(Deed::Forget),
        1 => Just(Deed::Restart),
        6 => (0_i64..24).prop_map(Deed::CrashIn),
        1 => Just(Deed::Later),
    ]
}

async fn play(deeds: &[Deed]) -> Result<(), TestCaseError> {
    let mut world = World::new(&one_key(), &[("a", 1)], LINES).await;
    for _ in 0..3 {
        world.deposit(400_000).await;
    }
    let mut orders: BTreeMap<String, (String, u64)> = BTreeMap::new();
    for deed in deeds {
        match *deed {
            Deed::Order(sat) => {
                // An order that is not known to be made is made again by its caller; here it is always made.
                if world.store.crash_plan().disarm() {
                    let name = format!("n{}", orders.len());
                    let id = world.order(&name, sat.into()).await;
                    orders.insert(id, (name, sat.into()));
                } else {
                    world.restart();
                }
            }
            Deed::Round => {
                if !world.round().await {
                    world.restart();
                }
            }
            Deed::Sign => drop(world.answer("a", Answer::Sign).await),
            Deed::Wait => drop(world.answer("a", Answer::Refuse(RefusalCode::RateWait)).await),
            Deed::Refuse => drop(world.answer("a", Answer::Refuse(RefusalCode::RateBurst)).await),
            Deed::Lie => drop(world.answer("a", Answer::Lie(RefusalCode::DestinationForbidden)).await),
            Deed::Lose => drop(world.answer("a", Answer::Lose).await),
            Deed::Publish(n) => {
                if let Some(kept_back) = world.hoard.get(n).cloned() {
                    world.node.take(&kept_back);
                }
            }
            Deed::Mine => world.node.mine(1),
            Deed::MineEmpty => world.node.mine_empty(1),
            // Deeper than what counts as final nobody's promise reaches.
            Deed::Reorg(depth) => world.node.reorg(depth.min(1)),
            Deed::Forget => world.node.forget(),
            Deed::Restart => world.restart(),
            Deed::CrashIn(n) => world.store.crash_plan().at(n),
            Deed::Later => world.now += 20_000,
        }
    }
    finish(&mut world).await;
    check(&world, &orders).await
}

/// Everybody does what they should until nothing moves any more.
async fn finish(world: &mut World) {
    world.restart();
    for _ in 0..40 {
        world.now += 16 * 60_000;
        world.round().await;
        world.answer("a", Answer::Sign).await;
        world.round().await;
        world.round().await;
        world.node.mine(1);
        let filter = OrderFilter { limit: 1_000, ..OrderFilter::default() };
        let ended = |o: &crate::store::Order| matches!(o.state, OrderState::Confirmed | OrderState::Refused | OrderState::Failed);
        if world.store.orders(filter).await.unwrap().iter().all(ended) {
            break;
        }
    }
    world.node.mine(3);
    for _ in 0..4 {
        world.round().await;
    }
}

async fn check(world: &World, orders: &BTreeMap<String, (String, u64)>) -> Result<(), TestCaseError> {
    let paid = world.node.paid();
    for (id, (name, sat)) in orders {
        let order = world.look(id).await;
        let got = paid.get(&payee(name)).cloned().unwrap_or_default();
        match order.state {
            OrderState::Confirmed => prop_assert_eq!(&got, &vec![*sat], "{} is confirmed", id),
            OrderState::Refused => prop_assert_eq!(&got, &Vec::<u64>::new(), "{} is refused", id),
            // Everything was mined and the coins suffice, unless a lie stopped the wallet.
            state => {
                let stopped = crate::store::FamilyStore::stops(&world.store).await.unwrap();
                prop_assert!(got.len() <= 1, "{} is paid {} times", id, got.len());
                let funds = order.blocked.as_ref().is_some_and(|b| b.code == "funds.insufficient");
                prop_assert!(!stopped.is_empty() || funds, "{} ends as {:?}, blocked by {:?}", id, state, order.blocked);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_an_order_is_paid_once_or_not_at_all_and_says_which(deeds in proptest::collection::vec(deed(), 10..90)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(&deeds))?;
    }
}

/// One order, and the process ends at every side of every commit on its way, in turn.
#[tokio::test]
async fn a_crash_at_every_step_of_an_order_pays_it_once() {
    for at in 0..200 {
        let mut world = World::simple().await;
        let id = world.order("alice", 50_000).await;
        world.store.crash_plan().at(at);
        for _ in 0..5 {
            if !world.round().await {
                world.restart();
            }
            world.answer("a", Answer::Sign).await;
        }
        let survived = world.store.crash_plan().disarm();
        world.restart();
        for _ in 0..4 {
            world.round().await;
            world.answer("a", Answer::Sign).await;
        }
        world.node.mine(2);
        world.rounds(3).await;
        assert_eq!((world.state(&id).await, world.paid("alice")), (OrderState::Confirmed, vec![50_000]), "crash at {at}");
        if survived && at > 20 {
            return;
        }
    }
    panic!("an order has fewer steps than that");
}
