//! What a rollout stands on: targets that obey, traffic that is split, signals that are asked. Each is a small trait with
//! several implementations, which the operator names once for the server; a rollout's file only names the names, so
//! whoever may roll out decides neither which programs the server runs nor which addresses it asks.

mod releases;
mod signals;
mod targets;
mod traffic;

pub use crate::promotion::PartError;
pub use releases::{Clock, Releases, Standing, Unverified};
pub use signals::{Asked, Cohort, Cohorts, Measured, Query, Signals, Window};
pub use targets::{Health, MAX_TARGETS, Observation, Order, Selector, Target, Targets, Told};
pub use traffic::{Applied, Member, Pool, Side, Split, Traffic};

/// A service in an environment: what a rollout changes, and what a deploy lock is for.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Place {
    pub service: String,
    pub environment: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.service, self.environment)
    }
}
