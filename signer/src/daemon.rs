//! The daemon: the socket, and what stands behind it.

mod addresses;
mod assemble;
mod budget;
mod connection;
mod frames;
mod handed_out;
pub mod logs;
mod office;
mod outbox;
mod peer;
mod refusals;
mod restart;
mod server;
mod socket;
mod start;
mod users;

pub(crate) use self::users::uid;
pub use self::{
    assemble::Outside,
    handed_out::HandedOutError,
    peer::Roles,
    server::Terms,
    socket::SocketError,
    start::{Daemon, Parts, RunError, StartError, StopError, WalletPart, run},
    users::UserError,
};

#[cfg(test)]
mod tests;
