//! Has agents find each other. An agent says what it has, and hears of a few others, and which pieces it may fetch from the
//! origin.

mod sample;
mod seeding;
mod swarm;

pub use sample::{Crowd, FORGOTTEN, Known};
pub use swarm::{Ask, Swarm, TrackerAnswer};
