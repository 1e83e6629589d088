//! A rollout as its owner declares it, and the steps that follow from it: which part of the targets
//! and of the traffic has the new version when, and for how long before the next step.

mod declared;
mod drilling;
mod driving;
mod judging;
mod pace;
mod read;
mod sets;
mod steps;
#[cfg(test)]
mod tests;

pub use declared::{By, Declared, Ring, Rounding, Step, Strategy, Targets};
pub use drilling::{DrillSchedule, Drilling, Due};
pub use driving::{AGENTS, Driving, is_name};
pub use judging::{Asked, Judging};
pub use pace::{Most, NoneMay, Pace};
pub use read::{MAX_BYTES, MAX_STEPS, MAX_TARGETS, read};
pub use sets::Sets;
pub use steps::{Plan, PlannedStep, plan};
