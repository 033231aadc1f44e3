//! A disk in memory that remembers in which order it was written to and synced, and can say what it may hold after a power cut
//! at any point: everything synced, and of what was not, any part in any order, down to torn sectors.
//!
//! The model is what POSIX promises and file systems on hard disks do. A write that was not synced may be lost, kept, or kept in
//! part, whatever came after it. A file may be longer than what was written of it, with zeros. Names that were made or
//! removed reach the disk in order, with the next sync of the folder at the latest. A sync that fails has written some of it, and
//! forgets the rest: the next one succeeds (as Linux does it), though the page cache still shows everything.

use std::collections::BTreeMap;

/// A file's content has a life of its own: names come and go.
pub(crate) type Inode = usize;

/// What hard disks write whole.
const SECTOR: usize = 512;

/// One call that changes the disk, or something that happened meanwhile.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Write {
        inode: Inode,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        inode: Inode,
        size: usize,
    },
    /// Everything written to the file is on the disk; with `folder`, all names are as well.
    Sync {
        inode: Inode,
        folder: bool,
    },
    /// The disk refused; what is on it now is chosen by the seed.
    SyncFailed {
        inode: Inode,
        seed: u64,
    },
    Create {
        name: String,
        inode: Inode,
    },
    Delete {
        name: String,
        folder: bool,
    },
    /// Something outside the disk, by its number in the test's own list.
    Note(usize),
}

/// Files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// How a call is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The disk answers with an error, and nothing is written.
    Error,
    /// Half of it is written, and there is no room for more.
    Full,
}

/// From which call on, and for how many calls, the disk fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failing {
    pub(crate) fault: Fault,
    pub(crate) from: usize,
    pub(crate) calls: usize,
}

/// The disk as processes see it: what was written is there, synced or not.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) names: BTreeMap<String, Inode>,
    pub(crate) contents: Vec<Vec<u8>>,
    pub(crate) log: Vec<Op>,
    /// Calls that would change something, failed ones included.
    pub(crate) calls: usize,
    pub(crate) failing: Option<Failing>,
}

impl Disk {
    /// With these files on it, synced.
    pub(crate) fn with(files: &Files) -> Self {
        let mut disk = Self::default();
        for (name, bytes) in files {
            disk.names.insert(name.clone(), disk.contents.len());
            disk.contents.push(bytes.clone());
        }
        disk
    }

    /// As the processes see it.
    pub(crate) fn files(&self) -> Files {
        self.names.iter().map(|(name, inode)| (name.clone(), self.contents[*inode].clone())).collect()
    }

    pub(crate) fn note(&mut self, number: usize) {
        self.log.push(Op::Note(number));
    }

    /// Counts a call; says how it fails, if it does.
    fn call(&mut self) -> Result<(), Fault> {
        let number = self.calls;
        self.calls += 1;
        match self.failing {
            Some(Failing { fault, from, calls }) if number >= from && number - from < calls => Err(fault),
            _ => Ok(()),
        }
    }

    pub(crate) fn open(&mut self, name: &str, create: bool) -> Option<Inode> {
        if let Some(inode) = self.names.get(name) {
            return Some(*inode);
        }
        if !create || self.call().is_err() {
            return None;
        }
        let inode = self.contents.len();
        self.contents.push(Vec::new());
        self.names.insert(name.into(), inode);
        self.log.push(Op::Create { name: name.into(), inode });
        Some(inode)
    }

    pub(crate) fn delete(&mut self, name: &str, folder: bool) -> Result<bool, Fault> {
        self.call()?;
        let there = self.names.remove(name).is_some();
        if there {
            self.log.push(Op::Delete { name: name.into(), folder });
        }
        Ok(there)
    }

    pub(crate) fn write(&mut self, inode: Inode, at: usize, bytes: &[u8]) -> Result<(), Fault> {
        let (bytes, outcome) = match self.call() {
            Ok(()) => (bytes, Ok(())),
            Err(Fault::Full) => (&bytes[..bytes.len() / 2], Err(Fault::Full)),
            Err(Fault::Error) => return Err(Fault::Error),
        };
        put(&mut self.contents[inode], at, bytes);
        self.log.push(Op::Write { inode, at, bytes: bytes.to_vec() });
        outcome
    }

    pub(crate) fn truncate(&mut self, inode: Inode, size: usize) -> Result<(), Fault> {
        self.call()?;
        self.contents[inode].resize(size, 0);
        self.log.push(Op::Truncate { inode, size });
        Ok(())
    }

    pub(crate) fn sync(&mut self, inode: Inode, folder: bool) -> Result<(), Fault> {
        let outcome = self.call();
        let seed = u64::try_from(self.calls).unwrap();
        self.log.push(if outcome.is_ok() { Op::Sync { inode, folder } } else { Op::SyncFailed { inode, seed } });
        outcome
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

/// What the power cut leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing.
    Synced,
    /// Everything: also what a killed process leaves.
    All,
    /// The oldest writes of each file, as many as the seed says.
    Prefix(u64),
    /// Of each write, of each sector of it, as the seed says; files may be longer than what they hold.
    Sectors(u64),
}

/// What is on the disk, and what is on its way there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Platter {
    names: BTreeMap<String, Inode>,
    contents: Vec<Vec<u8>>,
    /// By inode.
    pending: Vec<Vec<Op>>,
    /// Names made and removed.
    folder: Vec<Op>,
}

impl Platter {
    pub(crate) fn with(files: &Files) -> Self {
        let Disk { names, contents, .. } = Disk::with(files);
        let pending = vec![Vec::new(); contents.len()];
        Self { names, contents, pending, folder: Vec::new() }
    }

    /// The next call of the log.
    pub(crate) fn play(&mut self, op: &Op) {
        match op {
            Op::Write { inode, .. } | Op::Truncate { inode, .. } => self.pending[*inode].push(op.clone()),
            Op::Create { .. } => {
                self.contents.push(Vec::new());
                self.pending.push(Vec::new());
                self.folder.push(op.clone());
            }
            Op::Delete { folder, .. } => {
                self.folder.push(op.clone());
                if *folder {
                    self.sync_folder();
                }
            }
            Op::Sync { inode, folder } => {
                for op in std::mem::take(&mut self.pending[*inode]) {
                    apply(&mut self.contents[*inode], &op);
                }
                if *folder {
                    self.sync_folder();
                }
            }
            Op::SyncFailed { inode, seed } => {
                let pending = std::mem::take(&mut self.pending[*inode]);
                keep_some(&mut self.contents[*inode], &pending, &mut Dice(*seed));
            }
            Op::Note(_) => {}
        }
    }

    fn sync_folder(&mut self) {
        for op in std::mem::take(&mut self.folder) {
            rename(&mut self.names, &op);
        }
    }

    /// Bytes of calls that are not on the disk yet.
    pub(crate) fn is_settled(&self) -> bool {
        self.folder.is_empty() && self.pending.iter().all(Vec::is_empty)
    }

    /// What a power cut now leaves.
    pub(crate) fn cut(&self, left: Left) -> Files {
        let mut names = self.names.clone();
        let mut dice = Dice(match left {
            Left::Synced | Left::All => 0,
            Left::Prefix(seed) | Left::Sectors(seed) => seed,
        });
        let kept = match left {
            Left::Synced => 0,
            Left::All => self.folder.len(),
            Left::Prefix(_) | Left::Sectors(_) => dice.below(self.folder.len() + 1),
        };
        self.folder[..kept].iter().for_each(|op| rename(&mut names, op));
        let content = |inode: Inode, dice: &mut Dice| {
            let mut content = self.contents[inode].clone();
            let pending = &self.pending[inode];
            match left {
                Left::Synced => {}
                Left::All => pending.iter().for_each(|op| apply(&mut content, op)),
                Left::Prefix(_) => pending[..dice.below(pending.len() + 1)].iter().for_each(|op| apply(&mut content, op)),
                Left::Sectors(_) => keep_some(&mut content, pending, dice),
            }
            content
        };
        names.into_iter().map(|(name, inode)| (name, content(inode, &mut dice))).collect()
    }
}

fn rename(names: &mut BTreeMap<String, Inode>, op: &Op) {
    match op {
        Op::Create { name, inode } => {
            names.insert(name.clone(), *inode);
        }
        Op::Delete { name, .. } => {
            names.remove(name);
        }
        _ => {}
    }
}

fn apply(content: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write { at, bytes, .. } => put(content, *at, bytes),
        Op::Truncate { size, .. } => content.resize(*size, 0),
        _ => {}
    }
}

/// Some sectors of some writes, and some of the truncations.
fn keep_some(content: &mut Vec<u8>, pending: &[Op], dice: &mut Dice) {
    // How much of it: nearly nothing, half, nearly all.
    let odds = [2, 8, 14][dice.below(3)];
    for op in pending {
        let Op::Write { at, bytes, .. } = op else {
            if dice.below(16) < odds {
                apply(content, op);
            }
            continue;
        };
        let mut from = 0;
        while from < bytes.len() {
            let place = at + from;
            let to = bytes.len().min(from + SECTOR - place % SECTOR);
            if dice.below(16) < odds {
                put(content, place, &bytes[from..to]);
            } else if dice.below(8) == 0 && content.len() < at + to {
                // The length came through, the data did not.
                content.resize(at + to, 0);
            }
            from = to;
        }
    }
}

/// The same throws for the same seed (SplitMix64).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.throw() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

#[test]
fn the_disk_loses_what_was_not_synced_and_nothing_else() {
    let start = Files::from([("a".into(), b"old".to_vec())]);
    let mut disk = Disk::with(&start);
    let inode = disk.open("a", false).unwrap();
    disk.write(inode, 0, b"new").unwrap();
    disk.sync(inode, false).unwrap();
    disk.write(inode, 3, &[7; 2_000]).unwrap();
    let other = disk.open("b", true).unwrap();
    disk.write(other, 0, b"x").unwrap();
    let mut platter = Platter::with(&start);
    disk.log.iter().for_each(|op| platter.play(op));
    assert_eq!(platter.cut(Left::Synced), Files::from([("a".into(), b"new".to_vec())]));
    assert_eq!(platter.cut(Left::All), disk.files());
    let (mut torn, mut lost) = (0, 0);
    for seed in 0..200 {
        let files = platter.cut(Left::Sectors(seed));
        assert!(files["a"].starts_with(b"new"), "synced once, synced for ever");
        let sevens = files["a"].iter().filter(|byte| **byte == 7).count();
        torn += usize::from(sevens > 0 && sevens < 2_000);
        lost += usize::from(!files.contains_key("b"));
    }
    assert!(torn > 50 && lost > 50, "{torn} torn, {lost} without the new file");
}
