//! The registry: every check of the distribution specification's conformance suite, written anew against a real
//! `kiln serve`, and what clients, faults and strangers do.

#![allow(clippy::panic, clippy::unwrap_used)]

mod blobs;
mod bounds;
mod chunks;
mod client;
mod deletion;
mod faults;
mod fleet;
mod manifests;
mod mounts;
mod newer;
mod ranges;
mod referrers;
#[allow(dead_code, unused_imports)]
#[path = "../../fleet/rig.rs"]
mod rig;
mod roles;
mod sets;
mod tools;

use std::process::Output;

/// What a client that others wrote printed. It must have succeeded.
#[track_caller]
fn printed(arguments: &[&str], output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
