//! What is measured of both versions while they run.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::{Place, Target};
use crate::judge::{Counts, Points};
use crate::oci::ContentDigest;
use crate::rollouts::machine::Millis;

/// Targets that run one version, and are compared with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cohort {
    pub version: ContentDigest,
    pub targets: Vec<Target>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cohorts {
    /// Targets with the new version.
    pub canary: Cohort,
    /// The old one: as many targets as the canary has, where there are as many. Empty: nothing is left to compare with.
    pub baseline: Cohort,
}

/// In these words an implementation replaces `{{targets}}` by the names of a cohort's targets (`a|b|c`, escaped for its
/// language), `{{addresses}}` by their addresses, `{{version}}` by the digest, `{{service}}`, `{{environment}}`, and
/// `{{step}}` and `{{window}}` by times (`15s`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// A value for each interval.
    Points(String),
    /// Events over the whole window: how many were bad, out of how many.
    Counts { bad: String, total: String },
}

/// The time that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The beginning of the window in Unix milliseconds, as is its end.
    pub from: Millis,
    pub to: Millis,
    /// Length of an interval.
    pub step: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub place: Place,
    /// The metric's name, for messages.
    pub metric: String,
    pub query: Query,
    pub cohorts: Cohorts,
    pub window: Window,
}

/// What came of asking. Nothing of it promotes or reverts by being absent.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    /// Values over time: both sides have a value or `None` for each interval of the window.
    Points {
        canary: Points,
        baseline: Points,
    },
    Counts {
        canary: Counts,
        baseline: Counts,
    },
    /// The source answered, and has nothing about at least one side: why, in words.
    Missing(String),
    /// The source could not be asked, or its answer not be read: why, in words.
    Failed(String),
}

/// A metrics server, probes, or a program. Takes no longer than a limit of its own.
#[async_trait]
pub trait Signals: Send + Sync + 'static {
    async fn measure(&self, asked: &Asked) -> Measured;

    /// Files with secrets that it reads, by absolute paths.
    fn secret_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}
