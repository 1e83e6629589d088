//! What runs on a target: it installs a version beside the one that runs, switches over at once, asks
//! a program whether the new one is well, and goes back if not. What it was told survives a crash at
//! any moment; what is older than that is refused.
//!
//! Below its directory:
//!
//! | entry | what it is |
//! | --- | --- |
//! | `current` | a link to the version that runs: replaced by a rename, so it always leads to a whole one |
//! | `versions/DIGEST` | a version, whole: it gets this name when all of it is on disk |
//! | `state.json` | what the agent was told, and how far it is |
//! | `lock` | held by the one agent that works here |

pub(crate) mod disk;
mod hook;
mod state;
#[cfg(test)]
mod tests;
mod work;

pub use hook::{Hook, HookError};
pub use state::{Order, State, Told};
pub use work::{Agent, AgentError, Hooks, Installed, Point, Source};
