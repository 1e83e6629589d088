//! Agents of a service share the content of releases among themselves, piece by piece, so that the server gives each byte
//! about once however many hosts there are.
//!
//! | file | what it does |
//! | --- | --- |
//! | `announce.rs` | what agents and the tracker say to each other |
//! | `bits.rs` | which pieces somebody has |
//! | `downloader/` | what to fetch from whom: a state machine |
//! | `pass.rs` | how agents know that somebody is one of theirs |
//! | `pieces/` | content as pieces, and the list of them |
//! | `tracker/` | has agents find each other, and says who fetches what from the server |

mod announce;
mod bits;
pub mod downloader;
pub mod pass;
pub mod pieces;
#[cfg(test)]
mod tests;
pub mod tracker;

pub use announce::{PeerCard, Share, Shared};
pub use bits::Bits;
