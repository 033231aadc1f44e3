//! The daemon: the socket, and what stands behind it.

mod budget;
mod connection;
mod frames;
mod lane;
pub mod logs;
mod outbox;
mod peer;
#[allow(dead_code)]
mod refusals;
mod server;
mod socket;

pub use self::{
    peer::Roles,
    server::{About, Office, Server, Terms},
    socket::SocketError,
};
