//! What is being worked on, and what is answered and not delivered yet. It outlives every connection: a request that was
//! taken is answered, and an answer stays until the coordinator has acknowledged it.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use postern_protocol::{
    api::{self, Base64},
    canonical,
    refusal::{Refusal, RefusalCode},
    reply::ReplyBody,
    request::RequestBody,
};
use tokio::{sync::watch, task::JoinSet};

use crate::signer::{SignerSocket, kind};

/// Longest id of a request, in characters.
const ID_MAX: usize = 64;

/// The desk. Dropping it forgets everything; the coordinator hands it out again.
pub struct Desk {
    signer: SignerSocket,
    capacity: usize,
    work: Mutex<Work>,
    /// Changes with every change of `work`.
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Work {
    /// Ids taken and not yet acknowledged.
    held: HashSet<String>,
    /// Answered, not acknowledged, and not just being delivered.
    outbox: VecDeque<api::Reply>,
    /// The newest heartbeat that is not delivered.
    heartbeat: Option<api::Heartbeat>,
    asking: JoinSet<()>,
}

/// Something to deliver. Dropped without [`Delivery::acknowledged`] it goes back to the desk.
pub struct Delivery {
    desk: Arc<Desk>,
    parcel: Option<Parcel>,
}

/// What is delivered.
#[derive(Debug, Clone)]
pub enum Parcel {
    /// An answer.
    Reply(api::Reply),
    /// A signed report. Another one comes, so it is not kept.
    Heartbeat(api::Heartbeat),
}

impl Desk {
    /// A desk that holds at most so many requests.
    #[must_use]
    pub fn new(signer: SignerSocket, capacity: u32) -> Arc<Self> {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        Arc::new(Self { signer, capacity, work: Mutex::default(), changes: watch::Sender::new(()) })
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_replace(());
    }

    /// Waits until `look` finds something.
    async fn when<T>(&self, mut look: impl FnMut(&mut Work) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            // The sender is ours, so this cannot fail.
            let _ = changes.changed().await;
        }
    }

    /// Waits until there is room; how much, and what is held.
    pub async fn room(&self) -> (u32, Vec<String>) {
        self.when(|work| {
            let room = self.capacity.checked_sub(work.held.len()).filter(|room| *room > 0)?;
            Some((u32::try_from(room).unwrap_or(u32::MAX), work.held.iter().cloned().collect()))
        })
        .await
    }

    /// Waits until everything taken is delivered.
    pub async fn done(&self) {
        self.when(|work| work.held.is_empty().then_some(())).await;
    }

    /// Takes requests in and asks the signer. What is held already, or over the capacity, is left to the coordinator.
    pub fn take(self: &Arc<Self>, requests: Vec<api::Request>) {
        for request in requests {
            if request.id.is_empty() || request.id.chars().count() > ID_MAX {
                tracing::warn!("a request has an id of {} bytes; it is left out", request.id.len());
                continue;
            }
            let mut work = self.lock();
            if work.held.len() >= self.capacity || !work.held.insert(request.id.clone()) {
                tracing::debug!(request = %request.id, "held already, or no room");
                continue;
            }
            while work.asking.try_join_next().is_some() {}
            let desk = Arc::downgrade(self);
            let signer = self.signer.clone();
            work.asking.spawn(async move {
                let body = answer(&signer, &request).await;
                tracing::info!(request = %request.id, "answered: {}", kind(&body));
                let reply = api::Reply { id: request.id, body: Base64(canonical::to_vec(&body)) };
                if let Some(desk) = desk.upgrade() {
                    desk.lock().outbox.push_back(reply);
                    desk.changed();
                }
            });
        }
    }

    /// Asks the signer for its signed report, to be delivered as soon as it is there.
    pub async fn report(self: &Arc<Self>, nonce: Vec<u8>) {
        let asked = RequestBody::Heartbeat(postern_protocol::request::HeartbeatRequest { nonce });
        match self.signer.ask(asked).await {
            Ok(ReplyBody::Heartbeat(cose)) => {
                self.lock().heartbeat = Some(api::Heartbeat { cose: Base64(cose) });
                self.changed();
            }
            Ok(other) => tracing::warn!("the signer gives no heartbeat: {}", kind(&other)),
            Err(e) => tracing::warn!("no heartbeat: {e}"),
        }
    }

    /// Waits for something to deliver.
    pub async fn next(self: &Arc<Self>) -> Delivery {
        let parcel =
            self.when(|work| work.heartbeat.take().map(Parcel::Heartbeat).or_else(|| work.outbox.pop_front().map(Parcel::Reply))).await;
        Delivery { desk: self.clone(), parcel: Some(parcel) }
    }
}

/// The signer's answer. A request that the signer could not even read is answered here, so that its asker learns it.
async fn answer(signer: &SignerSocket, request: &api::Request) -> ReplyBody {
    let refused = |code, why: String| ReplyBody::Refused(Refusal::new(code, why));
    match canonical::from_slice::<RequestBody>(&request.body.0) {
        Err(e) => refused(RefusalCode::FrameMalformed, e.to_string()),
        Ok(body) => match signer.ask(body).await {
            Ok(reply) => reply,
            Err(e) => refused(RefusalCode::FrameTooLarge, e.to_string()),
        },
    }
}

impl Delivery {
    /// What it is.
    #[must_use]
    pub fn parcel(&self) -> Option<&Parcel> {
        self.parcel.as_ref()
    }

    /// The coordinator has it, or wants it never.
    pub fn acknowledged(mut self) {
        if let Some(Parcel::Reply(reply)) = self.parcel.take() {
            self.desk.lock().held.remove(&reply.id);
            self.desk.changed();
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(Parcel::Reply(reply)) = self.parcel.take() {
            self.desk.lock().outbox.push_front(reply);
            self.desk.changed();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(id: &str, body: &[u8]) -> api::Request {
        api::Request { id: id.into(), body: Base64(body.into()) }
    }

    async fn next_reply(desk: &Arc<Desk>) -> (Delivery, api::Reply) {
        let delivery = desk.next().await;
        let Some(Parcel::Reply(reply)) = delivery.parcel().cloned() else { panic!() };
        (delivery, reply)
    }

    #[tokio::test]
    async fn an_answer_stays_until_it_is_acknowledged() {
        let desk = Desk::new(SignerSocket::new("/nowhere".into()), 1);
        desk.take(vec![request("a", b"not cbor"), request("over capacity", b"")]);
        let (lost, reply) = next_reply(&desk).await;
        assert_eq!(reply.id, "a");
        drop(lost);
        let (delivered, again) = next_reply(&desk).await;
        assert_eq!(again, reply, "the same answer after a lost connection");
        delivered.acknowledged();
        let (room, held) = desk.room().await;
        assert_eq!((room, held), (1, vec![]));
        desk.done().await;
    }

    #[tokio::test]
    async fn a_request_that_nobody_can_read_is_refused_and_not_dropped() {
        let desk = Desk::new(SignerSocket::new("/nowhere".into()), 4);
        desk.take(vec![request("a", &[0xff, 0x00])]);
        let (delivery, reply) = next_reply(&desk).await;
        let ReplyBody::Refused(refusal) = canonical::from_slice(&reply.body.0).unwrap() else { panic!() };
        assert_eq!(refusal.code, RefusalCode::FrameMalformed);
        delivery.acknowledged();
    }

    #[tokio::test]
    async fn what_is_held_is_not_taken_twice_and_ids_are_bounded() {
        let desk = Desk::new(SignerSocket::new("/nowhere".into()), 4);
        let wallets = canonical::to_vec(&RequestBody::Wallets);
        desk.take(vec![request("a", &wallets), request("a", &wallets), request("", &wallets), request(&"x".repeat(65), &wallets)]);
        let (room, held) = desk.room().await;
        assert_eq!((room, held), (3, vec!["a".to_owned()]));
    }
}
