//! Who is at the other end of a connection, by what the kernel says (SO_PEERCRED).

use std::{
    collections::BTreeSet,
    io,
    os::{fd::AsRawFd, unix::net::UnixStream},
};

use crate::intake::Role;

/// Which users may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    own: u32,
    gates: BTreeSet<u32>,
    operators: BTreeSet<u32>,
}

impl Roles {
    /// `[socket] gates` and `operators` as user ids. Root and the daemon's own user are operators whatever the lists say:
    /// they could take the socket, the state and the process anyway.
    #[must_use]
    pub fn new(gates: impl IntoIterator<Item = u32>, operators: impl IntoIterator<Item = u32>) -> Self {
        let own = rustix::process::geteuid().as_raw();
        Self { own, gates: gates.into_iter().collect(), operators: operators.into_iter().collect() }
    }

    /// What a user may do; none for a stranger.
    #[must_use]
    pub fn role(&self, uid: u32) -> Option<Role> {
        if uid == 0 || uid == self.own || self.operators.contains(&uid) {
            Some(Role::Operator)
        } else if self.gates.contains(&uid) {
            Some(Role::Gate)
        } else {
            None
        }
    }
}

/// A peer, at the time when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    /// 0 when it is not visible from here.
    pub(super) pid: i32,
}

impl Peer {
    /// Asks the kernel.
    // Not `rustix::net::sockopt::socket_peercred`: it has no way to say that the peer's process is not visible from here
    // (pid 0, a peer outside our pid namespace).
    #[allow(unsafe_code)]
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(io::Error::other)?;
        // SAFETY: the socket is open for the whole call; the kernel writes at most `length` bytes to `credentials`, which is
        // a plain struct of integers of that size, and the written length to `length`.
        let result = unsafe {
            libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut credentials).cast(), &raw mut length)
        };
        if result == 0 { Ok(Self { uid: credentials.uid, pid: credentials.pid }) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_no_list_is_a_stranger_and_root_and_the_own_user_are_operators() {
        let roles = Roles { own: 990, gates: [991, 993].into(), operators: [992, 993].into() };
        assert_eq!(roles.role(0), Some(Role::Operator));
        assert_eq!(roles.role(990), Some(Role::Operator));
        assert_eq!(roles.role(991), Some(Role::Gate));
        assert_eq!(roles.role(992), Some(Role::Operator));
        assert_eq!(roles.role(993), Some(Role::Operator));
        assert_eq!(roles.role(994), None);
        assert_eq!(roles.role(65_534), None);
    }

    #[test]
    fn the_kernel_tells_who_the_peer_is() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(u32::try_from(peer.pid).unwrap(), std::process::id());
    }
}
