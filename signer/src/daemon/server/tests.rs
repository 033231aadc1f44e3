//! The socket against peers of every temper, with an office that answers by rule.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::mpsc::{self, Receiver, Sender},
};

use postern_protocol::{
    refusal::RefusalKind,
    reply::Signed,
    request::{Request, SignRequest},
};
use tempfile::TempDir;

use super::*;
use crate::client::{Client, ClientError};

/// Signs `psbt` with itself; wallet `closed` waits for a token from the test, wallet `refused` is refused, wallet `bug` panics.
struct Rules {
    role: Option<Role>,
    discloses: bool,
    started: Mutex<Sender<()>>,
    gate: Mutex<Receiver<()>>,
    refusals: Mutex<Vec<Noted>>,
}

/// Code, request, what it was, wallet, and whether there was a reason.
type Noted = (RefusalCode, u64, &'static str, Option<String>, bool);

impl Office for Rules {
    fn role(&self, _uid: u32) -> Option<Role> {
        self.role
    }
    fn discloses(&self) -> bool {
        self.discloses
    }
    fn is_quick(&self, _: &RequestBody) -> bool {
        false
    }
    fn answer(&self, asked: Admitted, _: &Arc<Lane>, answer: Answer) {
        let outcome = match asked.into_body() {
            RequestBody::Sign(request) => {
                match request.wallet.as_str() {
                    "closed" => {
                        self.started.lock().unwrap().send(()).unwrap();
                        self.gate.lock().unwrap().recv().unwrap();
                    }
                    "refused" => return answer(Err(Refusal::new(RefusalCode::RateWait, "0.5 BTC in 3 min").wait_ms(180_000))),
                    "bug" => panic!("on purpose"),
                    _ => {}
                }
                let mut unsigned_txid = [0; 32];
                unsigned_txid.iter_mut().zip(&request.psbt).for_each(|(to, from)| *to = *from);
                Ok(ReplyBody::Signed(Signed { unsigned_txid, signatures: vec![] }))
            }
            _ => Ok(ReplyBody::Wallets(vec![])),
        };
        answer(outcome);
    }
    fn stop(&self) {}
    fn refused(&self, refusal: &Refusal, about: &About<'_>) {
        let entry = (refusal.code, about.request, about.what, about.wallet.map(str::to_owned), refusal.message.is_some());
        self.refusals.lock().unwrap().push(entry);
    }
}

struct Desk {
    _folder: TempDir,
    path: PathBuf,
    server: Server,
    rules: Arc<Rules>,
    started: Receiver<()>,
    open: Sender<()>,
}

fn desk(role: Option<Role>, terms: Terms) -> Desk {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let (started_sender, started) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    let rules =
        Arc::new(Rules { role, discloses: false, started: Mutex::new(started_sender), gate: Mutex::new(gate), refusals: Mutex::default() });
    let server = Server::start(&path, Arc::clone(&rules) as Arc<dyn Office>, terms).unwrap();
    Desk { _folder: folder, path, server, rules, started, open }
}

impl Desk {
    fn client(&self) -> Client {
        let mut client = Client::connect(&self.path).unwrap();
        client.set_timeout(Some(Duration::from_secs(60))).unwrap();
        client
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }
}

fn sign(wallet: &str, psbt: impl Into<Vec<u8>>) -> RequestBody {
    RequestBody::Sign(SignRequest { wallet: wallet.into(), psbt: psbt.into() })
}

fn code(reply: &ReplyBody) -> Option<RefusalCode> {
    match reply {
        ReplyBody::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}

fn read_reply(stream: &mut UnixStream) -> Reply {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).unwrap();
    let mut body = vec![0; frame::body_length(prefix, frame::FRAME_MAX).unwrap()];
    stream.read_exact(&mut body).unwrap();
    canonical::from_slice(&body).unwrap()
}

fn is_closed(stream: &mut UnixStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Ok(0)) || stream.write_all(&[0; 1]).is_err()
}

#[test]
fn a_thousand_requests_sent_at_once_get_a_thousand_answers_each_to_its_own_id() {
    let desk = desk(Some(Role::Gate), Terms { in_flight: 1_000, ..Terms::default() });
    let mut client = desk.client();
    let ids: Vec<u64> = (0..1_000u64).map(|n| client.send(sign("hot", n.to_le_bytes())).unwrap()).collect();
    let mut answered = BTreeMap::new();
    for _ in &ids {
        let reply = client.receive().unwrap();
        let ReplyBody::Signed(signed) = reply.body else { panic!("{:?}", reply.body) };
        let n = u64::from_le_bytes(signed.unsigned_txid[..8].try_into().unwrap());
        assert!(answered.insert(reply.id, n).is_none());
    }
    assert_eq!(answered, ids.into_iter().zip(0..).collect());
    assert!(desk.server.stop());
    assert!(!desk.path.exists());
}

#[test]
fn requests_beyond_the_bound_of_a_connection_are_refused_as_busy_and_others_are_served() {
    let desk = desk(Some(Role::Gate), Terms { in_flight: 3, signing_threads: 4, ..Terms::default() });
    let mut client = desk.client();
    for _ in 0..3 {
        client.send(sign("closed", [])).unwrap();
    }
    (0..3).for_each(|_| desk.started.recv_timeout(Duration::from_secs(60)).unwrap());
    let fourth = client.send(sign("hot", [])).unwrap();
    let reply = client.receive().unwrap();
    assert_eq!((reply.id, code(&reply.body)), (fourth, Some(RefusalCode::Busy)));
    assert!(matches!(desk.client().ask(sign("hot", [])).unwrap(), ReplyBody::Signed(_)), "another connection has its own bound");
    (0..3).for_each(|_| desk.open.send(()).unwrap());
    (0..3).for_each(|_| assert!(matches!(client.receive().unwrap().body, ReplyBody::Signed(_))));
    assert!(matches!(client.ask(sign("hot", [])).unwrap(), ReplyBody::Signed(_)));
}

#[test]
fn a_hanging_token_does_not_keep_a_command_or_a_heartbeat_waiting() {
    let desk = desk(Some(Role::Gate), Terms { signing_threads: 2, ..Terms::default() });
    let mut client = desk.client();
    for _ in 0..10 {
        client.send(sign("closed", [])).unwrap();
    }
    (0..2).for_each(|_| desk.started.recv_timeout(Duration::from_secs(60)).unwrap());
    let command = client.send(RequestBody::Command(vec![1])).unwrap();
    assert_eq!(client.receive().unwrap().id, command);
    (0..10).for_each(|_| desk.open.send(()).unwrap());
    (0..10).for_each(|_| assert!(matches!(client.receive().unwrap().body, ReplyBody::Signed(_))));
}

#[test]
fn a_frame_that_is_no_request_is_refused_and_the_connection_goes_on() {
    let desk = desk(Some(Role::Gate), Terms::default());
    let mut stream = desk.raw();
    let good = canonical::to_vec(&Request { version: PROTOCOL_VERSION, id: 3, body: sign("hot", []) });
    let other_version = canonical::to_vec(&Request { version: 9, id: 4, body: RequestBody::Wallets });
    let status = canonical::to_vec(&Request { version: PROTOCOL_VERSION, id: 5, body: RequestBody::Status });
    for (body, id, expected) in [
        (&b"garbage"[..], 0, Some(RefusalCode::FrameMalformed)),
        (&[], 0, Some(RefusalCode::FrameMalformed)),
        (&[good.clone(), vec![0]].concat(), 3, Some(RefusalCode::FrameMalformed)),
        (&other_version, 4, Some(RefusalCode::VersionUnsupported)),
        (&status, 5, Some(RefusalCode::NotPermitted)),
        (&good, 3, None),
    ] {
        stream.write_all(&frame::wrap(body).unwrap()).unwrap();
        let reply = read_reply(&mut stream);
        assert_eq!((reply.id, code(&reply.body)), (id, expected));
    }
    assert_eq!(desk.rules.refusals.lock().unwrap().len(), 5, "each refusal is noted once");
}

#[test]
fn a_frame_over_the_cap_is_refused_and_the_connection_ends() {
    let desk = desk(Some(Role::Gate), Terms { frame_max: 1_000, ..Terms::default() });
    for announced in [1_001u32, u32::MAX] {
        let mut stream = desk.raw();
        stream.write_all(&announced.to_be_bytes()).unwrap();
        let reply = read_reply(&mut stream);
        assert_eq!((reply.id, code(&reply.body)), (0, Some(RefusalCode::FrameTooLarge)));
        assert!(is_closed(&mut stream));
    }
}

#[test]
fn half_a_frame_costs_only_its_own_connection() {
    let patience = Patience { idle: Duration::from_secs(60), frame: Duration::from_millis(100) };
    let desk = desk(Some(Role::Gate), Terms { patience, ..Terms::default() });
    let mut slow: Vec<UnixStream> = (0..10).map(|_| desk.raw()).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(&[0, 0, 1, 0, 7]).unwrap());
    assert!(matches!(desk.client().ask(sign("hot", [])).unwrap(), ReplyBody::Signed(_)));
    slow.iter_mut().for_each(|stream| assert!(is_closed(stream)));
}

#[test]
fn a_peer_that_reads_nothing_is_let_go_and_others_are_served() {
    let desk = desk(Some(Role::Gate), Terms { write_patience: Duration::from_millis(100), ..Terms::default() });
    let mut deaf = desk.raw();
    let request = frame::wrap(&canonical::to_vec(&Request { version: PROTOCOL_VERSION, id: 1, body: sign("hot", vec![0; 10]) })).unwrap();
    deaf.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let flood = std::iter::repeat_with(|| deaf.write_all(&request)).find(Result::is_err);
    assert!(flood.is_some());
    assert!(matches!(desk.client().ask(sign("hot", [])).unwrap(), ReplyBody::Signed(_)));
}

#[test]
fn gates_get_the_code_and_the_time_and_operators_the_reason_too() {
    for (role, sees) in [(Role::Gate, false), (Role::Operator, true)] {
        let desk = desk(Some(role), Terms::default());
        let ReplyBody::Refused(refusal) = desk.client().ask(sign("refused", [])).unwrap() else { panic!("not refused") };
        assert_eq!((refusal.code, refusal.kind, refusal.wait_ms), (RefusalCode::RateWait, RefusalKind::Wait, Some(180_000)));
        assert_eq!(refusal.message.is_some(), sees);
        let noted = desk.rules.refusals.lock().unwrap().clone();
        assert_eq!(noted, [(RefusalCode::RateWait, 1, "sign", Some("refused".to_owned()), true)], "the log has the reason in either case");
    }
}

#[test]
fn a_stranger_is_told_so_and_turned_away() {
    let desk = desk(None, Terms::default());
    let mut stream = desk.raw();
    assert_eq!(code(&read_reply(&mut stream).body), Some(RefusalCode::NotPermitted));
    assert!(is_closed(&mut stream));
}

#[test]
fn gates_cannot_take_the_last_connections() {
    let desk = desk(Some(Role::Gate), Terms { connections: 8, ..Terms::default() });
    let mut open: Vec<Client> = (0..7).map(|_| desk.client()).collect();
    open.iter_mut().for_each(|client| assert!(matches!(client.ask(sign("hot", [])).unwrap(), ReplyBody::Signed(_))));
    assert_eq!(code(&read_reply(&mut desk.raw()).body), Some(RefusalCode::Busy));
    drop(open.pop());
    let again = (0..6_000).any(|_| {
        let mut stream = desk.raw();
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        !matches!(stream.read(&mut [0; 1]), Ok(1))
    });
    assert!(again, "a connection that ended makes room");
}

#[test]
fn a_request_that_meets_a_bug_ends_its_connection_and_nothing_else() {
    let desk = desk(Some(Role::Gate), Terms { signing_threads: 1, ..Terms::default() });
    assert!(matches!(desk.client().ask(sign("bug", [])), Err(ClientError::Broken(_))));
    assert!(matches!(desk.client().ask(sign("hot", [])).unwrap(), ReplyBody::Signed(_)));
}

#[test]
fn a_stop_answers_what_is_under_way_and_refuses_what_still_waits() {
    let desk = desk(Some(Role::Gate), Terms { signing_threads: 2, ..Terms::default() });
    let mut client = desk.client();
    let ids: Vec<u64> = (0..5).map(|_| client.send(sign("closed", [])).unwrap()).collect();
    (0..2).for_each(|_| desk.started.recv_timeout(Duration::from_secs(60)).unwrap());
    // All five are in before the stop begins.
    assert!(matches!(client.ask(RequestBody::Wallets).unwrap(), ReplyBody::Wallets(_)));
    let Desk { server, open, path, .. } = desk;
    let shared = Arc::clone(&server.shared);
    let stopping = thread::spawn(move || server.stop());
    while !shared.stopping() {
        thread::yield_now();
    }
    (0..2).for_each(|_| open.send(()).unwrap());
    let mut replies: BTreeMap<u64, ReplyBody> = BTreeMap::new();
    while replies.len() < 5 {
        let reply = client.receive().unwrap();
        replies.insert(reply.id, reply.body);
    }
    let refused = replies.values().filter(|r| code(r) == Some(RefusalCode::ShuttingDown)).count();
    let signed = replies.values().filter(|r| matches!(r, ReplyBody::Signed(_))).count();
    assert_eq!((signed, refused), (2, 3));
    assert!(ids.iter().all(|id| replies.contains_key(id)));
    assert!(client.receive().is_err(), "the connection ends");
    assert!(stopping.join().unwrap());
    assert!(!path.exists());
    assert!(matches!(Client::connect(&path), Err(ClientError::Connect { .. })));
}
