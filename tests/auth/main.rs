//! TLS, tokens, certificates and roles, over real connections with real clients.

#![allow(clippy::panic, clippy::unwrap_used)]

mod house;
#[path = "../support/mod.rs"]
mod support;
mod tls;
