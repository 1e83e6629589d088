//! A plain client of the generated services on every RPC of the whole server, over the network: both
//! digest functions, any instance name, requests of old and of new clients.

// The old fields are what older clients send and read.
#![allow(deprecated, clippy::panic, clippy::unwrap_used)]

mod assets;
mod execution;
mod house;
mod live;
mod oddities;
mod proxies;
mod storage;
mod unreadable;
