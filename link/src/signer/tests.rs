#![allow(clippy::unwrap_used)]

use std::path::Path;

use postern_protocol::request::HeartbeatRequest;
use tokio::net::UnixListener;

use super::*;

fn nonce(n: u8) -> RequestBody {
    RequestBody::Heartbeat(HeartbeatRequest { nonce: vec![n] })
}

async fn read_request(stream: &mut UnixStream) -> Request {
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix).await.unwrap();
    let mut body = vec![0; frame::body_length(prefix, FRAME_MAX).unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    canonical::from_slice(&body).unwrap()
}

/// Answers with the question's nonce.
async fn answer(stream: &mut UnixStream, request: &Request) {
    let RequestBody::Heartbeat(asked) = &request.body else { panic!("{request:?}") };
    let reply = Reply { version: PROTOCOL_VERSION, id: request.id, body: ReplyBody::Heartbeat(asked.nonce.clone()) };
    stream.write_all(&frame::wrap(&canonical::to_vec(&reply)).unwrap()).await.unwrap();
}

fn listen(path: &Path) -> UnixListener {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).unwrap()
}

#[tokio::test]
async fn replies_in_any_order_find_their_askers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = listen(&path);
    let socket = SignerSocket::new(path);
    let signer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (one, two) = (read_request(&mut stream).await, read_request(&mut stream).await);
        answer(&mut stream, &two).await;
        answer(&mut stream, &one).await;
    };
    let (first, second, ()) = tokio::join!(socket.ask(nonce(1)), socket.ask(nonce(2)), signer);
    assert_eq!(first.unwrap(), ReplyBody::Heartbeat(vec![1]));
    assert_eq!(second.unwrap(), ReplyBody::Heartbeat(vec![2]));
}

#[tokio::test]
async fn what_is_unanswered_is_asked_again_after_the_signer_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = listen(&path);
    let socket = SignerSocket::new(path.clone());
    let signer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (one, _two) = (read_request(&mut stream).await, read_request(&mut stream).await);
        answer(&mut stream, &one).await;
        drop((stream, listener));
        let listener = listen(&path);
        let (mut stream, _) = listener.accept().await.unwrap();
        let two = read_request(&mut stream).await;
        answer(&mut stream, &two).await;
    };
    let (first, second, ()) = tokio::join!(socket.ask(nonce(1)), socket.ask(nonce(2)), signer);
    assert_eq!(first.unwrap(), ReplyBody::Heartbeat(vec![1]));
    assert_eq!(second.unwrap(), ReplyBody::Heartbeat(vec![2]));
}

#[tokio::test]
async fn a_signer_that_announces_too_much_is_cut_off_and_asked_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = listen(&path);
    let socket = SignerSocket::new(path);
    let signer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let again = read_request(&mut stream).await;
        answer(&mut stream, &again).await;
    };
    let (reply, ()) = tokio::join!(socket.ask(nonce(7)), signer);
    assert_eq!(reply.unwrap(), ReplyBody::Heartbeat(vec![7]));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_breaks_every_connection_is_refused_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = listen(&path);
    let socket = SignerSocket::new(path);
    let signer = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
        }
    };
    tokio::select! {
        reply = socket.ask(nonce(1)) => {
            let ReplyBody::Refused(refusal) = reply.unwrap() else { panic!() };
            assert_eq!(refusal.code, RefusalCode::Busy);
        }
        () = signer => unreachable!(),
    }
}
