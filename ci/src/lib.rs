//! What comes between a change and a release: what runs of tests say about the tests and about the change, what lands, and
//! the pipelines that do all of it.
//!
//! | module | what it does |
//! | --- | --- |
//! | `model`, `storage` | what all speak of, and where it is kept |
//! | `events`, `recording`, `imports`, `junit`, `attempts` | runs of tests become known |
//! | `history`, `upkeep` | every attempt, kept |
//! | `flakes`, `quarantine`, `gate`, `verdicts` | what failures mean |
//! | `durations`, `expected`, `shards`, `plans`, `impact` | which tests run where |
//! | `queue` | the merge queue |
//! | `forges` | what asks it for changes, and is told |
//! | `pipelines` | stages that need each other, and their runs |
//! | `stages`, `ephemeral` | what stages do; environments for a while |
//! | `services`, `start` | what a server runs of this |

pub mod attempts;
pub mod durations;
pub mod ephemeral;
pub mod events;
pub mod expected;
pub mod flakes;
pub mod forges;
pub mod gate;
pub mod history;
pub mod impact;
pub mod imports;
pub mod junit;
pub mod model;
pub mod pipelines;
pub mod plans;
pub mod quarantine;
pub mod queue;
pub mod recording;
pub mod services;
pub mod shards;
pub mod stages;
mod start;
pub mod storage;
mod upkeep;
pub mod verdicts;

pub use recording::{Recorder, Recordings};
pub use start::{CiOptions, CiParts, CiServices};
