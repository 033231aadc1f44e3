//! What stands behind the socket: each kind of request, and the room that answers it.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use postern_protocol::{
    heartbeat::{Heartbeat, NONCE_MAX},
    refusal::{Refusal, RefusalCode},
    reply::{ReplyBody, Status, WalletInfo},
    request::RequestBody,
};

use super::{
    addresses::AddressRoom,
    peer::Roles,
    refusals::Refusals,
    server::{About, Answer, Office},
};
use crate::{
    attest::AttestRoom,
    clock::Clock,
    command::{CommandRules, NotBelieved},
    identity::Identity,
    intake::{Admitted, Role},
    keystore::Keystore,
    lane::Lane,
    ledger::Ledger,
    sign::SigningRoom,
    wallet::{Wallet, WalletKind},
};

/// The signer behind the socket.
pub(super) struct SignerOffice {
    pub(super) name: String,
    pub(super) network: String,
    pub(super) policy_hash: String,
    pub(super) identity: Identity,
    pub(super) roles: Roles,
    pub(super) discloses: bool,
    pub(super) clock: Clock,
    pub(super) signing: Arc<SigningRoom>,
    pub(super) addresses: AddressRoom,
    pub(super) commands: CommandRules,
    pub(super) locks_on_forgery: bool,
    pub(super) ledger: Arc<Ledger>,
    pub(super) keystores: Vec<Arc<dyn Keystore>>,
    pub(super) attest: AttestRoom,
    pub(super) refusals: Refusals,
}

impl Office for SignerOffice {
    fn role(&self, uid: u32) -> Option<Role> {
        self.roles.role(uid)
    }

    fn discloses(&self) -> bool {
        self.discloses
    }

    fn is_quick(&self, asked: &RequestBody) -> bool {
        matches!(asked, RequestBody::Sign(request) if self.signing.is_quick(request))
    }

    fn answer(&self, asked: Admitted, lane: &Arc<Lane>, answer: Answer) {
        let outcome = match asked.into_body() {
            RequestBody::Sign(request) => {
                return self.signing.sign(&request, lane, Box::new(|outcome| answer(outcome.map(ReplyBody::Signed))));
            }
            RequestBody::Addresses(request) => {
                let room = self.signing.wallet(&request.wallet);
                room.and_then(|room| self.addresses.hand_out(room, &request)).map(ReplyBody::Addresses)
            }
            RequestBody::Wallets => Ok(ReplyBody::Wallets(self.signing.wallets().values().map(|room| info(&room.wallet)).collect())),
            RequestBody::Status => Ok(ReplyBody::Status(Box::new(self.status()))),
            RequestBody::Heartbeat(request) => self.heartbeat(request.nonce).map(ReplyBody::Heartbeat),
            RequestBody::Command(bytes) => self.command(&bytes),
            RequestBody::Attest(request) => {
                self.attest.answer(&request.nonce, &self.identity, self.clock.now()).map(|said| ReplyBody::Attested(Box::new(said)))
            }
        };
        answer(outcome);
    }

    fn stop(&self) {
        self.signing.stop();
    }

    fn refused(&self, refusal: &Refusal, about: &About<'_>) {
        self.refusals.note(refusal, about, wall_s());
    }
}

impl SignerOffice {
    /// Believes a command, has it on disk, and only then says so.
    fn command(&self, bytes: &[u8]) -> Result<ReplyBody, Refusal> {
        let command = self.commands.verify(bytes, wall_s()).map_err(|no| self.not_believed(no))?;
        let managers = command.managers.join(", ");
        let applied = self.ledger.apply(command, self.clock.now())?;
        log::warn!(serial = applied.serial, managers = managers.as_str(); "command {} of {managers}: {}", applied.serial, applied.effect);
        Ok(ReplyBody::Applied(applied))
    }

    /// A forgery locks what it was meant to touch, if there are managers to unlock it.
    fn not_believed(&self, no: NotBelieved) -> Refusal {
        if let Some(scope) = no.forged
            && self.locks_on_forgery
            && !self.commands.managers.is_empty()
        {
            let why = format!("a forged command was shown: {}", no.refusal.message.as_deref().unwrap_or_default());
            match self.ledger.lock(scope.clone(), &why, self.clock.now()) {
                Ok(()) => log::error!("ALARM: {scope} is locked: {why}"),
                Err(e) => log::error!("{scope} is not locked after a forgery: {e}"),
            }
        }
        no.refusal
    }

    fn status(&self) -> Status {
        let now = self.clock.now();
        let (head, totals) = (self.ledger.head(), self.ledger.totals());
        Status {
            signer: self.name.clone(),
            network: self.network.clone(),
            policy_hash: self.policy_hash.clone(),
            identity: self.identity.public().to_string(),
            uptime_ms: now.as_millis(),
            limits: self.ledger.levels(now),
            ledger_seq: head.seq,
            ledger_head: hex::encode(head.hash),
            anchor: self.ledger.anchor(),
            keystores: self.keystores.iter().map(|keystore| keystore.status()).collect(),
            frozen: self.ledger.frozen(),
            refusals: self.refusals.newest(),
            charged_sat: totals.charged_sat,
            charged_transactions: totals.transactions,
            base: self.ledger.base().map(hex::encode),
            rebase: self.ledger.rebase_needed(),
        }
    }

    fn heartbeat(&self, nonce: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        if nonce.len() > NONCE_MAX {
            let message = format!("a heartbeat's nonce of {} bytes; at most {NONCE_MAX} are signed", nonce.len());
            return Err(Refusal::new(RefusalCode::FrameMalformed, message));
        }
        let now = self.clock.now();
        let head = self.ledger.head();
        let down = self.keystores.iter().map(|keystore| keystore.status()).filter(|status| !status.ready).map(|status| status.name);
        let report = Heartbeat {
            nonce,
            signer: self.name.clone(),
            network: self.network.clone(),
            policy_hash: self.policy_hash.clone(),
            ledger_seq: head.seq,
            ledger_head: hex::encode(head.hash),
            limits: self.ledger.levels(now),
            charged_sat: self.ledger.totals().charged_sat,
            uptime_ms: now.as_millis(),
            keystores_down: down.collect(),
            frozen: self.ledger.frozen(),
        };
        // It can only fail to encode, which its own types rule out.
        self.identity.sign_heartbeat(&report).map_err(|e| Refusal::new(RefusalCode::FrameMalformed, e.to_string()))
    }
}

fn info(wallet: &Wallet) -> WalletInfo {
    let kind = match wallet.kind() {
        WalletKind::Hsm => "hsm",
        WalletKind::Pool => "pool",
        WalletKind::Seed => "seed",
    };
    WalletInfo { name: wallet.name().into(), kind: kind.into(), descriptor: wallet.descriptor(), gap: wallet.gap() }
}

/// Seconds since 1970 by the wall clock; 0 when it stands before.
fn wall_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
