//! Tells agents which others give them the pieces of a release. Each frontend remembers who asked it, and reads now and
//! then who asked the others; each grants pieces by itself.

mod groups;
mod kept;
mod pass;
mod share;

pub use groups::Sharing;
pub use kept::KeptPeer;
