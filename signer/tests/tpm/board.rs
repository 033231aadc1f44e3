//! A board with a TPM for each test.

use postern_signer::tpm::{AuthValue, PcrSet, Tpm};
use postern_testkit::{Swtpm, TempRun};

pub(crate) struct Board {
    pub(crate) swtpm: Swtpm,
    pub(crate) run: TempRun,
}

impl Board {
    pub(crate) fn new(label: &str) -> Self {
        let run = TempRun::new(label).unwrap();
        let swtpm = Swtpm::start(&run, "board").unwrap();
        let board = Self { swtpm, run };
        // As chips for PCs have it. A power cut counts like a wrong try.
        board.set_lockout(32, 7200);
        board
    }

    /// As a process opens it that has just started.
    pub(crate) fn tpm(&self) -> Tpm {
        Tpm::new(self.swtpm.tcti().parse().unwrap())
    }

    /// As if something else was booted.
    pub(crate) fn measure(&self, pcr: u8, what: u8) {
        self.swtpm.tool(&["pcrextend", &format!("{pcr}:sha256={}", hex::encode([what; 32]))]).unwrap();
    }

    /// Lets the TPM take so many wrong auth values, and forgive one each so many seconds.
    pub(crate) fn set_lockout(&self, tries: u32, forgiven_every_s: u32) {
        let (tries, every) = (format!("--max-tries={tries}"), format!("--recovery-time={forgiven_every_s}"));
        self.swtpm.tool(&["dictionarylockout", "--setup-parameters", &tries, &every]).unwrap();
    }
}

pub(crate) fn pcrs() -> PcrSet {
    PcrSet::new([7, 11]).unwrap()
}

pub(crate) fn auth(secret: &str) -> AuthValue {
    AuthValue::derive(secret.as_bytes(), "test").unwrap()
}
