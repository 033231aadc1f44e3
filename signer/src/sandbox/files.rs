//! Landlock: which files this process can still reach.

use std::{fs, path::Path};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, RestrictSelfAttr as _, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};

use super::{Allowances, Reach, SandboxError};
use crate::protection::Protection;

/// The newest rules that this was tested with. Older kernels enforce the part that they know.
const TESTED: ABI = ABI::V7;

/// What the kernel enforces.
#[derive(Debug)]
pub(super) struct Enforced {
    status: RulesetStatus,
    landlock: LandlockStatus,
    /// Threads that were there before, and that the rules do not hold for.
    others: usize,
}

impl Enforced {
    pub(super) fn protection(&self) -> Protection {
        let abi = match self.landlock {
            LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
            _ => 0,
        };
        let name = "files";
        if self.others > 0 {
            let words = format!(
                "{} threads that a token's module started when it was loaded reach every file: Landlock came after them",
                self.others
            );
            return Protection::off(name, words);
        }
        match self.status {
            RulesetStatus::FullyEnforced => {
                Protection::on(name, format!("only the folders of state, socket and token can be reached (Landlock, ABI {abi})"))
            }
            RulesetStatus::PartiallyEnforced => Protection::on(
                name,
                format!(
                    "only the folders of state, socket and token can be reached (Landlock, ABI {abi}: an older kernel's part of the rules)"
                ),
            ),
            RulesetStatus::NotEnforced => {
                let why = if self.landlock == LandlockStatus::NotEnabled {
                    "is turned off; boot with lsm=landlock,…"
                } else {
                    "is not in this kernel"
                };
                Protection::off(name, format!("every file of this user can be reached: Landlock {why}"))
            }
        }
    }
}

/// Encloses the calling thread and those that it starts; on new kernels those that are there as well.
pub(super) fn enclose(allowances: &Allowances, reach: Reach) -> Result<Enforced, SandboxError> {
    // Behind the walls they cannot be counted.
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    let read_file = make_bitflags!(AccessFs::{ReadFile});
    let read = read_file | AccessFs::ReadDir;
    // A folder that is worked in: files come, change and go. No programs, no devices, no links.
    let work = read | make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer});
    let socket = make_bitflags!(AccessFs::{MakeSock | RemoveFile});
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TESTED))?
        .scope(Scope::from_all(TESTED))?;
    ruleset = if allowances.network {
        // It may dial; nobody dials in.
        ruleset.handle_access(AccessNet::BindTcp)?
    } else {
        ruleset.handle_access(AccessNet::from_all(TESTED))?
    };
    let restricted = ruleset
        .create()?
        .add_rules(rules(&allowances.read_write, work))?
        .add_rules(rules(&allowances.read, read))?
        .add_rules(rules([&allowances.socket_folder], socket))?
        .add_rules(rules(["/dev/urandom", "/dev/random"], read_file))?
        .add_rules(rules(["/dev/null"], read_file | AccessFs::WriteFile))?
        .all_threads(reach == Reach::Process)?
        .restrict_self()?;
    let others = if restricted.all_threads || reach == Reach::Thread { 0 } else { threads.saturating_sub(1) };
    Ok(Enforced { status: restricted.ruleset, landlock: restricted.landlock, others })
}

/// What is not there gets no rule; whoever needs it says so in its own words.
fn rules<P: AsRef<Path>>(
    paths: impl IntoIterator<Item = P>,
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<landlock::PathBeneath<landlock::PathFd>, landlock::RulesetError>> {
    path_beneath_rules(paths, access)
}
