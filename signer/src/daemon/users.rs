//! User names of the configuration, as the system's user database knows them.

use std::{ffi::CString, io, ptr};

/// Room for one entry of the user database, in bytes; a larger one is asked for anew with twice as much.
const ENTRY: usize = 4 * 1024;
/// No entry is larger.
const ENTRY_MAX: usize = 1024 * 1024;

/// Why a user of the configuration is nobody.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is no such user.
    #[error("[socket] names the user {0:?}, whom this system does not know; write a name or a number of `getent passwd`")]
    Unknown(String),
    /// The user database cannot be read.
    #[error("cannot look up the user {name:?}: {source}")]
    Lookup {
        /// The name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A user's id, from a number or a name.
pub(crate) fn uid(name: &str) -> Result<u32, UserError> {
    if let Ok(uid) = name.parse() {
        return Ok(uid);
    }
    let entry = CString::new(name).map_err(|_| UserError::Unknown(name.into()))?;
    let mut room = ENTRY;
    while room <= ENTRY_MAX {
        match look_up(&entry, room) {
            Ok(Some(uid)) => return Ok(uid),
            Ok(None) => return Err(UserError::Unknown(name.into())),
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) => room = room.saturating_mul(2),
            Err(source) => return Err(UserError::Lookup { name: name.into(), source }),
        }
    }
    Err(UserError::Lookup { name: name.into(), source: io::Error::from_raw_os_error(libc::ERANGE) })
}

#[allow(unsafe_code)] // Calls C: users may come from elsewhere than /etc/passwd, and only the C library knows where.
fn look_up(name: &CString, room: usize) -> io::Result<Option<u32>> {
    let mut buffer: Vec<libc::c_char> = vec![0; room];
    // SAFETY: a struct of integers and pointers, for which zeroes are a value.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found: *mut libc::passwd = ptr::null_mut();
    // SAFETY: the name ends with a zero byte, the buffer is as long as is said, and all of it lives until the call returns.
    let code = unsafe { libc::getpwnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
    match code {
        0 if found.is_null() => Ok(None),
        0 => Ok(Some(entry.pw_uid)),
        // POSIX lets these mean that there is no such user.
        libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => Ok(None),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_name_and_by_number_and_others_are_named_in_the_error() {
        assert_eq!(uid("root").unwrap(), 0);
        assert_eq!(uid("991").unwrap(), 991);
        let error = uid("nobody-of-this-name").unwrap_err();
        assert!(matches!(&error, UserError::Unknown(name) if name == "nobody-of-this-name"), "{error}");
        assert!(matches!(uid("zero\0byte"), Err(UserError::Unknown(_))));
    }
}
