//! Real servers that tests start and stop: Redis (`KILN_REDIS`), SeaweedFS's S3 gateway
//! (`KILN_WEED`) and an OCI registry (`KILN_REGISTRY`). scripts/test.sh installs them and sets the variables.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

mod certificates;
mod process;
pub use certificates::Certificates;
pub use process::{Process, free_port};
pub mod proxy;
pub mod redis;
pub mod registry;
pub mod s3;
pub mod slow;

/// Waits between two looks at something, and blocks its thread: who asks without a pause takes the
/// processor from what is awaited.
pub fn pause() {
    std::thread::park_timeout(Duration::from_millis(10));
}

/// The path in `variable`. Without it the test is skipped, loudly, unless `KILN_NO_SKIPS` says
/// that nothing may be skipped (scripts/test.sh sets both).
pub fn program(variable: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    assert!(
        std::env::var_os("KILN_NO_SKIPS").is_none(),
        "{variable} is not set; scripts/test.sh installs the servers and sets it"
    );
    eprintln!("SKIPPED: {variable} is not set; scripts/test.sh installs the servers and sets it");
    None
}
