//! The daemon inside its walls: they stand around every thread, and it does its work in there. What they keep out is tried in the
//! signer's own test `sandbox`.

use std::{fs, os::unix::process::ExitStatusExt as _, path::Path};

use postern_testkit::{
    VaultPlan, WalletPlan,
    wait::{PATIENCE, wait_until},
};
use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::coins::Purse;

fn hot() -> VaultPlan {
    VaultPlan::default().wallet(WalletPlan::new("hot", "seed", "wpkh(@)"))
}

/// `/proc/…/status`; None when the thread has ended.
fn status(task: &Path) -> Option<String> {
    fs::read_to_string(task.join("status")).ok()
}

/// The value of a line of it.
fn value<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim()
}

#[test]
fn every_thread_of_the_signer_is_behind_seccomp_and_gets_no_new_privileges() {
    let mut purse = Purse::new("walls", hot(), 4).unwrap();
    let pid = purse.vault.signer().unwrap().id();
    // Not before it is sealed: it accepts connections a moment earlier.
    let main = format!("/proc/{pid}");
    wait_until("the seal", PATIENCE, || Ok(value(&status(main.as_ref()).unwrap(), "Seccomp_filters") == "4")).unwrap();
    // A connection has threads of its own, made after the seal.
    purse.pay("hot", 300_000).unwrap().unwrap();
    let open = purse.vault.connect().unwrap();
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().path();
        // That of a connection which was closed may end meanwhile.
        let Some(status) = status(&task) else { continue };
        for (name, wanted) in [("Seccomp", "2"), ("Seccomp_filters", "4"), ("NoNewPrivs", "1")] {
            assert_eq!(value(&status, name), wanted, "{name} of {}", task.display());
        }
        threads += 1;
    }
    assert!(threads > 10, "{threads} threads");
    drop(open);
    let log = purse.vault.signer().unwrap().log();
    let line = log.lines().find(|line| line.contains("protections on: ")).unwrap();
    let (on, off) = line.split_once("; off: ").unwrap();
    for name in ["core-dumps", "attach", "new-privileges", "files", "system-calls", "network", "anchor", "quorum", "forgery-lock"] {
        assert!(on.contains(name), "{line}");
    }
    assert!(off.contains("anchor-in-hardware") && off.contains("discreet"), "{line}");
}

#[test]
fn a_crash_of_the_signer_leaves_no_core_even_where_the_limit_is_raised_from_outside() {
    let mut purse = Purse::new("core", hot(), 1).unwrap();
    purse.pay("hot", 300_000).unwrap().unwrap();
    let signer = purse.vault.signer().unwrap();
    // With the capability for it (root mostly has it), what keeps the core away is that the process is not dumpable.
    let (pid, unlimited) = (Pid::from_raw(i32::try_from(signer.id()).unwrap()), Rlimit { current: None, maximum: None });
    let _ = rustix::process::prlimit(pid, Resource::Core, unlimited);
    signer.signal(Signal::ABORT).unwrap();
    let status = signer.wait_for_end(PATIENCE).unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::ABORT.as_raw()), false));
}
