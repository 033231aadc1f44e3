//! What the chain, the mempool and the node do to a payment.

use super::*;

#[tokio::test]
async fn a_stuck_payment_gets_a_higher_fee_once_and_either_member_may_confirm() {
    let mut world = World::simple().await;
    let id = world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Sign).await;
    world.rounds(3).await;
    let first = world.node.waiting().remove(0);
    world.node.mine_empty(3);
    world.rounds(3).await;
    assert_eq!(world.answer("a", Answer::Sign).await, 1);
    world.rounds(3).await;
    let second = world.node.waiting().remove(0);
    assert_ne!(first.compute_txid(), second.compute_txid());
    assert_eq!(first.input[0].previous_output, second.input[0].previous_output);
    // A miner takes the first one all the same.
    world.node.forget();
    world.node.take(&first);
    world.node.mine(2);
    world.rounds(3).await;
    assert_eq!(world.state(&id).await, OrderState::Confirmed);
    assert_eq!(world.paid("alice"), [50_000]);
    assert_eq!(world.store.payment(&id).await.unwrap().unwrap().txid, Some(first.compute_txid()));
}

#[tokio::test]
async fn a_payment_that_the_mempool_forgot_is_sent_again() {
    let mut world = World::simple().await;
    world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Sign).await;
    world.rounds(3).await;
    world.node.forget();
    world.rounds(2).await;
    assert_eq!(world.node.waiting().len(), 1);
}

#[tokio::test]
async fn a_payment_that_a_deep_reorg_undoes_is_broadcast_again_and_never_paid_anew() {
    let patient = LINES.replace("bump_after_blocks = 3", "bump_after_blocks = 100");
    let mut world = World::new(&one_key(), &[("a", 1)], &patient).await;
    world.deposit(1_000_000).await;
    let id = world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Sign).await;
    world.rounds(3).await;
    world.node.mine(3);
    world.rounds(2).await;
    assert_eq!(world.state(&id).await, OrderState::Confirmed);
    world.node.reorg(3);
    world.node.forget();
    world.rounds(3).await;
    assert_eq!(world.state(&id).await, OrderState::Broadcast);
    assert_eq!(world.answer("a", Answer::Sign).await, 0, "nothing new is signed");
    assert_eq!(world.node.waiting().len(), 1);
    world.node.mine(2);
    world.rounds(2).await;
    assert_eq!((world.state(&id).await, world.paid("alice")), (OrderState::Confirmed, vec![50_000]));
}

#[tokio::test]
async fn a_node_that_is_away_delays_and_loses_nothing() {
    let mut world = World::simple().await;
    let id = world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.node.set_down(true);
    world.answer("a", Answer::Sign).await;
    for _ in 0..3 {
        world.round().await;
    }
    let family = world.look(&id).await.family.unwrap();
    let members = crate::store::FamilyStore::members(&world.store, family).await.unwrap();
    assert_eq!(members[0].state, MemberState::Signed);
    world.node.set_down(false);
    world.rounds(3).await;
    assert_eq!(world.state(&id).await, OrderState::Broadcast);
}

#[tokio::test]
async fn change_in_no_block_is_spent_and_its_parent_never_replaced_again() {
    let mut world = World::simple().await;
    let first = world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Sign).await;
    world.rounds(3).await;
    let second = world.order("bob", 60_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Sign).await;
    world.rounds(3).await;
    assert_eq!((world.state(&first).await, world.state(&second).await), (OrderState::Broadcast, OrderState::Broadcast));
    assert_eq!(world.node.waiting().len(), 2);
    // Both are stuck; only the one that nothing hangs on gets a higher fee.
    world.node.mine_empty(4);
    world.rounds(3).await;
    assert_eq!(world.answer("a", Answer::Sign).await, 1);
    world.rounds(3).await;
    let (parent, child) = (world.look(&first).await.family.unwrap(), world.look(&second).await.family.unwrap());
    assert_eq!(crate::store::FamilyStore::members(&world.store, parent).await.unwrap().len(), 1);
    assert_eq!(crate::store::FamilyStore::members(&world.store, child).await.unwrap().len(), 2);
    world.node.mine(2);
    world.rounds(3).await;
    assert_eq!((world.paid("alice"), world.paid("bob")), (vec![50_000], vec![60_000]));
}

#[tokio::test]
async fn change_of_a_replaced_payment_waits_for_its_block() {
    let mut world = World::simple().await;
    world.order("alice", 50_000).await;
    world.rounds(2).await;
    world.answer("a", Answer::Sign).await;
    world.rounds(3).await;
    world.node.mine_empty(4);
    world.rounds(3).await;
    assert_eq!(world.answer("a", Answer::Sign).await, 1, "the higher fee");
    world.rounds(3).await;
    let next = world.order("bob", 60_000).await;
    world.rounds(3).await;
    assert_eq!(world.code(&next).await, "funds.insufficient");
    world.node.mine(1);
    world.rounds(3).await;
    assert_eq!(world.state(&next).await, OrderState::Signing);
}
