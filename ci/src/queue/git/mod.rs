//! The queue's git: a bare clone of its own, in which changes are put together, and trees in which checks run.
//!
//! All of it is done by git's command line (2.40 or newer). Nothing that a repository or a user configures counts
//! but how hosts are reached: no hooks, no filters, no merge drivers, no prompts. What is merged is merged without
//! a working tree, and always gives the same commit.

mod build;
mod check;
mod locks;
#[cfg(test)]
mod locks_tests;
mod partial;
mod push;
mod repository;
mod slots;
mod submodules;
#[cfg(test)]
pub(super) mod tests;

pub use build::{Built, Method, Piece};
pub use check::{Check, Checked};
pub use kiln_net::process::ProcessError;
pub use push::Pushed;
pub use repository::{GitError, Heads, Repository};
pub use slots::{Slot, Slots};
