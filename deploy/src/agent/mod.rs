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
//! | `identity` | random, made once: two hosts of one name differ in it |
//! | `content/` | what versions came as: other agents are given of it, and the next version has some of it |
//! | `incoming/` | what is being fetched; nothing of it is used before all of it was verified |
//! | `process.json` | which process runs: an agent that was killed left it behind |
//! | `lock` | held by the one agent that works here |

mod activation;
pub(crate) mod disk;
mod hook;
mod identity;
mod leftover;
mod link;
mod part;
mod probe;
mod process;
mod pull;
mod running;
mod service;
mod sharing;
mod source;
mod state;
#[cfg(test)]
mod tests;
mod unpack;
mod work;

pub use activation::{Activation, Hooks};
pub use hook::{Hook, HookError};
pub use identity::identity;
pub use link::{
    Content, Health, Link, LinkError, MAX_SAID, Report, Speaker, Status, Wanted, short,
};
pub use probe::{HttpProbe, Probe};
pub use process::{Program, Supervisor};
pub use pull::{Pull, Trust};
pub use running::{Running, Told};
pub use service::Service;
pub use sharing::{
    Asked, Assembly, Exchange, Given, Giving, Identity, PeerError, Rate, Refusal, Seeder, Sharing,
    Shelf,
};
pub use source::{GoesOn, Source, SourceError};
pub use state::{AgentState, Order};
pub use work::{Agent, AgentError, Claim, Installed, Point};
