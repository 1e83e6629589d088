//! Agents of a service share the content of releases among themselves, piece by piece, so that the server gives each byte
//! about once however many hosts there are.
//!
//! | file | what it does |
//! | --- | --- |
//! | `bits.rs` | which pieces somebody has |
//! | `downloader/` | what to fetch from whom: a state machine |
//! | `tracker/` | has agents find each other, and says who fetches what from the server |

mod bits;
pub mod downloader;
#[cfg(test)]
mod tests;
pub mod tracker;

pub use bits::Bits;
