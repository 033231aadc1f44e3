//! TCP ports on loopback. A port that was merely found free can be taken by somebody else a moment later, so ports here
//! are reserved among all runs on this machine with a lock file, outside the range from which the system hands out ports.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use rand::Rng as _;
use rustix::fs::{FlockOperation, flock};

use crate::run;

/// Below the ephemeral ports (32768 and up) and above the well-known services.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS: usize = 1_000;

/// A reserved port, free again when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Port {
    number: u16,
    _lock: Arc<File>,
}

impl Port {
    /// Reserves a port that nobody listens on.
    ///
    /// # Errors
    /// When none is found.
    pub fn reserve() -> Result<Self> {
        let mut random = rand::thread_rng();
        for _ in 0..ATTEMPTS {
            if let Some(port) = Self::take(random.gen_range(RANGE))? {
                return Ok(port);
            }
        }
        bail!("no free port among {RANGE:?} in {ATTEMPTS} attempts");
    }

    /// Reserves two ports that follow each other.
    ///
    /// # Errors
    /// When none are found.
    pub fn reserve_pair() -> Result<(Self, Self)> {
        for _ in 0..ATTEMPTS {
            let first = Self::reserve()?;
            if let Some(second) = Self::take(first.number + 1)? {
                return Ok((first, second));
            }
        }
        bail!("no two free ports in a row among {RANGE:?} in {ATTEMPTS} attempts");
    }

    fn take(number: u16) -> Result<Option<Self>> {
        let lock = File::create(folder()?.join(number.to_string())).context("cannot reserve a port")?;
        let free =
            flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
        Ok(free.then(|| Self { number, _lock: Arc::new(lock) }))
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

fn folder() -> Result<PathBuf> {
    let me = rustix::process::geteuid().as_raw();
    // Not `postern-…`: that is what runs are called.
    let folder = run::memory().join(format!("ports-of-postern-{me}"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_reserved_port_is_given_to_nobody_else() {
        let ports: Vec<Port> = (0..200).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ports.len());
    }
}
