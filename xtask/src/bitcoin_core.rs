//! Builds `bitcoind` from the source that the crate `libbitcoinkernel-sys` carries: pinned by a lock file of its own,
//! checked by Cargo, built once for each version, used by all checkouts of this user.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use postern_testkit::program::{self, BITCOIN_CORE_CRATE_VERSION};
use rustix::fs::{FlockOperation, flock};

use crate::{cargo, child, say};

const PROGRAMS: [&str; 2] = ["bitcoind", "bitcoin-cli"];
const OPTIONS: [&str; 16] = [
    "CMAKE_BUILD_TYPE=Release",
    "BUILD_DAEMON=ON",
    "BUILD_CLI=ON",
    "ENABLE_WALLET=OFF",
    "ENABLE_IPC=OFF",
    "WITH_ZMQ=OFF",
    "WITH_EMBEDDED_ASMAP=OFF",
    "BUILD_TESTS=OFF",
    "BUILD_BENCH=OFF",
    "BUILD_TX=OFF",
    "BUILD_WALLET_TOOL=OFF",
    "BUILD_UTIL=OFF",
    "BUILD_BITCOIN_BIN=OFF",
    "BUILD_KERNEL_LIB=OFF",
    "BUILD_FUZZ_BINARY=OFF",
    "BUILD_GUI=OFF",
];
/// A compiler at work on the largest files.
const MEMORY_PER_JOB_KIB: u64 = 1_500_000;

/// Builds into the cache, unless somebody else did meanwhile.
pub(crate) fn build() -> Result<()> {
    let target = program::cached_bitcoin_core()?;
    let parent = target.parent().context("the cache has a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let _lock = lock(&parent.join("lock"))?;
    if target.is_dir() {
        return Ok(());
    }
    let work = Work(parent.join(format!("building-{BITCOIN_CORE_CRATE_VERSION}")));
    // Left behind by a run that was killed; we hold the lock.
    work.remove()?;
    fs::create_dir(&work.0)?;
    say::note("building bitcoind from Bitcoin Core's source, once: about nine minutes of one core");
    let log = parent.join(format!("build-{BITCOIN_CORE_CRATE_VERSION}.log"));
    match compile(&work.0, &log) {
        Ok(done) => {
            fs::rename(done, &target).with_context(|| format!("cannot move the result to {}", target.display()))?;
            let _ = fs::remove_file(log);
            Ok(())
        }
        Err(error) => Err(error.context(format!("bitcoind could not be built; the whole log is {}", log.display()))),
    }
}

/// The folder in which it is built; gone in the end, however it ends.
struct Work(PathBuf);

impl Work {
    fn remove(&self) -> std::io::Result<()> {
        if self.0.exists() { fs::remove_dir_all(&self.0) } else { Ok(()) }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            say::problem(&format!("{} could not be removed: {error}", self.0.display()));
        }
    }
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut told = false;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        ensure!(!child::interrupted(), "interrupted while waiting for another run");
        if !told {
            say::note("another run is building bitcoind; waiting for it");
            told = true;
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(file)
}

fn compile(work: &Path, log: &Path) -> Result<PathBuf> {
    let mut log = File::create(log)?;
    let mut vendor = cargo::cargo(&["vendor", "--quiet", "--locked", "--versioned-dirs"])?;
    vendor.arg("--manifest-path").arg(cargo::root()?.join("softhsm-test/bitcoin-core/Cargo.toml")).arg(work.join("vendor"));
    logged(vendor, &mut log, |_| ())?;

    let source = work.join(format!("vendor/libbitcoinkernel-sys-{BITCOIN_CORE_CRATE_VERSION}/bitcoin"));
    let build = work.join("build");
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(&source).arg("-B").arg(&build).args(OPTIONS.iter().map(|o| format!("-D{o}")));
    logged(configure, &mut log, |_| ())?;

    let progress = Progress::new();
    let mut make = Command::new("cmake");
    make.arg("--build").arg(&build).arg("--target").args(PROGRAMS).arg(format!("-j{}", jobs()));
    logged(make, &mut log, |line| progress.line(line))?;
    progress.done();

    let done = work.join("done");
    fs::create_dir_all(done.join("bin"))?;
    for name in PROGRAMS {
        let built = done.join("bin").join(name);
        fs::copy(build.join("bin").join(name), &built).with_context(|| format!("{name} was not built"))?;
        if let Some(strip) = program::on_path("strip") {
            program::output(Command::new(strip).arg(&built))?;
        }
    }
    fs::copy(source.join("COPYING"), done.join("COPYING")).context("its licence goes with it")?;
    program::output(Command::new(done.join("bin/bitcoind")).arg("-version"))?;
    Ok(done)
}

fn logged(command: Command, log: &mut File, mut each: impl FnMut(&str)) -> Result<()> {
    let shown = child::shown(&command);
    let mut last = Vec::new();
    let status = child::run_lines(command, |line| {
        let _ = writeln!(log, "{line}");
        last.push(line.to_owned());
        if last.len() > 15 {
            last.remove(0);
        }
        each(line);
    })?;
    if !status.success() {
        bail!("`{shown}` ended with {status}:\n{}", last.join("\n"));
    }
    Ok(())
}

/// As many as there are cores, and as fit the memory.
fn jobs() -> u64 {
    let cores = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?.trim().strip_suffix("kB")?.trim().to_owned();
        line.parse::<u64>().ok()
    });
    memory.map_or(cores, |kib| cores.min(kib / MEMORY_PER_JOB_KIB)).max(1)
}

/// A bar where somebody watches, a line for every tenth elsewhere.
struct Progress {
    bar: ProgressBar,
    told: std::cell::Cell<u64>,
}

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("  [{bar:40}] {percent} %, {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, told: 0.into() }
    }

    fn line(&self, line: &str) {
        let Some((percent, what)) = line.trim_start().strip_prefix('[').and_then(|l| l.split_once("%]")) else { return };
        let Ok(percent) = percent.trim().parse::<u64>() else { return };
        self.bar.set_position(percent);
        self.bar.set_message(what.trim().to_owned());
        if self.bar.is_hidden() && percent / 10 > self.told.get() {
            self.told.set(percent / 10);
            say::note(&format!("{percent} %"));
        }
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }
}
