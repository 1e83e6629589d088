//! Real servers and real clients for the end-to-end tests.
#![allow(dead_code, clippy::panic, clippy::unwrap_used)]

pub mod balancer;
pub mod bazel;
pub mod jwt;
pub mod pki;
pub mod promtool;
pub mod reapi;
pub mod release;
pub mod said;
pub mod server;

/// The path in `variable`. Without it the test is skipped, loudly, unless `KILN_NO_SKIPS` says
/// that nothing may be skipped (scripts/test.sh sets both).
pub fn client(variable: &str) -> Option<std::path::PathBuf> {
    kiln_test_servers::program(variable)
}

/// The root of the repository.
pub fn root() -> std::path::PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}
