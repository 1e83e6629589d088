//! Environments for a while: brought up for a run, and taken down at the end whatever happens, after a crash of whoever
//! brought them up as well. Each is noted before anything is done about it; what is left over is found by how its name begins.
//!
//! | module | what it does |
//! | --- | --- |
//! | `machine` | the life of one, without I/O |
//! | `kept` | records of all |
//! | `turns` | who works on one |
//! | `previews` | brings them up, by `steps` of a `recipe` |
//! | `kinds`, `kubernetes`, `netns` | what recipes there are |
//! | `down`, `sweep` | lets them go, takes them down, and finds what is left |
//! | `look`, `parity` | whether one answers, and what differs from what it stands for |
//! | `stage` | what a stage of a pipeline asks of all this |
//! | `figures` | what is counted |

mod down;
mod figures;
mod kept;
mod kinds;
mod kubernetes;
mod look;
mod machine;
mod netns;
mod parity;
mod previews;
#[cfg(test)]
mod previews_tests;
mod recipe;
mod stage;
mod steps;
mod sweep;
#[cfg(test)]
mod testing;
mod turns;

pub use figures::{PreviewCounts, PreviewFigures};
pub use kept::MAX_KEPT;
pub use kinds::{Commands, How};
pub use kubernetes::{Kubernetes, is_quota};
pub use machine::{Claim, Due, Phase, Preview, Refused};
pub use netns::Netns;
pub use parity::{Aspect, Description, DescriptionError, Difference, differences};
pub use previews::{Ask, Kind, PreviewError, PreviewParts, Previews, TellStuck, Unlocked};
pub use recipe::{Address, Recipe, Step, Which, is_name};
pub use steps::StepError;
