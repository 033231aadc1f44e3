//! Signers that say what they booted: pinned at first contact, asked again, and without orders when it is something else.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use postern_protocol::{
    PROTOCOL_VERSION,
    attest::Statement,
    canonical, frame,
    refusal::{Refusal, RefusalCode},
    reply::{Reply, ReplyBody},
    request::{AttestRequest, Request, RequestBody},
};
use postern_testkit::{
    SignerSocket, TempRun,
    site::{Site, SitePlan},
    wait::{PATIENCE, wait_for},
};
use serde_json::Value;

use crate::stage::{self, BTC, order, payee, received};

/// A site whose signer has a TPM beside its token, with 1 BTC in its wallet.
fn site(label: &str, attestation: &str) -> Site {
    let run = TempRun::new(label).unwrap();
    let vault = stage::vault("total = \"1 BTC\"").with_tpm();
    let site = SitePlan::new([vault]).attestation(attestation).wallet_lines(stage::LINES).start(&run).unwrap();
    site.deposit("hot", "first", BTC).unwrap();
    site
}

/// Often enough for a test, and not too often for the signer.
const OFTEN: &str = "every = \"11 s\"\nretry = \"11 s\"";

fn attestation(site: &Site) -> Value {
    site.shop().get("/v1/signers").unwrap().body["signers"][0]["attestation"].clone()
}

/// Waits until it is as wanted.
fn when(site: &Site, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let waited = wait_for(what, PATIENCE, || {
        last = attestation(site);
        Ok(is(&last).then(|| last.clone()))
    });
    waited.unwrap_or_else(|e| panic!("{e:#}: {last}"))
}

fn good(site: &Site) -> Value {
    when(site, "the signer to be believed", |a| a["state"] == "good")
}

fn held(site: &Site, code: &str) -> Value {
    when(site, code, |a| a["state"] == "held" && a["problem"]["code"] == code)
}

/// An order that waits for what the signer booted, unsigned.
fn waits(site: &Site, name: &str, code: &str) -> String {
    let charged = |site: &Site| site.vaults[0].connect().unwrap().status().unwrap().charged_sat;
    let before = charged(site);
    let id = order(site, name, 1_000_000);
    let waiting = site.wait_for_order(&id, code, |o| o["blocked"]["code"] == code).unwrap();
    assert!(waiting["state"] == "approved" && charged(site) == before, "{waiting}");
    id
}

#[test]
fn a_signer_that_booted_something_else_gets_no_orders_until_an_operator_accepts_it() {
    let mut site = site("attested", OFTEN);
    let pinned = good(&site);
    assert!(pinned["key"].as_str().unwrap().starts_with("p256:") && pinned["pcrs"]["11"].is_string(), "{pinned}");
    let first = order(&site, "first", 1_000_000);
    site.confirm(&first).unwrap();
    // Asked again, and as before.
    let again = when(&site, "a second statement", |a| a["verified_at"].as_i64() > pinned["pinned_at"].as_i64());
    assert!(again["state"] == "good" && again["pcrs"] == pinned["pcrs"], "{again}");

    site.vaults[0].measure(11, 1).unwrap();
    held(&site, "attestation.changed");
    let id = waits(&site, "second", "attestation.changed");
    site.kill_coordinator().unwrap();
    site.start_coordinator().unwrap();
    let changed = held(&site, "attestation.changed");
    assert!(changed["pcrs"] == pinned["pcrs"] && changed["key"] == pinned["key"], "the pin did not outlive the coordinator: {changed}");

    let message = site.look(&id).unwrap()["blocked"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("PCR 11 (kernel image) holds") && !message.contains("PCR 7"), "{message}");
    let seen = message.split("--seen ").nth(1).unwrap().trim_end_matches('`').to_owned();
    let wrong = site.coordinate(&["signer", "accept", "vault", "--seen", &"0".repeat(32)]).unwrap_err();
    assert!(format!("{wrong:#}").contains("look at it again"), "{wrong:#}");
    let shown = site.coordinate(&["signer", "attestation", "vault"]).unwrap();
    assert!(shown.contains("PCR 11 (kernel image)") && shown.contains("<- differs") && shown.contains(&seen), "{shown}");
    let accepted = site.coordinate(&["signer", "accept", "vault", "--seen", &seen]).unwrap();
    assert!(accepted.contains("PCR 11 (kernel image)"), "{accepted}");
    let after = good(&site);
    assert!(after["pcrs"]["11"] != pinned["pcrs"]["11"] && after["pcrs"]["7"] == pinned["pcrs"]["7"], "{after}");
    site.confirm(&id).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("second")).unwrap(), [1_000_000]);
}

#[test]
fn a_restarted_signer_is_asked_at_once() {
    let mut site = site("attested_restart", "every = \"1 day\"");
    let before = good(&site);
    // Long enough that its next report shows a younger signer.
    wait_for("a report", PATIENCE, || {
        let reply = site.shop().get("/v1/signers")?;
        Ok(reply.body["signers"][0]["heartbeat"]["uptime_ms"].as_u64().filter(|ms| *ms > 4_000))
    })
    .unwrap();
    site.vaults[0].kill().unwrap();
    site.vaults[0].measure(11, 1).unwrap();
    site.vaults[0].launch().unwrap();
    let changed = held(&site, "attestation.changed");
    assert!(changed["asked_at"].as_i64() > before["asked_at"].as_i64(), "{changed}");
}

#[test]
fn a_signer_without_a_tpm_that_is_not_declared_so_gets_no_orders_and_the_reason_names_the_line() {
    let mut site = stage::site("undeclared", "total = \"1 BTC\"");
    assert_eq!(attestation(&site)["state"], "none");
    site.kill_coordinator().unwrap();
    let declared = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), declared.replace("[signer.vault]\nattestation = \"none\"\n", "")).unwrap();
    site.start_coordinator().unwrap();
    let problem = held(&site, "attestation.no_tpm")["problem"]["message"].as_str().unwrap().to_owned();
    assert!(problem.contains("[signer.vault] attestation = \"none\""), "{problem}");
    let id = waits(&site, "alice", "attestation.no_tpm");
    site.kill_coordinator().unwrap();
    fs::write(site.config(), declared).unwrap();
    site.start_coordinator().unwrap();
    site.confirm(&id).unwrap();
}

/// What a link in other hands does with statements.
#[derive(Debug, Clone)]
enum Trick {
    Honest,
    /// Shows this one again.
    Replay(Box<Statement>),
    /// Asks with a nonce of its own.
    OtherNonce,
    /// Says in the signer's name that there is no TPM.
    Denies,
}

/// Stands between link and signer, and does to the words what a taken-over link could.
#[derive(Clone)]
struct HostileLink {
    signer: PathBuf,
    trick: Arc<Mutex<Trick>>,
}

impl HostileLink {
    /// Puts itself in the place of the signer's link. The thread ends with the test.
    fn take_over(site: &mut Site) -> Self {
        site.kill_link(0).unwrap();
        let (signer, ours) = (site.vaults[0].socket().to_owned(), site.folder().join("hostile.sock"));
        let config = site.link_config(0).unwrap().to_owned();
        let text = fs::read_to_string(&config).unwrap();
        let replaced = text.replace(&format!("{signer:?}"), &format!("{ours:?}"));
        assert_ne!(text, replaced);
        fs::write(&config, replaced).unwrap();
        let link = Self { signer, trick: Arc::new(Mutex::new(Trick::Honest)) };
        let listener = UnixListener::bind(&ours).unwrap();
        let served = link.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (link, stream) = (served.clone(), stream.unwrap());
                thread::spawn(move || link.serve(stream));
            }
        });
        site.start_link(0).unwrap();
        link
    }

    fn set(&self, trick: Trick) {
        *self.trick.lock().unwrap() = trick;
    }

    fn serve(&self, mut stream: UnixStream) -> Option<()> {
        let mut signer = SignerSocket::connect(Path::new(&self.signer)).ok()?;
        loop {
            let mut prefix = [0; frame::PREFIX];
            stream.read_exact(&mut prefix).ok()?;
            let mut bytes = vec![0; frame::body_length(prefix, frame::FRAME_MAX).ok()?];
            stream.read_exact(&mut bytes).ok()?;
            let request: Request = canonical::from_slice(&bytes).ok()?;
            let body = match (&request.body, self.trick.lock().unwrap().clone()) {
                (RequestBody::Attest(_), Trick::Replay(old)) => ReplyBody::Attested(old),
                (RequestBody::Attest(_), Trick::Denies) => ReplyBody::Refused(Refusal::new(RefusalCode::AttestNoTpm, "")),
                (RequestBody::Attest(_), Trick::OtherNonce) => signer.ask(another_question()).ok()?,
                _ => signer.ask(request.body).ok()?,
            };
            let reply = Reply { version: PROTOCOL_VERSION, id: request.id, body };
            stream.write_all(&frame::wrap(&canonical::to_vec(&reply)).ok()?).ok()?;
        }
    }
}

fn another_question() -> RequestBody {
    RequestBody::Attest(AttestRequest { nonce: "0123456789abcdef".into() })
}

#[test]
fn a_link_that_shows_an_old_statement_or_one_for_another_nonce_is_noticed_and_no_orders_go_to_it() {
    let mut site = site("attested_hostile", OFTEN);
    good(&site);
    let ReplyBody::Attested(old) = site.vaults[0].connect().unwrap().ask(another_question()).unwrap() else { panic!("no statement") };
    let link = HostileLink::take_over(&mut site);
    link.set(Trick::Replay(old));
    let problem = held(&site, "attestation.bad")["problem"]["message"].as_str().unwrap().to_owned();
    assert!(problem.contains("answers another nonce"), "{problem}");
    let id = waits(&site, "alice", "attestation.bad");
    link.set(Trick::Denies);
    held(&site, "attestation.no_tpm");
    link.set(Trick::OtherNonce);
    held(&site, "attestation.bad");
    // A link that is the signer's own again needs nobody.
    link.set(Trick::Honest);
    good(&site);
    site.confirm(&id).unwrap();
    assert_eq!(received(&site.bitcoind, &payee("alice")).unwrap(), [1_000_000]);
}
