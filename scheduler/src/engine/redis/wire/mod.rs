//! What goes into the script and what comes out: fields with their lengths.

pub mod fields;
mod told;

pub use told::{Parser, Said};
