//! What happens to the signer meanwhile: kills, stops, old disks, a token that goes away, commands that nobody ordered. One thing after
//! the other, while the attackers go on.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use postern_protocol::{
    command::{Action, Command, Scope},
    key::PublicKey,
};
use postern_testkit::{
    Managers, Vault,
    managers::command,
    wait::{PATIENCE, wait_for, wait_until},
};
use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};
use rustix::process::Signal;

use super::{RATE_SAT, arena::Arena, tally::Kind};
use crate::child;

type Event = fn(&mut Stage<'_>) -> Result<()>;

const fn event(name: &'static str, expected: &'static [&'static str]) -> Kind {
    Kind { name, expected, never: false }
}

const KILL: Kind = event("kill -9 and restart", &["restarted"]);
const STOP: Kind = event("SIGTERM and restart", &["restarted"]);
const ROLL_BACK: Kind = event("an old state folder after a kill", &["restarted"]);
const ROLL_BACK_CLEAN: Kind = event("an old state folder after a clean stop", &["restarted"]);
const PULL: Kind = event("pull the token out and put it back", &["came back"]);
const PAUSE: Kind = event("stop its clock (SIGSTOP)", &["went on"]);
const RAISE: Kind = event("a configuration with larger limits", &["restarted"]);
const FORGE: Kind = event("a forged command", &["refused.command_forged"]);
const SHORT: Kind = event("a command of too few managers", &["refused.command_quorum"]);
const ELSEWHERE: Kind = event("a command for another signer", &["refused.command_signer"]);
const NETWORK: Kind = event("a command for another network", &["refused.command_network"]);
const EXPIRED: Kind = event("a command of last year", &["refused.command_expired"]);
/// At the very end, since nothing but a re-base passes from then on.
const OLD: Kind = event("the first state folder, and every used command again", &["refused.ledger_stale"]);
const REBASED: Kind = event("every used command again after a re-base", &["refused.command_base"]);

/// All kinds of what happens here.
pub(crate) fn kinds() -> impl Iterator<Item = Kind> {
    EVENTS.iter().map(|(kind, _)| *kind).chain([OLD, REBASED])
}

/// All but the last.
const EVENTS: &[(Kind, Event)] = &[
    (KILL, kill),
    (STOP, stop),
    (ROLL_BACK, |stage| stage.roll_back(ROLL_BACK, Vault::kill)),
    (ROLL_BACK_CLEAN, |stage| stage.roll_back(ROLL_BACK_CLEAN, Vault::stop)),
    (PULL, pull_out),
    (PAUSE, pause),
    (RAISE, raise),
    (FORGE, forge),
    (SHORT, |stage| {
        let order = stage.command(|_| ());
        let bytes = stage.vault.managers().sign(order, &[0])?;
        stage.send(SHORT, &bytes)
    }),
    (ELSEWHERE, |stage| stage.misdirected(ELSEWHERE, |command| command.signer = [7; 32])),
    (NETWORK, |stage| stage.misdirected(NETWORK, |command| command.network = "bitcoin".into())),
    (EXPIRED, |stage| stage.misdirected(EXPIRED, |command| command.expires = 1_700_000_000)),
];

struct Stage<'a> {
    vault: &'a mut Vault,
    arena: &'a Arena,
    rng: &'a mut StdRng,
    identity: PublicKey,
    /// Copies of the state folder.
    copies: PathBuf,
}

/// Everything once, in any order, and again until the time is over.
pub(crate) fn conduct(vault: &mut Vault, arena: &Arena, rng: &mut StdRng, duration: Duration) -> Result<()> {
    let until = Instant::now() + duration;
    let copies = vault.state().with_extension("copies");
    fs::create_dir_all(&copies)?;
    let identity = vault.identity()?;
    let mut stage = Stage { vault, arena, rng, identity, copies };
    stage.vault.stop()?;
    copy(stage.vault.state(), &stage.copies.join("first"))?;
    stage.vault.launch()?;
    loop {
        let mut round: Vec<_> = EVENTS.iter().collect();
        round.shuffle(stage.rng);
        for (kind, event) in round {
            if child::interrupted() {
                bail!("interrupted");
            }
            stage.wait(200..900);
            stage.feed()?;
            event(&mut stage).with_context(|| kind.name.to_owned())?;
        }
        if Instant::now() >= until {
            break;
        }
    }
    stage.wait(300..600);
    stage.feed()?;
    stage.old_age()
}

/// Nothing happens meanwhile but that managers let more out, so that there is something to ask for.
pub(crate) fn watch(vault: &mut Vault, arena: &Arena, rng: &mut StdRng, duration: Duration) -> Result<()> {
    let until = Instant::now() + duration;
    let (identity, copies) = (vault.identity()?, PathBuf::new());
    let mut stage = Stage { vault, arena, rng, identity, copies };
    while Instant::now() < until {
        if child::interrupted() {
            bail!("interrupted");
        }
        stage.wait(100..200);
        stage.feed()?;
    }
    Ok(())
}

impl Stage<'_> {
    fn wait(&mut self, ms: std::ops::Range<u64>) {
        thread::sleep(Duration::from_millis(self.rng.gen_range(ms)));
    }

    /// A quorum lets more out when the total is used up: the promise is about what they let.
    fn feed(&mut self) -> Result<()> {
        if self.arena.hungry.swap(false, Ordering::Relaxed) {
            let more_sat = RATE_SAT * self.rng.gen_range(3..8);
            let bytes = self.vault.managers().order(self.identity, Action::AddTotal(Scope::Signer, more_sat))?;
            self.arena.book.add_total(more_sat);
            self.order(&bytes)?;
        }
        Ok(())
    }

    /// What a quorum orders is done, and kept to be sent again.
    fn order(&self, bytes: &[u8]) -> Result<()> {
        wait_until("a managers' command to be applied", PATIENCE, || {
            // The attackers may hold every connection.
            let Ok(mut socket) = self.arena.connect() else { return Ok(false) };
            let Ok(answer) = socket.command(bytes) else { return Ok(false) };
            match answer {
                Ok(_) => Ok(true),
                Err(refusal) if refusal.code.as_str() == "refused.command_serial_used" => Ok(true),
                Err(refusal) if refusal.kind == postern_protocol::refusal::RefusalKind::Wait => Ok(false),
                Err(refusal) => bail!("a quorum's command was refused: {refusal}"),
            }
        })?;
        self.arena.used.lock().unwrap_or_else(PoisonError::into_inner).push(bytes.to_vec());
        Ok(())
    }

    /// An order that would let a lot out.
    fn command(&self, change: impl FnOnce(&mut Command)) -> Command {
        let mut command = command(self.identity, Action::AddTotal(Scope::Signer, 2_000_000_000));
        change(&mut command);
        command
    }

    fn send(&self, kind: Kind, bytes: &[u8]) -> Result<()> {
        wait_until(kind.name, PATIENCE, || {
            let Ok(mut socket) = self.arena.connect() else { return Ok(false) };
            let Ok(answer) = socket.command(bytes) else { return Ok(false) };
            match answer {
                Ok(_) => bail!("`{}` took effect", kind.name),
                Err(refusal) => self.arena.tally.refused(kind, refusal.code),
            }
            Ok(true)
        })
    }

    fn misdirected(&self, kind: Kind, change: impl FnOnce(&mut Command)) -> Result<()> {
        let command = self.command(change);
        let bytes = self.vault.managers().sign(command, &[0, 1])?;
        self.send(kind, &bytes)
    }

    /// The disk is copied, money is spent, and the copy put back.
    fn roll_back(&mut self, kind: Kind, end: fn(&mut Vault) -> Result<()>) -> Result<()> {
        let copy_of = self.copies.join("last");
        end(self.vault)?;
        copy(self.vault.state(), &copy_of)?;
        self.vault.launch()?;
        self.wait(500..1_200);
        end(self.vault)?;
        self.put_back(&copy_of)?;
        self.arena.tally.count(kind, "restarted");
        Ok(())
    }

    fn put_back(&mut self, from: &Path) -> Result<()> {
        fs::remove_dir_all(self.vault.state())?;
        copy(from, self.vault.state())?;
        self.vault.launch()
    }

    fn old_age(&mut self) -> Result<()> {
        // At least one command that the old ledger does not know.
        let bytes = self.vault.managers().order(self.identity, Action::AddTotal(Scope::Signer, RATE_SAT))?;
        self.arena.book.add_total(RATE_SAT);
        self.order(&bytes)?;
        self.vault.kill()?;
        let first = self.copies.join("first");
        self.put_back(&first)?;
        self.wait(1_000..1_500);
        let used = self.arena.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        used.iter().try_for_each(|bytes| self.send(OLD, bytes))?;
        // The managers say what was spent, and it goes on.
        let status = || Ok(self.arena.connect().and_then(|mut socket| socket.status()).ok());
        let needed = wait_for("the status", PATIENCE, status)?.rebase.context("no re-base is needed")?;
        let challenge = hex::decode(&needed.challenge)?.try_into().ok().context("no challenge")?;
        self.order(&self.vault.managers().order(self.identity, Action::Rebase { challenge, spent_sat: needed.least_sat })?)?;
        self.wait(1_000..1_500);
        used.iter().try_for_each(|bytes| self.send(REBASED, bytes))
    }
}

fn kill(stage: &mut Stage<'_>) -> Result<()> {
    stage.vault.kill()?;
    stage.vault.launch()?;
    stage.arena.tally.count(KILL, "restarted");
    Ok(())
}

fn stop(stage: &mut Stage<'_>) -> Result<()> {
    stage.vault.stop()?;
    stage.vault.launch()?;
    stage.arena.tally.count(STOP, "restarted");
    Ok(())
}

fn pull_out(stage: &mut Stage<'_>) -> Result<()> {
    stage.vault.token().pull_out()?;
    stage.wait(800..1_500);
    stage.vault.token().put_back()?;
    let ready = || {
        let status = stage.arena.connect().and_then(|mut socket| socket.status());
        Ok(status.is_ok_and(|status| status.keystores.iter().all(|keystore| keystore.ready)))
    };
    wait_until("the token to be used again", PATIENCE, ready)?;
    stage.arena.tally.count(PULL, "came back");
    Ok(())
}

fn pause(stage: &mut Stage<'_>) -> Result<()> {
    stage.vault.signer()?.signal(Signal::STOP)?;
    stage.wait(300..800);
    stage.vault.signer()?.signal(Signal::CONT)?;
    stage.arena.tally.count(PAUSE, "went on");
    Ok(())
}

/// Limits are raised by commands only: what the file says is ignored.
fn raise(stage: &mut Stage<'_>) -> Result<()> {
    let limit = format!("amount = \"{RATE_SAT} sat\", per = \"1 s\", burst = \"{} sat\"", super::BURST_SAT);
    let larger = "amount = \"100 BTC\", per = \"1 s\", burst = \"100 BTC\"";
    stage.vault.stop()?;
    stage.vault.reconfigure(&limit, larger)?;
    stage.vault.launch()?;
    stage.wait(400..800);
    stage.vault.stop()?;
    stage.vault.reconfigure(larger, &limit)?;
    stage.vault.launch()?;
    stage.arena.tally.count(RAISE, "restarted");
    Ok(())
}

/// It locks the signer, until the managers look and unlock it.
fn forge(stage: &mut Stage<'_>) -> Result<()> {
    let others = Managers::new(2, &["cfo", "cto"]);
    let bytes = others.sign(stage.command(|_| ()), &[0, 1])?;
    stage.send(FORGE, &bytes)?;
    stage.wait(200..400);
    let unfreeze = stage.vault.managers().order(stage.identity, Action::Unfreeze(Scope::Signer))?;
    stage.order(&unfreeze)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
