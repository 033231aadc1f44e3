//! Programs that we run, and what happens to them on Ctrl-C: they get SIGTERM, time to clean up, then SIGKILL; after that our own
//! clean-up runs as on any error.

use std::{
    io::{self, BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use postern_testkit::process::start_bound;
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::{consts, flag};

const POLL: Duration = Duration::from_millis(50);
const GRACE: Duration = Duration::from_secs(15);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From here on Ctrl-C, SIGTERM and SIGHUP end the running program and then us, with everything cleaned up. A second one ends
/// us at once.
pub(crate) fn watch_for_interrupts() {
    for signal in [consts::SIGINT, consts::SIGTERM, consts::SIGHUP] {
        let registered = flag::register_conditional_shutdown(signal, 130, Arc::clone(&INTERRUPTED))
            .and_then(|_| flag::register(signal, Arc::clone(&INTERRUPTED)));
        if let Err(error) = registered {
            eprintln!("interrupts are not handled: {error}");
        }
    }
}

/// Whether somebody wants us to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Runs a program that writes to our terminal.
pub(crate) fn run(mut command: Command) -> Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).process_group(0);
    let mut child = start_bound(command).with_context(|| format!("cannot start {name}"))?;
    wait(&mut child, &name)
}

/// Runs a program and fails when it fails.
pub(crate) fn run_well(command: Command) -> Result<()> {
    let shown = shown(&command);
    let status = run(command)?;
    if status.success() { Ok(()) } else { bail!("`{shown}` ended with {status}") }
}

/// Runs a program and hands on each line that it writes, output and errors alike.
pub(crate) fn run_lines(mut command: Command, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = start_bound(command).with_context(|| format!("cannot start {name}"))?;
    let (lines, inbox) = mpsc::channel::<String>();
    let pipes: [Option<Box<dyn io::Read + Send>>; 2] =
        [child.stdout.take().map(|p| Box::new(p) as _), child.stderr.take().map(|p| Box::new(p) as _)];
    for pipe in pipes.into_iter().flatten() {
        let lines = lines.clone();
        thread::spawn(move || {
            for text in BufReader::new(pipe).lines().map_while(Result::ok) {
                if lines.send(text).is_err() {
                    break;
                }
            }
        });
    }
    drop(lines);
    loop {
        match inbox.recv_timeout(POLL) {
            Ok(text) => line(&text),
            Err(mpsc::RecvTimeoutError::Timeout) if interrupted() => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    wait(&mut child, &name)
}

fn wait(child: &mut Child, name: &str) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            // Our own child may have got the same signal first.
            if interrupted() {
                bail!("interrupted while {name} ran");
            }
            return Ok(status);
        }
        if interrupted() {
            end(child)?;
            bail!("interrupted while {name} ran");
        }
        thread::sleep(POLL);
    }
}

fn end(child: &mut Child) -> Result<()> {
    let group = Pid::from_child(child);
    let _ = kill_process_group(group, Signal::TERM);
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > GRACE {
            let _ = kill_process_group(group, Signal::KILL);
            child.wait()?;
            break;
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program()).chain(command.get_args()).map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
