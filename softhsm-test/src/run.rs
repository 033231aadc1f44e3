//! A folder for one run. It lies in memory (`/dev/shm`) where that exists, since token keys and ledgers sync a lot, and
//! it is removed when the last part that lives in it is gone. A run that was killed is swept away by the next one.

use std::{
    env, fs,
    fs::File,
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use crate::program;

/// Runs are made inside this folder when it is set; whoever set it removes it.
pub const RUN_DIR_VAR: &str = "POSTERN_RUN_DIR";
/// Where the logs of failed runs go; default `test-logs` beside the programs.
pub const LOG_DIR_VAR: &str = "POSTERN_LOG_DIR";
/// When set, folders of runs stay and their path is printed.
pub const KEEP_VAR: &str = "POSTERN_KEEP";

const PREFIX: &str = "postern-";
const LOCK: &str = ".alive";

/// A run's folder. Clones share it.
#[derive(Debug, Clone)]
pub struct TempRun(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    label: String,
    path: PathBuf,
    keep: AtomicBool,
    /// Locked as long as the run lives; the system lets go of it however the process ends.
    _alive: File,
}

impl TempRun {
    /// Makes a folder with mode 0700. The label (a test's name) shows in its name and in the name of kept logs.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(label: &str) -> Result<Self> {
        let (parent, prefix) = match env::var_os(RUN_DIR_VAR) {
            Some(parent) => (PathBuf::from(parent), ""),
            None => {
                let parent = memory();
                sweep(&parent);
                (parent, PREFIX)
            }
        };
        // Paths of Unix sockets have at most 107 bytes.
        let short: String = label.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(16).collect();
        let path = tempfile::Builder::new()
            .prefix(&format!("{prefix}{short}-"))
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a folder in {}", parent.display()))?
            .keep();
        let alive = File::create(path.join(LOCK)).context("cannot mark the run as alive")?;
        flock(&alive, FlockOperation::NonBlockingLockExclusive).context("cannot lock the run's folder")?;
        let keep = AtomicBool::new(env::var_os(KEEP_VAR).is_some());
        Ok(Self(Arc::new(Folder { label: label.into(), path, keep, _alive: alive })))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A file or folder in it, not made.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path.join(name)
    }

    /// A new folder in it, mode 0700.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(path)
    }

    /// Writes a file that only its owner can read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// The folder stays when the run ends.
    pub fn keep(&self) {
        self.0.keep.store(true, Ordering::Relaxed);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep.load(Ordering::Relaxed) {
            eprintln!("the run `{}` is kept in {}", self.label, self.path.display());
            // Without its mark nothing sweeps it away.
            let _ = fs::remove_file(self.path.join(LOCK));
            return;
        }
        if thread::panicking() {
            match self.save_logs() {
                Ok(logs) => eprintln!("the logs of `{}` are in {}", self.label, logs.display()),
                Err(error) => eprintln!("the logs of `{}` could not be saved: {error:#}", self.label),
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} could not be removed: {error}", self.path.display());
        }
    }
}

impl Folder {
    fn save_logs(&self) -> Result<PathBuf> {
        let parent = match env::var_os(LOG_DIR_VAR) {
            Some(parent) => PathBuf::from(parent),
            None => program::target_folder()?.join("test-logs"),
        };
        let name = self.path.file_name().unwrap_or_default();
        let target = parent.join(name);
        copy_logs(&self.path, &target).with_context(|| format!("copying to {}", target.display()))?;
        Ok(target)
    }
}

/// Copies what tells a story: logs and configuration, without the tokens, chains and databases.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_logs(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            copy_logs(&path, &to.join(entry.file_name()))?;
        } else if tells_a_story(&path) {
            fs::create_dir_all(to)?;
            fs::copy(&path, to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn tells_a_story(path: &Path) -> bool {
    let (stem, extension) = (path.file_stem().unwrap_or_default(), path.extension().unwrap_or_default());
    // `000003.log` is a database's.
    let numbered = stem.to_string_lossy().bytes().all(|b| b.is_ascii_digit());
    !numbered && (["log", "toml", "torrc"].iter().any(|e| extension == *e) || stem == "torrc")
}

/// The place for short-lived files.
#[must_use]
pub fn memory() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() && rustix::fs::access(shm, rustix::fs::Access::WRITE_OK).is_ok() { shm.into() } else { env::temp_dir() }
}

/// Removes folders of runs that were killed: ours, marked, and nobody holds the mark's lock.
fn sweep(parent: &Path) {
    let me = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) || entry.metadata().map_or(true, |m| m.uid() != me) {
            continue;
        }
        let dead = File::open(entry.path().join(LOCK)).is_ok_and(|mark| flock(&mark, FlockOperation::NonBlockingLockExclusive).is_ok());
        if dead {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_private_and_goes_with_the_last_that_lives_in_it() {
        let run = TempRun::new("folder_goes").unwrap();
        let path = run.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let other = run.clone();
        drop(run);
        other.write("a.toml", "x").unwrap();
        assert!(path.join("a.toml").exists());
        drop(other);
        assert!(!path.exists());
    }

    #[test]
    fn a_killed_runs_folder_is_swept_and_a_living_or_kept_ones_stays() {
        let parent = tempfile::tempdir().unwrap();
        let [dead, alive, kept] = ["dead", "alive", "kept"].map(|n| parent.path().join(format!("{PREFIX}{n}")));
        for folder in [&dead, &alive, &kept] {
            fs::create_dir(folder).unwrap();
        }
        File::create(dead.join(LOCK)).unwrap();
        let held = File::create(alive.join(LOCK)).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        sweep(parent.path());
        assert_eq!([dead.exists(), alive.exists(), kept.exists()], [false, true, true]);
    }
}
