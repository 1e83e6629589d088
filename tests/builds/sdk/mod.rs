//! A plain client of the generated services calls every RPC of the whole server over the network, with both digest
//! functions, with any instance name, and with requests of old and of new clients.

// Older clients send and read the deprecated fields.
#![allow(deprecated, clippy::panic, clippy::unwrap_used)]

mod assets;
mod execution;
mod house;
mod live;
mod oddities;
mod proxies;
mod storage;
mod unreadable;
