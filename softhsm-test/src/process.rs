//! Daemons under test: each writes its own log, dies with whoever started it, and can be stopped the polite way or
//! the way a power cut does it.

use std::{
    fs::{self, File},
    io,
    os::{
        unix::net::UnixStream,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        LazyLock, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::{
    run::TempRun,
    wait::{PATIENCE, wait_for, wait_until},
};

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
    _run: TempRun,
}

impl Process {
    /// Starts a daemon; standard output and error go to `NAME.log` in the run's folder (appended, so a restart goes on in
    /// the same file). It gets SIGKILL when this process ends, however it ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(run: &TempRun, name: &str, mut command: Command) -> Result<Self> {
        let log = run.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = start_bound(command).with_context(|| format!("cannot start {name} ({program})"))?;
        Ok(Self { name: name.into(), child, log, ended: None, _run: run.clone() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything that it wrote, earlier starts under this name included.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Fails with the end of the log when the daemon is no longer there.
    ///
    /// # Errors
    /// See above.
    pub fn alive(&mut self) -> Result<()> {
        let Some(status) = self.ended()? else { return Ok(()) };
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
        Err(anyhow!("{} ended with {status}; the end of its log:\n{tail}", self.name))
    }

    /// Waits until a text stands in its log.
    ///
    /// # Errors
    /// When the daemon ends or the deadline passes before.
    pub fn wait_for_log(&mut self, text: &str) -> Result<()> {
        self.wait_for_logs(text, 1)
    }

    /// Waits until a text stands in its log so many times (the log goes on over restarts).
    ///
    /// # Errors
    /// As [`Self::wait_for_log`].
    pub fn wait_for_logs(&mut self, text: &str, times: usize) -> Result<()> {
        wait_until(&format!("`{text}` in {}", self.log.display()), PATIENCE, || {
            // In this order: what it wrote before it ended is in the log.
            let ended = self.alive();
            if self.log().matches(text).count() >= times { Ok(true) } else { ended.map(|()| false) }
        })
    }

    /// Waits until somebody accepts connections on a Unix socket.
    ///
    /// # Errors
    /// When the daemon ends or the deadline passes before.
    pub fn wait_for_socket(&mut self, path: &Path) -> Result<()> {
        wait_until(&format!("{} to listen on {}", self.name, path.display()), PATIENCE, || {
            self.alive()?;
            Ok(UnixStream::connect(path).is_ok())
        })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.alive()?;
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// As a power cut: SIGKILL, and wait until it is gone.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            self.child.kill()?;
            self.ended = Some(self.child.wait()?);
        }
        Ok(())
    }

    /// SIGTERM, and wait for a clean end.
    ///
    /// # Errors
    /// When it does not end in time (it is then killed) or ends with a failure.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait_for_end(PATIENCE)?;
        if !status.success() && status.signal() != Some(Signal::TERM.as_raw()) {
            self.alive()?;
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not in time; it is then killed.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        match wait_for(&format!("{} to end", self.name), limit, || self.ended()) {
            Ok(status) => Ok(status),
            Err(error) => {
                self.kill()?;
                Err(error)
            }
        }
    }

    /// Network sockets (TCP, UDP, raw, packet) that the process holds, as the kernel lists them; Unix sockets are none.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn network_sockets(&self) -> Result<Vec<String>> {
        network_sockets(self.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{} could not be killed: {error:#}", self.name);
        }
    }
}

/// Network sockets of any process of ours, see [`Process::network_sockets`]. One that keeps other processes of its user from looking
/// into it (the signer) shows its files to root only; for others its seccomp filter, which lets none be made, has to do.
///
/// # Errors
/// When /proc cannot be read.
pub fn network_sockets(pid: u32) -> Result<Vec<String>> {
    let mut inodes = Vec::new();
    let files = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read the process's status")?;
            anyhow::ensure!(status.contains("\nSeccomp:\t2\n"), "the process's files cannot be listed, and it has no seccomp filter");
            return Ok(vec![]);
        }
        files => files.context("cannot list the process's files")?,
    };
    for entry in files {
        // A file may close while we look.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        if let Some(inode) = target.to_string_lossy().strip_prefix("socket:[").and_then(|t| t.strip_suffix(']')) {
            inodes.push(inode.to_owned());
        }
    }
    let mut found = Vec::new();
    for (table, inode_column) in [("tcp", 9), ("tcp6", 9), ("udp", 9), ("udp6", 9), ("udplite", 9), ("raw", 9), ("raw6", 9), ("packet", 8)]
    {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/net/{table}")) else { continue };
        for line in text.lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            if columns.get(inode_column).is_some_and(|inode| inodes.iter().any(|i| i == inode)) {
                found.push(format!("{table} {}", columns.get(1..4).unwrap_or_default().join(" ")));
            }
        }
    }
    Ok(found)
}

type Order = (Command, Sender<io::Result<Child>>);

/// "Dies with its parent" means, to the kernel, the parent's *thread*. All children are therefore started by one thread that
/// lives as long as the process.
static STARTER: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
    let (orders, inbox) = mpsc::channel::<Order>();
    thread::spawn(move || {
        for (mut command, reply) in inbox {
            let _ = reply.send(command.spawn());
        }
    });
    Mutex::new(orders)
});

/// Starts a child that gets SIGKILL when this process ends.
///
/// # Errors
/// When it cannot be started.
pub fn start_bound(mut command: Command) -> Result<Child> {
    let parent = rustix::process::getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Between fork and here the parent may have gone already.
        if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: between fork and exec `bind` makes two system calls and touches neither memory nor locks of the parent.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(bind);
    }
    let (reply, answer) = mpsc::channel();
    STARTER.lock().unwrap_or_else(PoisonError::into_inner).send((command, reply)).map_err(|_| anyhow!("the starter is gone"))?;
    let Ok(child) = answer.recv() else { bail!("the starter is gone") };
    Ok(child?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_daemon_that_ends_early_is_reported_with_its_log() {
        let run = TempRun::new("early").unwrap();
        let mut process = Process::start(&run, "early", shell("echo the disk is full >&2; exit 3")).unwrap();
        let error = process.wait_for_log("ready").unwrap_err();
        assert!(format!("{error:#}").contains("the disk is full"), "{error:#}");
    }

    #[test]
    fn a_daemon_outlives_the_thread_that_started_it_and_not_its_owner() {
        let run = TempRun::new("owner").unwrap();
        let mut process =
            thread::scope(|s| s.spawn(|| Process::start(&run, "owner", shell("echo ready; exec sleep 600")).unwrap()).join().unwrap());
        process.wait_for_log("ready").unwrap();
        process.alive().unwrap();
        let pid = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn network_sockets_of_a_process_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = format!("{:04X}", listener.local_addr().unwrap().port());
        let sockets = network_sockets(std::process::id()).unwrap();
        assert!(sockets.iter().any(|s| s.contains(&port)), "{sockets:?}");
    }
}
