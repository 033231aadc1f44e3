//! Power cuts, clean stops, tokens that go away: nothing is lost, nothing is invented, nothing is charged twice.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use postern_protocol::refusal::RefusalCode;
use postern_testkit::{
    VaultPlan, WalletPlan,
    wait::{PATIENCE, wait_until},
};

use crate::coins::Purse;

fn hot() -> VaultPlan {
    VaultPlan::default().limits("total = \"100 BTC\"").wallet(WalletPlan::new("hot", "seed", "wpkh(@)"))
}

#[test]
fn after_a_kill_a_retry_is_free_and_gives_the_same_signatures() {
    let mut purse = Purse::new("kill", hot(), 1).unwrap();
    let payment = purse.payment("hot", 300_000).unwrap();
    let signed = purse.ask("hot", &payment).unwrap().unwrap();
    purse.vault.stop().unwrap();
    purse.vault.launch().unwrap();
    assert_eq!(purse.ask("hot", &payment).unwrap().unwrap(), signed);
    purse.vault.kill().unwrap();
    purse.vault.launch().unwrap();
    assert_eq!(purse.ask("hot", &payment).unwrap().unwrap(), signed);
    assert_eq!(purse.charged_sat().unwrap(), 300_000);
    purse.vault.postern(&["ledger", "verify"]).unwrap();
}

#[test]
fn kills_under_load_lose_no_charge_and_charge_nothing_twice() {
    const COINS: u32 = 60;
    // With an anchor, each kill may burn a lease besides.
    let mut purse = Purse::new("kills", hot().without_anchor(), COINS).unwrap();
    let payments: Vec<Vec<u8>> = (0..COINS).map(|_| purse.payment("hot", 10_000).unwrap().serialize()).collect();
    for _ in 0..3 {
        let (stop, signed) = (AtomicBool::new(false), AtomicU64::new(0));
        let socket = purse.vault.socket().to_owned();
        std::thread::scope(|s| {
            for part in payments.chunks(15) {
                let (stop, signed, socket) = (&stop, &signed, &socket);
                s.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let Ok(mut connection) = postern_testkit::SignerSocket::connect(socket) else { continue };
                        for payment in part {
                            if !matches!(connection.sign("hot", payment), Ok(Ok(_))) {
                                break;
                            }
                            signed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            wait_until("some signatures", PATIENCE, || Ok(signed.load(Ordering::Relaxed) > 20)).unwrap();
            purse.vault.kill().unwrap();
            stop.store(true, Ordering::Relaxed);
        });
        purse.vault.launch().unwrap();
    }
    let mut socket = purse.vault.connect().unwrap();
    for payment in &payments {
        socket.sign("hot", payment).unwrap().unwrap();
    }
    let status = socket.status().unwrap();
    assert_eq!((status.charged_sat, status.charged_transactions), (10_000 * u64::from(COINS), u64::from(COINS)));
    purse.vault.postern(&["ledger", "verify"]).unwrap();
}

#[test]
fn a_clean_stop_answers_what_is_charged_and_leaves_no_socket() {
    let mut purse = Purse::new("stop", hot(), 40).unwrap();
    let payments: Vec<Vec<u8>> = (0..40).map(|_| purse.payment("hot", 10_000).unwrap().serialize()).collect();
    let mut socket = purse.vault.connect().unwrap();
    for payment in &payments {
        let request = postern_protocol::request::SignRequest { wallet: "hot".into(), psbt: payment.clone() };
        socket.send(postern_protocol::request::RequestBody::Sign(request)).unwrap();
    }
    let first = socket.receive().unwrap();
    purse.vault.stop().unwrap();
    assert!(!purse.vault.socket().exists());
    let replies: Vec<_> = std::iter::once(first).chain(std::iter::from_fn(|| socket.receive().ok())).collect();
    let signed = replies.iter().filter(|r| matches!(r.body, postern_protocol::reply::ReplyBody::Signed(_))).count() as u64;
    purse.vault.launch().unwrap();
    assert!(signed > 0);
    assert_eq!(purse.vault.connect().unwrap().status().unwrap().charged_transactions, signed, "charged and not answered");
}

#[test]
fn a_token_that_goes_away_and_comes_back_needs_no_restart_and_the_charge_is_kept() {
    let purse = Purse::new("token_gone", hot(), 2).unwrap();
    purse.pay("hot", 300_000).unwrap().unwrap();
    purse.vault.token().pull_out().unwrap();
    let payment = purse.payment("hot", 200_000).unwrap();
    wait_until("the signer to notice", PATIENCE, || Ok(!purse.vault.connect()?.status()?.keystores.iter().all(|k| k.ready))).unwrap();
    assert_eq!(purse.ask("hot", &payment).unwrap().unwrap_err().code, RefusalCode::KeystoreUnavailable);
    assert_eq!(purse.charged_sat().unwrap(), 500_000);
    purse.vault.token().put_back().unwrap();
    wait_until("the token to be used again", PATIENCE, || Ok(purse.ask("hot", &payment)?.is_ok())).unwrap();
    assert_eq!(purse.charged_sat().unwrap(), 500_000);
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let mut purse = Purse::new("pin", hot().without_anchor(), 1).unwrap();
    purse.vault.stop().unwrap();
    std::fs::write(purse.vault.token().pin_file(), "0000").unwrap();
    purse.vault.launch().unwrap();
    let payment = purse.payment("hot", 300_000).unwrap();
    for _ in 0..3 {
        assert_eq!(purse.ask("hot", &payment).unwrap().unwrap_err().code, RefusalCode::KeystorePin);
    }
    // A token counts wrong PINs and locks; the right one still works.
    purse.vault.stop().unwrap();
    std::fs::write(purse.vault.token().pin_file(), purse.vault.token().pin()).unwrap();
    purse.vault.launch().unwrap();
    purse.ask("hot", &payment).unwrap().unwrap();
}

#[test]
fn the_signer_owns_no_network_socket() {
    let mut purse = Purse::new("sockets", hot(), 1).unwrap();
    purse.pay("hot", 300_000).unwrap().unwrap();
    assert_eq!(purse.vault.signer().unwrap().network_sockets().unwrap(), Vec::<String>::new());
}
