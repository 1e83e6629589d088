//! TLS, tokens, certificates and roles, over real connections with real clients.

#![allow(clippy::panic, clippy::unwrap_used)]

mod bazel;
mod certificates;
mod events;
mod house;
mod http;
mod joining;
mod jwt;
mod methods;
mod roles;
mod tls;
mod workers;
