//! Processor time: of a process, of each of its rooms, and of a signature's verification.

use std::{
    collections::BTreeMap,
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};

/// What each room used for a number of signatures. A room is all threads of one name.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    pub(crate) signatures: usize,
    used: BTreeMap<String, Used>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Used {
    seconds: f64,
    /// How often a thread that waited was woken.
    wakes: f64,
    /// Calls that write to a file.
    writes: f64,
}

impl Used {
    fn each(&mut self, other: Self, change: fn(&mut f64, f64)) {
        change(&mut self.seconds, other.seconds);
        change(&mut self.wakes, other.wakes);
        change(&mut self.writes, other.writes);
    }
}

impl Rooms {
    /// What the threads of a process have used so far.
    pub(crate) fn read(pid: u32) -> Result<Self> {
        let mut rooms = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let name = fs::read_to_string(task.join("comm"))?;
            // Without their numbers.
            let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
            // The first number of schedstat is nanoseconds.
            let used = Used {
                seconds: number(&fs::read_to_string(task.join("schedstat"))?, "")? * 1e-9,
                wakes: number(&fs::read_to_string(task.join("status"))?, "\nvoluntary_ctxt_switches:")?,
                writes: number(&fs::read_to_string(task.join("io"))?, "\nsyscw:")?,
            };
            rooms.used.entry(name).or_default().each(used, |a, b| *a += b);
        }
        Ok(rooms)
    }

    pub(crate) fn since(mut self, earlier: &Self, signatures: usize) -> Self {
        for (name, used) in &mut self.used {
            used.each(earlier.used.get(name).copied().unwrap_or_default(), |a, b| *a -= b);
        }
        Self { signatures, ..self }
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.signatures += more.signatures;
        for (name, used) in &more.used {
            self.used.entry(name.clone()).or_default().each(*used, |a, b| *a += b);
        }
    }

    /// Processor time of all threads, in seconds.
    pub(crate) fn total_s(&self) -> f64 {
        self.used.values().map(|used| used.seconds).sum()
    }

    /// The same for each signature, in milliseconds.
    pub(crate) fn total_ms(&self) -> f64 {
        self.total_s() * 1e3 / self.signatures as f64
    }

    /// For each signature, in words, a line for each room that did anything.
    pub(crate) fn lines(&self) -> Vec<String> {
        let signatures = self.signatures as f64;
        let did = self.used.iter().filter(|(_, used)| used.seconds / signatures >= 1e-7);
        did.map(|(name, used)| {
            let Used { seconds, wakes, writes } = used;
            format!(
                "{name:>16}: {:.4} ms, {:.2} wake-ups, {:.2} writes",
                seconds * 1e3 / signatures,
                wakes / signatures,
                writes / signatures
            )
        })
        .collect()
    }
}

/// The number behind a word.
fn number(text: &str, word: &str) -> Result<f64> {
    let (_, rest) = text.split_once(word).with_context(|| format!("no {word:?} in /proc"))?;
    Ok(rest.split_whitespace().next().context("an empty file in /proc")?.parse()?)
}

/// Of this thread so far.
pub(crate) fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Of one verification of an ECDSA signature.
pub(crate) fn verification_ms() -> f64 {
    const TIMES: u32 = 20;
    let curve = Secp256k1::new();
    let (key, message) = (SecretKey::from_slice(&[7; 32]).expect("a key"), Message::from_digest([9; 32]));
    let (public, signature) = (key.public_key(&curve), curve.sign_ecdsa(&message, &key));
    let mut each = vec![];
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(500) {
        let before = thread_time();
        for _ in 0..TIMES {
            black_box(curve.verify_ecdsa(black_box(&message), black_box(&signature), black_box(&public)).is_ok());
        }
        each.push((thread_time() - before).as_secs_f64() * 1e3 / f64::from(TIMES));
    }
    median(&mut each)
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
