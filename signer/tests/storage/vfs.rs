//! SQLite on [`Disk`]s: a VFS that becomes the default one of this process, and hands everything that lies on no such disk to the
//! real one. So the ledger under test is the ledger, unchanged.

#![allow(unsafe_code)] // Is called by C. Every pointer is SQLite's, for the length of the call, or our own `Handle`.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char, c_int, c_void},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, Once},
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_io_methods, sqlite3_vfs};

use crate::disk::{Disk, Fault, Inode};

/// A disk that SQLite finds at a folder as long as this lives.
#[derive(Debug)]
pub(crate) struct Mounted {
    folder: String,
    drive: Arc<Mutex<Drive>>,
}

/// A disk and who is using it.
#[derive(Debug, Default)]
struct Drive {
    disk: Disk,
    /// By inode: each open handle and its lock level.
    locks: BTreeMap<Inode, BTreeMap<usize, c_int>>,
    /// By inode: the memory that connections share.
    shared: BTreeMap<Inode, Shared>,
    handles: usize,
}

/// SQLite's `-shm`: memory, not a file, since it means nothing after a restart.
#[derive(Debug, Default)]
struct Shared {
    regions: Vec<Box<[u64]>>,
    users: usize,
    /// By slot: readers, and whether one has it alone.
    slots: [(usize, bool); ffi::SQLITE_SHM_NLOCK as usize],
}

static DRIVES: Mutex<BTreeMap<String, Arc<Mutex<Drive>>>> = Mutex::new(BTreeMap::new());

impl Mounted {
    pub(crate) fn at(folder: &Path, disk: Disk) -> Self {
        register();
        let folder = folder.to_str().unwrap().to_owned();
        let drive = Arc::new(Mutex::new(Drive { disk, ..Drive::default() }));
        let before = DRIVES.lock().unwrap().insert(folder.clone(), Arc::clone(&drive));
        assert!(before.is_none(), "one disk at a folder");
        Self { folder, drive }
    }

    /// The disk, while nothing else happens on it.
    pub(crate) fn disk<T>(&self, look: impl FnOnce(&mut Disk) -> T) -> T {
        look(&mut self.drive.lock().unwrap().disk)
    }

    /// The process that had files open is gone: its locks are, and the memory that it shared. Whatever still points there is never
    /// used again, and the memory stays, for the sake of its pointers.
    pub(crate) fn kill(&self) {
        let mut drive = self.drive.lock().unwrap();
        drive.locks.clear();
        std::mem::forget(std::mem::take(&mut drive.shared));
    }

    /// The disk is gone from its folder.
    pub(crate) fn unmount(&self) {
        let mut drives = DRIVES.lock().unwrap();
        if drives.get(&self.folder).is_some_and(|drive| Arc::ptr_eq(drive, &self.drive)) {
            drives.remove(&self.folder);
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// An open file: what SQLite's `sqlite3_file` is followed by.
#[repr(C)]
struct Handle {
    base: sqlite3_file,
    open: *mut Open,
}

struct Open {
    drive: Arc<Mutex<Drive>>,
    id: usize,
    inode: Inode,
    /// Maybe made by this handle, and not synced yet.
    made: bool,
    delete_on_close: Option<String>,
    shares: bool,
    /// Slots of the shared memory that it holds: to read, alone.
    held: (u32, u32),
}

struct Real(*mut sqlite3_vfs);
// SAFETY: SQLite's own VFS object: constant after its initialisation, and made to be used from every thread.
unsafe impl Send for Real {}
// SAFETY: as above.
unsafe impl Sync for Real {}

static REAL: std::sync::OnceLock<Real> = std::sync::OnceLock::new();

fn real() -> *mut sqlite3_vfs {
    REAL.get().unwrap().0
}

fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: plain calls of SQLite's API; both objects live as long as the process.
        unsafe {
            ffi::sqlite3_initialize();
            let real = ffi::sqlite3_vfs_find(std::ptr::null());
            assert!(!real.is_null());
            REAL.set(Real(real)).ok().unwrap();
            let mut ours = *real;
            ours.szOsFile = ours.szOsFile.max(c_int::try_from(size_of::<Handle>()).unwrap());
            ours.zName = c"postern-test-disk".as_ptr();
            ours.pNext = std::ptr::null_mut();
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            ours.xAccess = Some(access);
            assert_eq!(ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 1), ffi::SQLITE_OK);
        }
    });
}

/// The disk that a name lies on, and its name there.
fn find(name: *const c_char) -> Option<(Arc<Mutex<Drive>>, String)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite's names end with a zero byte.
    let name = Path::new(unsafe { CStr::from_ptr(name) }.to_str().ok()?);
    let drive = DRIVES.lock().unwrap().get(name.parent()?.to_str()?)?.clone();
    Some((drive, name.file_name()?.to_str()?.to_owned()))
}

unsafe extern "C" fn open(_: *mut sqlite3_vfs, name: *const c_char, file: *mut sqlite3_file, flags: c_int, out: *mut c_int) -> c_int {
    let Some((drive, name)) = find(name) else {
        // SAFETY: the arguments as they came, on the VFS that they were made for; it fills `file`, which is large enough for both.
        return unsafe { (*real()).xOpen.unwrap()(real(), name, file, flags, out) };
    };
    let mut held = drive.lock().unwrap();
    let Some(inode) = held.disk.open(&name, flags & ffi::SQLITE_OPEN_CREATE != 0) else {
        // SAFETY: `file` is SQLite's to give; a null method table means that it is not open.
        unsafe { (*file).pMethods = std::ptr::null() };
        return ffi::SQLITE_CANTOPEN;
    };
    held.handles += 1;
    let id = held.handles;
    drop(held);
    let delete_on_close = (flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0).then_some(name);
    // SQLite on Unix syncs the folder with the first sync of a log or journal that may be new.
    let log = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
    let made = flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & log != 0;
    let open = Box::new(Open { drive, id, inode, made, delete_on_close, shares: false, held: (0, 0) });
    // SAFETY: `file` has room for a `Handle` (szOsFile), and `out` may be null.
    unsafe {
        let handle = file.cast::<Handle>();
        (*handle).base.pMethods = &raw const METHODS;
        (*handle).open = Box::into_raw(open);
        if !out.is_null() {
            *out = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, folder: c_int) -> c_int {
    let Some((drive, own)) = find(name) else {
        // SAFETY: the arguments as they came.
        return unsafe { (*real()).xDelete.unwrap()(real(), name, folder) };
    };
    let outcome = drive.lock().unwrap().disk.delete(&own, folder != 0);
    match outcome {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn access(_: *mut sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    let Some((drive, own)) = find(name) else {
        // SAFETY: the arguments as they came.
        return unsafe { (*real()).xAccess.unwrap()(real(), name, flags, out) };
    };
    let there = drive.lock().unwrap().disk.names.contains_key(&own);
    // SAFETY: `out` is a variable of SQLite's.
    unsafe { *out = c_int::from(there) };
    ffi::SQLITE_OK
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// What a handle of ours holds.
fn opened<'a>(file: *mut sqlite3_file) -> &'a mut Open {
    // SAFETY: SQLite calls our methods only with files that our `open` filled, one call at a time for each, until `close`.
    unsafe { &mut *(*file.cast::<Handle>()).open }
}

fn drive(open: &Open) -> MutexGuard<'_, Drive> {
    open.drive.lock().unwrap()
}

fn code(outcome: Result<(), Fault>, error: c_int) -> c_int {
    match outcome {
        Ok(()) => ffi::SQLITE_OK,
        Err(Fault::Error) => error,
        Err(Fault::Full) => ffi::SQLITE_FULL,
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: made by `Box::into_raw` in `open`, and given back once.
    let open = unsafe { Box::from_raw((*file.cast::<Handle>()).open) };
    let mut drive = open.drive.lock().unwrap();
    drive.locks.entry(open.inode).or_default().remove(&open.id);
    if let Some(name) = &open.delete_on_close {
        let _ = drive.disk.delete(name, false);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut sqlite3_file, into: *mut c_void, count: c_int, at: i64) -> c_int {
    let open = opened(file);
    // SAFETY: SQLite's buffer of `count` bytes.
    let into = unsafe { std::slice::from_raw_parts_mut(into.cast::<u8>(), usize::try_from(count).unwrap()) };
    let drive = drive(open);
    let content = &drive.disk.contents[open.inode];
    let from = usize::try_from(at).unwrap().min(content.len());
    let there = (content.len() - from).min(into.len());
    into[..there].copy_from_slice(&content[from..from + there]);
    into[there..].fill(0);
    if there == into.len() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, count: c_int, at: i64) -> c_int {
    let open = opened(file);
    // SAFETY: SQLite's buffer of `count` bytes.
    let from = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(count).unwrap()) };
    let outcome = drive(open).disk.write(open.inode, usize::try_from(at).unwrap(), from);
    code(outcome, ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    let open = opened(file);
    let outcome = drive(open).disk.truncate(open.inode, usize::try_from(size).unwrap());
    code(outcome, ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    let open = opened(file);
    let outcome = drive(open).disk.sync(open.inode, open.made);
    open.made &= outcome.is_err();
    // Full or broken: a sync knows one error.
    if outcome.is_ok() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_FSYNC }
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, out: *mut i64) -> c_int {
    let open = opened(file);
    let size = drive(open).disk.contents[open.inode].len();
    // SAFETY: a variable of SQLite's.
    unsafe { *out = i64::try_from(size).unwrap() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    let open = opened(file);
    let mut drive = drive(open);
    let locks = drive.locks.entry(open.inode).or_default();
    let others = locks.iter().filter(|(id, _)| **id != open.id).map(|(_, level)| *level).max().unwrap_or(ffi::SQLITE_LOCK_NONE);
    let most = match level {
        ffi::SQLITE_LOCK_SHARED => ffi::SQLITE_LOCK_RESERVED,
        ffi::SQLITE_LOCK_RESERVED => ffi::SQLITE_LOCK_SHARED,
        _ => ffi::SQLITE_LOCK_NONE,
    };
    if others > most {
        return ffi::SQLITE_BUSY;
    }
    let own = locks.entry(open.id).or_insert(ffi::SQLITE_LOCK_NONE);
    *own = level.max(*own);
    ffi::SQLITE_OK
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    let open = opened(file);
    drive(open).locks.entry(open.inode).or_default().insert(open.id, level);
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    let open = opened(file);
    let reserved = drive(open).locks.entry(open.inode).or_default().values().any(|level| *level >= ffi::SQLITE_LOCK_RESERVED);
    // SAFETY: a variable of SQLite's.
    unsafe { *out = c_int::from(reserved) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut sqlite3_file) -> c_int {
    4096
}

/// What SQLite believes of every disk on Unix: a write harms no byte beside it.
unsafe extern "C" fn characteristics(_: *mut sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(file: *mut sqlite3_file, region: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int {
    let open = opened(file);
    let mut drive = open.drive.lock().unwrap();
    let shared = drive.shared.entry(open.inode).or_default();
    if !open.shares {
        open.shares = true;
        shared.users += 1;
    }
    let region = usize::try_from(region).unwrap();
    let words = usize::try_from(size).unwrap() / size_of::<u64>();
    while shared.regions.len() <= region && extend != 0 {
        shared.regions.push(vec![0; words].into_boxed_slice());
    }
    let place = shared.regions.get_mut(region).map_or(std::ptr::null_mut(), |region| region.as_mut_ptr().cast());
    // SAFETY: a variable of SQLite's. The memory stays where it is until the last user unmaps it.
    unsafe { *out = place };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    let open = opened(file);
    let mut drive = open.drive.lock().unwrap();
    let shared = drive.shared.entry(open.inode).or_default();
    let slots = usize::try_from(offset).unwrap()..usize::try_from(offset + count).unwrap();
    let alone = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    let (reads, owns) = &mut open.held;
    if flags & ffi::SQLITE_SHM_LOCK != 0 {
        for slot in slots.clone() {
            let (readers, owned) = shared.slots[slot];
            let own_reader = usize::from(*reads & (1 << slot) != 0);
            let own = *owns & (1 << slot) != 0;
            if (owned && !own) || (alone && readers > own_reader) {
                return ffi::SQLITE_BUSY;
            }
        }
    }
    for slot in slots {
        let (readers, owned) = &mut shared.slots[slot];
        let bit = 1 << slot;
        match (flags & ffi::SQLITE_SHM_LOCK != 0, alone) {
            (true, true) => {
                *owned = true;
                *owns |= bit;
            }
            (true, false) if *reads & bit == 0 => {
                *readers += 1;
                *reads |= bit;
            }
            (false, true) if *owns & bit != 0 => {
                *owned = false;
                *owns &= !bit;
            }
            (false, false) if *reads & bit != 0 => {
                *readers -= 1;
                *reads &= !bit;
            }
            _ => {}
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_barrier(_: *mut sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, _: c_int) -> c_int {
    let open = opened(file);
    let mut drive = open.drive.lock().unwrap();
    if open.shares {
        open.shares = false;
        let shared = drive.shared.entry(open.inode).or_default();
        shared.users -= 1;
        if shared.users == 0 {
            *shared = Shared::default();
        }
    }
    ffi::SQLITE_OK
}
