//! The daemon from socket to ledger, with keys in memory instead of a token. Real tokens are asked in `softhsm-test`.

mod house;

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use bitcoin::{
    Network, Psbt, PublicKey, ScriptBuf, WPubkeyHash,
    bip32::{DerivationPath, Xpriv, Xpub},
    hashes::Hash as _,
    psbt::raw,
    secp256k1::{All, Message, Secp256k1},
};
use ed25519_dalek::SigningKey;
use postern_protocol::{
    command::{Action, Command, Scope, SignedCommand},
    heartbeat,
    key::PublicKey as IdentityKey,
    refusal::{Refusal, RefusalCode},
    reply::{InputSignature, KeystoreStatus, ReplyBody, SignaturePlace, Signed, Status},
    request::{AddressRequest, HeartbeatRequest, RequestBody, SignRequest},
};
use postern_testkit::spend::{self, Coin, Output, Scripts};
use tempfile::TempDir;

use super::*;
use crate::{
    analysis::SigningTask,
    anchor::NoAnchor,
    client::Client,
    command::Manager,
    identity::Identity,
    keystore::{AccountKey, BoundKeys, Keystore, KeystoreError, WalletBinding},
    ledger::Ledger,
    policy::rules::{Limits, PolicyRules, SpendRules, WalletPolicy},
    sign::UNDER_WAY_MAX,
    wallet::{KeyLocator, Wallet},
};
use house::House;

fn sign(psbt: &[u8]) -> RequestBody {
    RequestBody::Sign(SignRequest { wallet: "hot".into(), psbt: psbt.into() })
}

fn signed(reply: ReplyBody) -> Signed {
    match reply {
        ReplyBody::Signed(signed) => signed,
        other => panic!("not signed: {other:?}"),
    }
}

fn refused(reply: ReplyBody) -> Refusal {
    match reply {
        ReplyBody::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn status(client: &mut Client) -> Status {
    match client.ask(RequestBody::Status).unwrap() {
        ReplyBody::Status(status) => *status,
        other => panic!("no status: {other:?}"),
    }
}

#[test]
fn the_same_request_on_many_connections_gets_the_same_signatures_and_is_charged_once() {
    let house = House::new();
    let daemon = house.start();
    let psbt = house.payment(0, 0, 200_000);
    let all: Vec<Signed> = thread::scope(|scope| {
        let askers: Vec<_> = (0..16).map(|_| scope.spawn(|| signed(house.client().ask(sign(&psbt)).unwrap()))).collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).collect()
    });
    assert_eq!(all[0].signatures.len(), 1);
    assert!(all.iter().all(|one| one == &all[0]));
    let now = status(&mut house.client());
    assert_eq!((now.charged_transactions, now.charged_sat), (1, 200_000));
    daemon.stop().unwrap();
}

#[test]
fn a_thousand_requests_sent_at_once_are_all_signed_or_refused_as_busy_and_charged_exactly() {
    let house = House::new();
    let daemon = house.start();
    let mut client = house.client();
    let psbts: Vec<Vec<u8>> = (0..1_000).map(|coin| house.payment(0, coin, 2_000)).collect();
    for psbt in &psbts {
        client.send(sign(psbt)).unwrap();
    }
    let replies: Vec<ReplyBody> = psbts.iter().map(|_| client.receive().unwrap().body).collect();
    let busy = replies.iter().filter(|r| matches!(r, ReplyBody::Refused(refusal) if refusal.code == RefusalCode::Busy)).count();
    let signed = replies.iter().filter(|r| matches!(r, ReplyBody::Signed(_))).count();
    assert_eq!(signed + busy, 1_000);
    assert_eq!(status(&mut client).charged_transactions, signed as u64);
    daemon.stop().unwrap();
}

#[test]
fn a_stop_gives_out_what_was_charged_and_charges_nothing_more() {
    let house = House::new();
    let daemon = house.start();
    let mut client = house.client();
    house.keystore.set(|door| door.closed = true);
    let workers = Terms::default().signing_threads;
    // Five more than are charged before any of them is answered.
    let charged = UNDER_WAY_MAX;
    for coin in 0..u32::try_from(charged).unwrap() + 5 {
        client.send(sign(&house.payment(0, coin, 2_000))).unwrap();
    }
    house.keystore.wait_for_waiting(workers);
    // Too large to be analysed where they are read, and nobody is free to do it.
    for coin in 0..5 {
        let mut psbt = Psbt::deserialize(&house.payment(0, 1_000 + coin, 2_000)).unwrap();
        psbt.unknown.insert(raw::Key { type_value: 0xfc, key: vec![] }, vec![0; 20_000]);
        client.send(sign(&psbt.serialize())).unwrap();
    }
    // Answered out of turn, and proof that all before it was read.
    assert!(matches!(client.ask(RequestBody::Wallets).unwrap(), ReplyBody::Wallets(_)));
    let stopping = thread::spawn(move || daemon.stop());
    // The socket goes away last; new connections are refused first.
    while Client::connect(house.socket()).is_ok_and(|mut c| c.ask(RequestBody::Wallets).is_ok()) {
        thread::yield_now();
    }
    house.keystore.set(|door| door.closed = false);
    let replies: Vec<ReplyBody> = std::iter::from_fn(|| client.receive().ok().map(|reply| reply.body)).collect();
    stopping.join().unwrap().unwrap();
    assert_eq!(replies.len(), charged + 10);
    let refusals = replies.into_iter().filter_map(|r| if let ReplyBody::Refused(refusal) = r { Some(refusal.code) } else { None });
    assert_eq!(refusals.collect::<Vec<_>>(), [RefusalCode::ShuttingDown; 10]);
    assert!(!house.socket().exists());

    let daemon = house.start();
    assert_eq!(status(&mut house.client()).charged_transactions, charged as u64);
    daemon.stop().unwrap();
}

#[test]
fn a_token_that_is_away_costs_the_charge_once_and_the_retry_is_free() {
    let house = House::new();
    house.keystore.set(|door| door.away = true);
    let daemon = house.start();
    let mut client = house.client();
    let psbt = house.payment(0, 0, 200_000);
    for _ in 0..3 {
        assert_eq!(refused(client.ask(sign(&psbt)).unwrap()).code, RefusalCode::KeystoreUnavailable);
    }
    assert!(!status(&mut client).keystores[0].ready);
    house.keystore.set(|door| door.away = false);
    signed(client.ask(sign(&psbt)).unwrap());
    let now = status(&mut client);
    assert_eq!((now.charged_transactions, now.charged_sat), (1, 200_000));
    assert_eq!(now.refusals.iter().filter(|r| r.code == RefusalCode::KeystoreUnavailable.as_str()).count(), 3);
    daemon.stop().unwrap();
}

#[test]
fn operators_see_everything_and_a_heartbeat_is_signed_for_its_nonce() {
    let house = House::new();
    let daemon = house.start();
    let mut client = house.client();
    signed(client.ask(sign(&house.payment(0, 0, 200_000))).unwrap());
    let refusal = refused(client.ask(sign(b"psbt\xff")).unwrap());
    assert!(refusal.message.is_some(), "this test's user is an operator");
    let now = status(&mut client);
    let identity = Identity::open(house.folder.path()).unwrap().public();
    assert_eq!((now.signer.as_str(), now.network.as_str(), now.identity.parse()), ("vault", "regtest", Ok(identity)));
    let total = now.limits.iter().find(|limit| (limit.scope.as_str(), limit.name.as_str()) == ("signer", "total")).unwrap();
    assert_eq!((total.available_sat, total.capacity_sat), (99_800_000, 100_000_000));
    assert_eq!(now.refusals[0].code, refusal.code.as_str());
    assert_eq!(now.keystores.len(), 1);

    let ask = |client: &mut Client, nonce: &[u8]| client.ask(RequestBody::Heartbeat(HeartbeatRequest { nonce: nonce.into() })).unwrap();
    let ReplyBody::Heartbeat(cose) = ask(&mut client, b"nonce") else { panic!("no heartbeat") };
    let report = heartbeat::verify(&cose, &identity, b"nonce").unwrap();
    assert_eq!((report.ledger_head, report.charged_sat), (status(&mut client).ledger_head, 200_000));
    assert!(heartbeat::verify(&cose, &identity, b"other").is_err());
    assert_eq!(refused(ask(&mut client, &[0; 65])).code, RefusalCode::FrameMalformed);
    daemon.stop().unwrap();
}

#[test]
fn a_command_takes_effect_once_for_ever_and_a_freeze_takes_one_manager() {
    let house = House::new();
    let [a, b, _] = &house.managers[..] else { panic!("three managers") };
    let daemon = house.start();
    let mut client = house.client();
    let add = house.command(Action::AddTotal(Scope::Signer, 1_000), &[a, b]);
    let command = |client: &mut Client, bytes: &[u8]| client.ask(RequestBody::Command(bytes.into())).unwrap();
    assert!(matches!(command(&mut client, &add), ReplyBody::Applied(_)));
    assert_eq!(refused(command(&mut client, &add)).code, RefusalCode::CommandSerialUsed);
    let alone = house.command(Action::AddTotal(Scope::Signer, 1_000), &[a]);
    assert_eq!(refused(command(&mut client, &alone)).code, RefusalCode::CommandQuorum);
    let freeze = house.command(Action::Freeze(Scope::Wallet("hot".into())), &[b]);
    assert!(matches!(command(&mut client, &freeze), ReplyBody::Applied(_)));
    daemon.stop().unwrap();

    let daemon = house.start();
    let mut client = house.client();
    assert_eq!(refused(command(&mut client, &add)).code, RefusalCode::CommandSerialUsed);
    assert_eq!(refused(client.ask(sign(&house.payment(0, 0, 2_000))).unwrap()).code, RefusalCode::Frozen);
    assert_eq!(status(&mut client).frozen.len(), 1);
    let unfreeze = house.command(Action::Unfreeze(Scope::Wallet("hot".into())), &[a, b]);
    assert!(matches!(command(&mut client, &unfreeze), ReplyBody::Applied(_)));
    signed(client.ask(sign(&house.payment(0, 0, 2_000))).unwrap());
    daemon.stop().unwrap();
}

#[test]
fn a_forgery_locks_only_where_it_is_configured_and_somebody_can_unlock() {
    for (locks, managers, expected) in [(true, 3, true), (false, 3, false), (true, 0, false)] {
        let mut house = House::new();
        house.locks_on_forgery = locks;
        house.managers.truncate(managers);
        let daemon = house.start();
        let mut client = house.client();
        let stranger = SigningKey::from_bytes(&[9; 32]);
        let forged = house.command(Action::SetTotal(Scope::Signer, 1), &[&stranger]);
        assert_eq!(refused(client.ask(RequestBody::Command(forged)).unwrap()).code, RefusalCode::CommandForged);
        let reply = client.ask(sign(&house.payment(0, 0, 2_000))).unwrap();
        assert_eq!(matches!(&reply, ReplyBody::Refused(refusal) if refusal.code == RefusalCode::Locked), expected, "{reply:?}");
        daemon.stop().unwrap();
    }
}

#[test]
fn an_address_that_was_handed_out_is_recognised_after_a_restart() {
    let house = House::new();
    let daemon = house.start();
    let mut client = house.client();
    let ask = |client: &mut Client, branch, start, count| {
        client.ask(RequestBody::Addresses(AddressRequest { wallet: "hot".into(), branch, start, count })).unwrap()
    };
    let psbt = house.payment(900, 0, 2_000);
    assert_eq!(refused(client.ask(sign(&psbt)).unwrap()).code, RefusalCode::ForeignInput);
    let ReplyBody::Addresses(list) = ask(&mut client, 0, 0, 1_000) else { panic!("no addresses") };
    let expected = Scripts::new(&house.descriptor()).unwrap().script(0, 999).unwrap();
    assert_eq!((list.len(), &list[999].script_pubkey), (1_000, &expected.to_bytes()));
    for (start, count, code) in [
        (0, 1_001, RefusalCode::AddressesTooMany),
        (0, 0, RefusalCode::AddressOutOfRange),
        (u32::MAX, 1, RefusalCode::AddressOutOfRange),
        (1_500, 1, RefusalCode::AddressOutOfRange),
        (2_900, 101, RefusalCode::AddressesTooMany),
    ] {
        assert_eq!(refused(ask(&mut client, 0, start, count)).code, code, "{start} {count}");
    }
    assert_eq!(refused(ask(&mut client, 2, 0, 1)).code, RefusalCode::AddressOutOfRange);
    daemon.stop().unwrap();

    let daemon = house.start();
    signed(house.client().ask(sign(&psbt)).unwrap());
    daemon.stop().unwrap();
}

#[test]
fn a_daemon_without_identity_or_ledger_or_with_a_wrong_key_does_not_start_and_says_why() {
    let house = House::new();
    house.keystore.set(|door| door.wrong = true);
    let error = Daemon::start(house.parts()).err().unwrap();
    assert!(matches!(&error, StartError::Wallet { wallet, .. } if wallet == "hot"), "{error}");
    house.keystore.set(|door| door.wrong = false);

    let identity = house.folder.path().join(crate::identity::IDENTITY_FILE);
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Daemon::start(house.parts()), Err(StartError::Identity(_))));
    std::fs::remove_file(&identity).unwrap();
    let error = Daemon::start(house.parts()).err().unwrap();
    assert!(error.to_string().contains("postern init"), "{error}");
    assert!(!identity.exists(), "the daemon makes no identity");
    Identity::create(house.folder.path()).unwrap();

    let daemon = house.start();
    assert!(matches!(Daemon::start(house.parts()), Err(StartError::Ledger(_))), "one daemon for one state folder");
    daemon.stop().unwrap();
}

#[test]
fn the_identity_in_the_status_is_the_one_that_commands_are_made_for() {
    let house = House::new();
    let daemon = house.start();
    let identity: IdentityKey = status(&mut house.client()).identity.parse().unwrap();
    let [a, b, _] = &house.managers[..] else { panic!("three managers") };
    let elsewhere = House::new().command(Action::AddTotal(Scope::Signer, 1), &[a, b]);
    let refusal = refused(house.client().ask(RequestBody::Command(elsewhere)).unwrap());
    assert_eq!(refusal.code, RefusalCode::CommandSigner);
    assert!(refusal.message.unwrap().contains(&identity.to_string()));
    daemon.stop().unwrap();
}

/// Connects as another user, which only root can: the kernel then tells the daemon that user. None when we are not root.
#[allow(unsafe_code)]
fn client_of_user(house: &House, uid: libc::uid_t) -> Option<Client> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: peers of other users are not tried");
        return None;
    }
    let everybody = |path: PathBuf, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    everybody(house.folder.path().into(), 0o711);
    everybody(house.socket(), 0o666);
    let socket = house.socket();
    let connect = move || {
        // SAFETY: the system call itself, not the C library's function, changes the user of this thread alone, which ends with
        // this closure; its arguments are numbers.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        assert_eq!(changed, 0);
        Client::connect(socket).unwrap()
    };
    let mut client = thread::spawn(connect).join().unwrap();
    client.set_timeout(Some(Duration::from_secs(60))).unwrap();
    Some(client)
}

#[test]
fn what_a_peer_may_ask_and_is_told_follows_from_its_user() {
    const GATE: libc::uid_t = 54_321;
    const OPERATOR: libc::uid_t = 54_322;
    const STRANGER: libc::uid_t = 54_323;
    let house = House::new();
    let daemon = Daemon::start(Parts { roles: Roles::new([GATE], [OPERATOR]), ..house.parts() }).unwrap();
    let Some(mut gate) = client_of_user(&house, GATE) else { return };
    assert_eq!(refused(gate.ask(RequestBody::Status).unwrap()).code, RefusalCode::NotPermitted);
    let told = refused(gate.ask(sign(b"psbt")).unwrap());
    assert_eq!((told.code, told.message), (RefusalCode::PsbtMalformed, None));
    signed(gate.ask(sign(&house.payment(0, 1, 2_000))).unwrap());

    let mut operator = client_of_user(&house, OPERATOR).unwrap();
    assert_eq!(status(&mut operator).charged_transactions, 1);
    assert!(refused(operator.ask(sign(b"psbt")).unwrap()).message.is_some());

    let mut stranger = client_of_user(&house, STRANGER).unwrap();
    assert_eq!(refused(stranger.receive().unwrap().body).code, RefusalCode::NotPermitted);
    assert!(stranger.receive().is_err());
    daemon.stop().unwrap();
}
