//! Memory for secrets: never swapped, not in a core dump, not in a forked child, zeroed before it is given back. Where the
//! kernel offers `memfd_secret`, not even the kernel's own mappings hold it.

#![allow(unsafe_code)] // Maps and unmaps memory; everything else of the crate uses it through a slice.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
};

use zeroize::Zeroize as _;

/// How much of the stack is wiped: more than what hashing, curve arithmetic and their callers take, and far less than a thread has.
const STACK: usize = 64 * 1024;

/// Does something with secrets and wipes the stack that it used. Libraries pass keys and hash states by value, and a value that
/// was moved stays where it was; only what is written over them later takes the copies away.
pub fn leaving_no_copies<T>(work: impl FnOnce() -> T) -> T {
    // Frames of their own, both just below this one: the second lies where the first was.
    #[inline(never)]
    fn do_it<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    #[inline(never)]
    fn wipe() {
        let mut stack = [0_u64; STACK / size_of::<u64>()];
        stack.zeroize();
        std::hint::black_box(&stack);
    }
    let result = do_it(work);
    wipe();
    result
}

/// No memory of that kind; raise `LimitMEMLOCK=` (`ulimit -l`).
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct LockedMemoryError {
    call: &'static str,
    source: io::Error,
}

/// How the kernel protects a [`LockedBytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// `memfd_secret`: unmapped from the kernel too, locked by nature.
    MemfdSecret,
    /// `mlock`.
    Mlock,
}

/// A run of secret bytes in pages of its own, zero at first.
pub struct LockedBytes {
    start: NonNull<u8>,
    len: usize,
    mapped: usize,
    protection: Protection,
}

// SAFETY: the mapping belongs to this value alone and is plain memory; `&` gives only shared, `&mut` only exclusive access.
unsafe impl Send for LockedBytes {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// Zeroed secret memory of `len` bytes, in whole pages.
    ///
    /// # Errors
    /// [`LockedMemoryError`]: there is none; nothing weaker is given instead.
    pub fn zeroed(len: usize) -> Result<Self, LockedMemoryError> {
        // SAFETY: takes a number and returns one.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let mapped = len
            .max(1)
            .checked_next_multiple_of(page)
            .ok_or_else(|| LockedMemoryError { call: "size", source: io::Error::from(io::ErrorKind::InvalidInput) })?;
        match Self::map_secret(len, mapped) {
            Ok(memory) => Ok(memory),
            Err(_) => Self::map_locked(len, mapped),
        }
    }

    /// Secret memory that holds a copy of `bytes`. The caller wipes the original.
    ///
    /// # Errors
    /// [`LockedMemoryError`].
    pub fn copy_of(bytes: &[u8]) -> Result<Self, LockedMemoryError> {
        let mut memory = Self::zeroed(bytes.len())?;
        memory.copy_from_slice(bytes);
        Ok(memory)
    }

    /// How this memory is protected.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.protection
    }

    fn map_secret(len: usize, mapped: usize) -> Result<Self, LockedMemoryError> {
        let failed = |call| LockedMemoryError { call, source: io::Error::last_os_error() };
        let size = libc::off_t::try_from(mapped).map_err(|_| failed("size"))?;
        // SAFETY: takes flags only and returns a new descriptor or -1.
        let descriptor = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
        let descriptor = libc::c_int::try_from(descriptor).map_err(|_| failed("memfd_secret"))?;
        if descriptor < 0 {
            return Err(failed("memfd_secret"));
        }
        // SAFETY: the descriptor is ours and open; the mapping is new, of the file's size, and its address is chosen by the kernel.
        let address = unsafe {
            if libc::ftruncate(descriptor, size) == 0 {
                libc::mmap(ptr::null_mut(), mapped, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, descriptor, 0)
            } else {
                libc::MAP_FAILED
            }
        };
        let outcome = if address == libc::MAP_FAILED { Err(failed("mmap")) } else { Ok(()) };
        // SAFETY: ours, open, and not used again; the mapping keeps the file.
        unsafe { libc::close(descriptor) };
        outcome?;
        let memory = Self::own(address, len, mapped, Protection::MemfdSecret)?;
        // A shared mapping would reach a forked child: keep it out.
        memory.advise(libc::MADV_DONTFORK)?;
        Ok(memory)
    }

    fn map_locked(len: usize, mapped: usize) -> Result<Self, LockedMemoryError> {
        // SAFETY: a new private mapping at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(ptr::null_mut(), mapped, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if address == libc::MAP_FAILED {
            return Err(LockedMemoryError { call: "mmap", source: io::Error::last_os_error() });
        }
        let memory = Self::own(address, len, mapped, Protection::Mlock)?;
        // SAFETY: the range is the mapping just made.
        if unsafe { libc::mlock(address, mapped) } != 0 {
            return Err(LockedMemoryError { call: "mlock", source: io::Error::last_os_error() });
        }
        memory.advise(libc::MADV_DONTDUMP)?;
        memory.advise(libc::MADV_WIPEONFORK)?;
        Ok(memory)
    }

    fn own(address: *mut libc::c_void, len: usize, mapped: usize, protection: Protection) -> Result<Self, LockedMemoryError> {
        let start = NonNull::new(address.cast::<u8>())
            .ok_or_else(|| LockedMemoryError { call: "mmap", source: io::Error::from(io::ErrorKind::OutOfMemory) })?;
        Ok(Self { start, len, mapped, protection })
    }

    fn advise(&self, advice: libc::c_int) -> Result<(), LockedMemoryError> {
        // SAFETY: the range is our own mapping; the advices used change neither its content nor our access to it.
        if unsafe { libc::madvise(self.start.as_ptr().cast(), self.mapped, advice) } != 0 {
            return Err(LockedMemoryError { call: "madvise", source: io::Error::last_os_error() });
        }
        Ok(())
    }
}

impl Deref for LockedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes of our own mapping (the kernel zeroes it), borrowed as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for LockedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        self.zeroize();
        // SAFETY: our own mapping, whole, and nothing borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.mapped) };
    }
}

impl fmt::Debug for LockedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockedBytes({} secret bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// The `VmFlags` line of the mapping that holds this address.
    fn flags_of(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            if let Some((range, _)) = line.split_once(' ')
                && let Some((from, to)) = range.split_once('-')
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&address);
            }
            if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return format!("{flags} ");
            }
        }
        panic!("{address:x} is not mapped");
    }

    #[test]
    fn secret_memory_is_locked_and_stays_out_of_dumps_and_children() {
        for memory in [LockedBytes::map_secret(32, 4096).ok(), Some(LockedBytes::map_locked(32, 4096).unwrap())].into_iter().flatten() {
            let flags = flags_of(memory.as_ptr() as usize);
            assert!(flags.contains(" lo "), "not locked: {flags}");
            assert!(flags.contains(" dd "), "dumped: {flags}");
            assert!(flags.contains(" dc ") || flags.contains(" wf "), "reaches a child: {flags}");
        }
    }

    #[test]
    fn secret_memory_holds_what_is_written_and_shows_none_of_it() {
        let mut memory = LockedBytes::copy_of(b"correct horse").unwrap();
        assert_eq!(&*memory, b"correct horse");
        memory[0] = b'K';
        assert_eq!(&memory[..3], b"Kor");
        assert_eq!(format!("{memory:?}"), "LockedBytes(13 secret bytes)");
    }
}
