//! The worker: input roots, sandbox, outputs.

pub mod sandbox;
