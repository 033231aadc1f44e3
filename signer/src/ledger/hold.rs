//! A ledger that does not agree with its anchor charges nothing. Only the managers know whether it was restored on purpose, and what
//! was spent meanwhile: their re-base command says so, over a challenge that this process made.

use postern_protocol::{
    command::{Action, Challenge},
    refusal::{Refusal, RefusalCode},
    reply::{Applied, RebaseNeeded},
};

use super::{
    LedgerError,
    entry::{Entry, RebaseEntry},
    state::State,
    writer::Writer,
};

/// Why nothing is charged, and what a re-base must answer.
pub(super) struct Hold {
    /// The anchor was lost, replaced or rolled back. None: the ledger is an old copy.
    pub(super) alarm: Option<LedgerError>,
    /// In words.
    pub(super) why: String,
    challenge: Challenge,
    /// What ledger and anchor know to be spent.
    pub(super) least_sat: u64,
    /// Commands that ledger or anchor know of.
    pub(super) commands: u64,
}

impl Hold {
    /// Of an old copy: commands are missing.
    pub(super) fn stale(missing: u64, least_sat: u64, commands: u64) -> Result<Self, LedgerError> {
        let why = format!("the ledger is an old copy: its anchor knows of commands that are missing here ({missing})");
        Ok(Self { alarm: None, why, challenge: random()?, least_sat, commands })
    }

    /// Of a ledger whose anchor says what cannot be.
    pub(super) fn alarmed(alarm: LedgerError, least_sat: u64, commands: u64) -> Result<Self, LedgerError> {
        let why = alarm.to_string();
        Ok(Self { alarm: Some(alarm), why, challenge: random()?, least_sat, commands })
    }

    pub(super) fn needed(&self) -> RebaseNeeded {
        RebaseNeeded { why: self.why.clone(), challenge: hex::encode(self.challenge), least_sat: self.least_sat }
    }

    /// For whoever asks for anything else.
    pub(super) fn refusal(&self) -> Refusal {
        let message = format!(
            "{}. Nothing is charged before the managers' re-base: `postern status`, `postern command new rebase`, docs/ledger.md",
            self.why
        );
        Refusal::new(RefusalCode::LedgerStale, message)
    }
}

fn random() -> Result<Challenge, LedgerError> {
    let mut challenge = [0; 16];
    getrandom::fill(&mut challenge).map_err(|e| LedgerError::Io(std::io::Error::other(e)))?;
    Ok(challenge)
}

impl Writer {
    /// Applies the managers' re-base: the start that was held back and the re-base are one transaction, and then the anchor is told.
    pub(super) fn rebase(&mut self, serial: u64, action: &Action, managers: Vec<String>) -> Result<Applied, Refusal> {
        let Action::Rebase { challenge, spent_sat } = action else {
            return Err(Refusal::new(RefusalCode::CommandMalformed, "not a re-base"));
        };
        let no = |message: String| Err(Refusal::new(RefusalCode::CommandRebase, message));
        let Some(hold) = self.guard.hold() else {
            return no("the ledger agrees with its anchor: there is nothing to re-base".into());
        };
        if hold.challenge != *challenge {
            return no("the command answers another challenge; the signer shows a new one at each start: postern status".into());
        }
        if *spent_sat < hold.least_sat {
            return no(format!(
                "the command counts {spent_sat} sat as spent, and ledger and anchor know of {} sat; make it again with at least that",
                hold.least_sat
            ));
        }
        // A freeze or a lock of an old copy is known to the anchor since.
        let commands = self.guard.due(&self.store.state).commands.max(hold.commands);
        let rebase = RebaseEntry {
            serial,
            managers,
            base: *challenge,
            spent_sat: *spent_sat,
            commands: commands.saturating_add(1),
            why: hold.why.clone(),
        };
        let start = self.guard.restart_entry(&self.store.state, *spent_sat);
        let written = self.mend().and_then(|()| self.commit_all(&[start, Entry::Rebased(rebase)]));
        if let Err(error) = written {
            return Err(self.failed(&error));
        }
        self.guard.rebased();
        if let Err(error) = self.guard.after_command(&self.store.state) {
            log::error!("the re-base is applied; {error}; nothing is charged until the anchor answers");
        }
        self.publish_all();
        Ok(Applied { serial, effect: self.store.state.effect(action) })
    }

    fn commit_all(&mut self, entries: &[Entry]) -> Result<(), LedgerError> {
        self.store.begin()?;
        for entry in entries {
            self.store.append(entry)?;
        }
        self.store.commit_and_fold()
    }
}

/// Whether a command may be looked at, given the re-base after which it was made.
pub(super) fn check_base(state: &State, action: &Action, base: Option<Challenge>) -> Result<(), Refusal> {
    // A re-base has its challenge. A freeze is wanted whenever it was signed: it can do no worse than stop.
    if base == state.base || matches!(action, Action::Freeze(_) | Action::Rebase { .. }) {
        return Ok(());
    }
    let say = |base: Option<Challenge>| base.map_or("none".into(), hex::encode);
    let message = format!(
        "the command was made for the re-base {}, and the ledger's last one is {}; make it again: `postern command new` asks the signer, \
         elsewhere --base says it",
        say(base),
        say(state.base)
    );
    Err(Refusal::new(RefusalCode::CommandBase, message))
}
