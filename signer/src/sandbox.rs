//! What a taken-over signer still cannot do. Whoever gets code to run in this process finds no shell, no network, no other files,
//! and no way to leave a copy of its memory behind.
//!
//! It happens in three steps, each before what it protects against can be reached:
//!
//! | step | when | what |
//! |---|---|---|
//! | [`harden`] | first thing, before a secret is read | no core dumps, nobody attaches, no new privileges |
//! | [`Sandbox::enclose`] | libraries loaded, PINs read, before a thread is started | Landlock and the list of allowed system calls |
//! | [`Sandbox::seal`] | the socket is bound | no new sockets, no new executable memory |
//!
//! A system call that is not on the list fails with EPERM and leaves a line in the kernel's audit log: a library that tries something
//! optional goes on without it. What no honest code of this process ever tries (start a program, look into another process, load
//! kernel code, mount) ends the process at once.
//!
//! Parts that a kernel lacks are named in the log and by `postern-signer check`; `[sandbox] missing = "refuse"` does not start then.

#![allow(unsafe_code)] // One system call that no library of ours offers with the flag for logging.

mod calls;
mod files;
pub mod softhsm;

use std::{fs, io, path::PathBuf, thread};

use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::{protection::Protection, secret};

/// What the sandbox lets through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowances {
    /// Folders and files to read and write: the state folder, the token's.
    pub read_write: Vec<PathBuf>,
    /// Folders and files to read.
    pub read: Vec<PathBuf>,
    /// The folder in which the socket is made and removed, and nothing is read.
    pub socket_folder: PathBuf,
    /// The token's module talks to a service of this machine: Unix sockets and System V IPC.
    pub local_services: bool,
    /// The token's module dials its HSM: TCP and UDP.
    pub network: bool,
    /// The log goes to systemd's journal: datagrams with an address.
    pub journal: bool,
}

/// What is wrong with a protection. The signer does not start half protected because of an error; what a kernel does not have is no
/// error unless `[sandbox] missing = "refuse"`.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Core dumps cannot be turned off.
    #[error("cannot {what}: {source}")]
    Harden {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refuses the rules for files.
    #[error("Landlock: {0}")]
    Files(#[from] landlock::RulesetError),
    /// The kernel refuses the list of system calls.
    #[error("seccomp: {0}")]
    Calls(String),
    /// A protection is not there and `missing = "refuse"`.
    #[error("{0}; use a kernel that has it, or write [sandbox] missing = \"warn\"")]
    Missing(String),
}

/// No core dumps, for nobody; nobody of this user attaches or reads this process's memory; no program of another user's rights.
/// The first thing that a program of ours does.
///
/// # Errors
/// [`SandboxError::Harden`].
pub fn harden() -> Result<(), SandboxError> {
    let failed = |what| move |errno: rustix::io::Errno| SandboxError::Harden { what, source: errno.into() };
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed("turn core dumps off"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("keep others from reading this process"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("give up new privileges"))
}

/// Whom the walls enclose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This process, its other threads as far as the kernel can.
    Process,
    /// This thread, and those that it starts.
    Thread,
}

/// The walls around this process, as far as they stand.
#[derive(Debug)]
pub struct Sandbox {
    allowances: Allowances,
    memory: Vec<Protection>,
    files: files::Enforced,
    calls: Result<(), String>,
}

impl Sandbox {
    /// Encloses this thread and all that it starts. To be called while it is the only one: Landlock reaches no other before Linux 7.0.
    ///
    /// # Errors
    /// [`SandboxError`]; what the kernel does not have is none.
    pub fn enclose(allowances: Allowances, reach: Reach) -> Result<Self, SandboxError> {
        // From behind the walls some of it cannot be seen.
        let memory = memory();
        let files = files::enclose(&allowances, reach)?;
        let calls = calls::enclose(&allowances, reach)?;
        Ok(Self { allowances, memory, files, calls })
    }

    /// Takes from all threads what only the start needs: making sockets, and making memory executable.
    ///
    /// # Errors
    /// [`SandboxError::Calls`].
    pub fn seal(&self) -> Result<(), SandboxError> {
        if self.calls.is_ok() { calls::seal(&self.allowances) } else { Ok(()) }
    }

    /// What this kernel gives, tried in a thread that ends. For `check`, which must still read and print afterwards.
    #[must_use]
    pub fn try_out(allowances: Allowances) -> Vec<Protection> {
        let tried = thread::spawn(move || Self::enclose(allowances, Reach::Thread).map(|sandbox| sandbox.protections()));
        match tried.join() {
            Ok(Ok(protections)) => protections,
            Ok(Err(e)) => vec![Protection::off("sandbox", format!("the signer will not start: {e}"))],
            Err(_) => vec![Protection::off("sandbox", "it could not be tried")],
        }
    }

    /// What is on and what is off.
    #[must_use]
    pub fn protections(&self) -> Vec<Protection> {
        let mut list = self.memory.clone();
        list.push(self.files.protection());
        list.push(match &self.calls {
            Ok(()) => {
                Protection::on("system-calls", "system calls are limited to a list (seccomp): no programs, no debugging, no kernel code")
            }
            Err(why) => Protection::off("system-calls", format!("every system call is allowed: this kernel has no seccomp filter ({why})")),
        });
        let allowances = &self.allowances;
        list.push(match (&self.calls, allowances.network, allowances.local_services) {
            (Err(_), ..) => Protection::off("network", "nothing keeps this process from the network"),
            (_, true, _) => Protection::off(
                "network",
                "[sandbox] dangerous_network: the token's module may dial out, and whoever takes the signer over with it",
            ),
            (_, _, true) => {
                Protection::on("network", "no network sockets; [sandbox] local_services: Unix sockets to services of this machine")
            }
            _ => Protection::on("network", "no network sockets, and after the start no sockets at all"),
        });
        list
    }

    /// Refuses when a part is not there.
    ///
    /// # Errors
    /// [`SandboxError::Missing`], naming every part.
    pub fn insist(&self) -> Result<(), SandboxError> {
        let missing = [self.files.protection()].into_iter().chain(self.calls.as_ref().err().map(|why| Protection::off("", why.clone())));
        let missing: Vec<String> = missing.filter(|p| !p.on).map(|p| p.words).collect();
        if missing.is_empty() { Ok(()) } else { Err(SandboxError::Missing(missing.join("; "))) }
    }
}

/// How secrets in memory are kept, as it is right now.
fn memory() -> Vec<Protection> {
    let core_off = rustix::process::getrlimit(Resource::Core).maximum == Some(0);
    let dumpable = rustix::process::dumpable_behavior() != Ok(DumpableBehavior::NotDumpable);
    let privileges = rustix::thread::no_new_privs().unwrap_or(false);
    let mut list = vec![
        Protection::new("core-dumps", core_off && !dumpable, "a crash leaves no copy of the memory", "a crash leaves a copy of the memory"),
        Protection::new(
            "attach",
            !dumpable,
            "other processes of this user cannot read its memory",
            "other processes of this user can read its memory",
        ),
        Protection::new(
            "new-privileges",
            privileges,
            "no program gives it more rights",
            "programs with the setuid bit give it more rights",
        ),
    ];
    list.push(match secret::LockedBytes::zeroed(1).map(|memory| memory.protection()) {
        Ok(secret::Protection::MemfdSecret) => {
            Protection::on("secret-memory", "PINs and seeds are in memory that not even the kernel maps (memfd_secret)")
        }
        Ok(secret::Protection::Mlock) => Protection::off(
            "secret-memory",
            "this kernel has no memfd_secret; PINs and seeds are locked against swapping (mlock), and an administrator can read them",
        ),
        Err(e) => Protection::off("secret-memory", format!("there is no locked memory for PINs and seeds: {e}")),
    });
    list.push(swap());
    list
}

/// Secrets are locked; copies that a library makes on its stack are not.
fn swap() -> Protection {
    // One header line, then one line for each area.
    match fs::read_to_string("/proc/swaps") {
        Ok(text) if text.lines().count() > 1 => {
            Protection::off("swap", "this machine swaps: what libraries copy of a secret may reach the disk; turn swap off")
        }
        Ok(_) => Protection::on("swap", "this machine does not swap"),
        Err(_) => Protection::off("swap", "whether this machine swaps cannot be told"),
    }
}
