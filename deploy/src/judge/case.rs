//! What is judged: metrics of a canary and of its baseline, and what their owner said of them.

use std::collections::BTreeMap;

use super::counts::Counts;
use super::limits::{Burn, Crashes, Limits};
use super::series::{NanStrategy, Points};

/// The direction in which a change of a metric is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    Increase,
    Decrease,
    #[default]
    Either,
}

/// How the size of a change is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Measure {
    #[default]
    MeanRatio,
    /// How likely a value of the canary is greater than one of the baseline.
    Cles,
}

/// The size from which on a change counts, in units of the measure.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EffectSize {
    pub measure: Measure,
    pub allowed_increase: Option<f64>,
    pub allowed_decrease: Option<f64>,
    pub critical_increase: Option<f64>,
    pub critical_decrease: Option<f64>,
}

/// What was measured of both cohorts.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// A value for each interval.
    Points { experiment: Points, control: Points },
    /// Bad events out of all, as errors out of requests.
    Counts { experiment: Counts, control: Counts },
    /// Asking for it failed, with this message.
    Failed(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    pub name: String,
    pub groups: Vec<String>,
    pub evidence: Evidence,
    pub direction: Direction,
    pub critical: bool,
    pub must_have_data: bool,
    /// Whether the metric is shown, and decides nothing.
    pub muted: bool,
    pub nan: NanStrategy,
    /// Outliers are removed: how many interquartile ranges beyond the quartiles they are.
    pub outliers: Option<f64>,
    pub effect: EffectSize,
    pub limits: Limits,
    /// The part of the estimate that an interval must be away from 0; only in the compatibility mode.
    pub tolerance: Option<f64>,
    /// Instead of that of all.
    pub confidence: Option<f64>,
}

/// Scores from which on a canary passes, or is a matter for a person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    pub pass: f64,
    pub marginal: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { pass: 95.0, marginal: 75.0 }
    }
}

/// What there must be at least before anything is decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Least {
    /// Points with a value, in each cohort.
    pub points: usize,
    /// What these are worth, in independent points.
    pub effective: f64,
    /// Requests to each cohort, where it is told how many there were.
    pub requests: u64,
    /// Bad events that the canary would have at the baseline's rate.
    pub errors: f64,
}

impl Default for Least {
    fn default() -> Self {
        Self { points: 50, effective: 25.0, requests: 100, errors: 10.0 }
    }
}

/// Requests to each cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    pub experiment: u64,
    pub control: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub metrics: Vec<Metric>,
    pub thresholds: Thresholds,
    pub group_weights: BTreeMap<String, f64>,
    /// How sure a judgement is that it blames no canary without a fault, over all its metrics.
    pub confidence: Option<f64>,
    /// The least relative change that counts.
    pub least_effect: f64,
    pub least: Least,
    pub traffic: Option<Traffic>,
    pub burn: Vec<Burn>,
    pub crashes: Option<Crashes>,
}

/// The confidence where nothing else is said: at most eight false alarms in a thousand judgements.
pub const CONFIDENCE: f64 = 0.992;
/// The least effect that counts where nothing else is said: 5 %.
pub const LEAST_EFFECT: f64 = 0.05;
