//! The daemon: the socket, and what stands behind it.

mod budget;
mod connection;
mod frames;
mod lane;
mod outbox;
mod peer;
mod server;
mod socket;

pub use self::{
    peer::Roles,
    server::{About, Office, Server, Terms},
    socket::SocketError,
};
