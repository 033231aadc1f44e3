//! Refused at the door: frames that are none, wallets that do not exist, more addresses than there are.

use postern_protocol::{
    PROTOCOL_VERSION, canonical,
    refusal::{Refusal, RefusalCode},
    reply::{ADDRESSES_MAX, ReplyBody},
    request::{AddressRequest, AttestRequest, Request, RequestBody},
};
use postern_testkit::{SignerSocket, TempRun, Vault, VaultPlan, WalletPlan};

fn vault(label: &str) -> Vault {
    let run = TempRun::new(label).unwrap();
    let plan = VaultPlan::default().frame_max(64 * 1024);
    plan.wallet(WalletPlan::new("hot", "seed", "wpkh(@)").with("gap = 20")).start(&run).unwrap()
}

fn refusal(body: ReplyBody) -> Refusal {
    match body {
        ReplyBody::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn addresses(socket: &mut SignerSocket, wallet: &str, branch: u32, start: u32, count: u32) -> ReplyBody {
    socket.ask(RequestBody::Addresses(AddressRequest { wallet: wallet.into(), branch, start, count })).unwrap()
}

#[test]
fn a_frame_over_the_cap_is_refused_from_its_length_alone_and_ends_the_connection() {
    let vault = vault("too_large");
    let mut socket = vault.connect().unwrap();
    // Nothing follows: the signer must not wait for it.
    socket.send_raw(&(64u32 * 1024 + 1).to_be_bytes()).unwrap();
    assert_eq!(refusal(socket.receive().unwrap().body).code, RefusalCode::FrameTooLarge);
    assert!(socket.receive().is_err(), "the connection goes on after a frame that nobody read");
    assert!(matches!(vault.connect().unwrap().ask(RequestBody::Wallets).unwrap(), ReplyBody::Wallets(_)));
}

#[test]
fn a_frame_that_is_no_request_and_one_of_another_version_are_refused() {
    let vault = vault("no_request");
    let mut socket = vault.connect().unwrap();
    socket.send_bytes(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(refusal(socket.receive().unwrap().body).code, RefusalCode::FrameMalformed);
    let mut socket = vault.connect().unwrap();
    let old = Request { version: PROTOCOL_VERSION + 1, id: 7, body: RequestBody::Wallets };
    socket.send_bytes(&canonical::to_vec(&old)).unwrap();
    assert_eq!(refusal(socket.receive().unwrap().body).code, RefusalCode::VersionUnsupported);
}

#[test]
fn what_no_wallet_has_is_refused() {
    let vault = vault("no_wallet");
    let mut socket = vault.connect().unwrap();
    assert_eq!(socket.sign("cold", b"psbt\xff").unwrap().unwrap_err().code, RefusalCode::WalletUnknown);
    assert_eq!(refusal(addresses(&mut socket, "cold", 0, 0, 1)).code, RefusalCode::WalletUnknown);
    assert_eq!(refusal(addresses(&mut socket, "hot", 0, 0, ADDRESSES_MAX + 1)).code, RefusalCode::AddressesTooMany);
    for (branch, start) in [(2, 0), (0, 21), (0, u32::MAX)] {
        assert_eq!(refusal(addresses(&mut socket, "hot", branch, start, 1)).code, RefusalCode::AddressOutOfRange, "{branch}/{start}");
    }
    let ReplyBody::Addresses(list) = addresses(&mut socket, "hot", 0, 0, 20) else { panic!("no addresses") };
    let scripts = vault.scripts("hot").unwrap();
    for (n, address) in (0..).zip(&list) {
        assert_eq!(address.script_pubkey, scripts.script(0, n).unwrap().to_bytes(), "{n}");
    }
    assert_eq!(list.len(), 20);
}

#[test]
fn a_signer_without_a_tpm_says_so_to_who_asks_what_was_booted() {
    let vault = vault("no_tpm");
    let mut socket = vault.connect().unwrap();
    let mut ask = |nonce: &str| refusal(socket.ask(RequestBody::Attest(AttestRequest { nonce: nonce.into() })).unwrap()).code;
    assert_eq!(ask("0123456789abcdef"), RefusalCode::AttestNoTpm);
    assert_eq!(ask("short"), RefusalCode::FrameMalformed);
}
