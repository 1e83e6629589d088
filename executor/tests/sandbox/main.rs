//! The sandbox with real processes, as root and as an ordinary user.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on has failed

mod conditions;
mod endings;
mod harness;
mod hidden;
mod isolation;
mod leftovers;
mod misbehaving;
mod needs;
mod roots;
mod tools;
