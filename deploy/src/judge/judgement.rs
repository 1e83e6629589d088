//! What a judge says, with the numbers that led to it.

use serde::{Deserialize, Serialize};

/// What a rollout does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Promote,
    /// Nothing can be said yet: wait for more data, and in the end for a person.
    Hold,
    Rollback,
}

/// How one metric of the canary compares. The names are Kayenta's, but for `Inconclusive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Class {
    Pass,
    High,
    Low,
    Nodata,
    NodataFailMetric,
    /// The metric could not be computed, or asking for it failed.
    Error,
    /// There is too little to say anything.
    Inconclusive,
}

impl Class {
    pub fn is_worse(self) -> bool {
        matches!(self, Self::High | Self::Low)
    }
}

/// What a score means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ScoreClass {
    Pass,
    Marginal,
    Fail,
}

/// An interval for a difference, canary minus baseline (of counts: for the ratio of their rates). A
/// limit that is infinite, which JSON writes as null, is none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    pub lower: f64,
    pub upper: f64,
    pub estimate: f64,
    pub confidence: f64,
}

/// What there was of a cohort.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Cohort {
    /// Values that were compared; of counts, events.
    pub points: u64,
    pub missing: usize,
    pub outliers: usize,
    /// The mean of the values; of counts, the rate.
    pub mean: f64,
    pub median: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricResult {
    pub name: String,
    pub classification: Class,
    /// Why the metric is classified like that, in words.
    pub reason: String,
    /// Whether the metric fails the canary by itself.
    pub critical: bool,
    /// Whether the metric breaks an absolute limit.
    pub breach: bool,
    pub muted: bool,
    pub groups: Vec<String>,
    /// 100 or 0; `None` where it does not count.
    pub score: Option<f64>,
    pub interval: Option<Interval>,
    /// The ratio of means, or of rates, or the common-language effect size.
    pub effect: Option<f64>,
    /// How likely such a difference would be by chance.
    pub p: Option<f64>,
    /// How likely such a difference would be by chance, with all other metrics taken into account.
    pub adjusted: Option<f64>,
    /// What the points of the smaller cohort are worth, in independent ones.
    pub effective: Option<f64>,
    pub experiment: Cohort,
    pub control: Cohort,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupScore {
    pub name: String,
    pub score: f64,
    /// The group's weight, of 100 in all.
    pub weight: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// The judge whose rules were applied: `kiln` or `kayenta`.
    pub judge: &'static str,
    pub verdict: Verdict,
    /// Whether a limit was broken, so that nothing has to be waited for.
    pub breach: bool,
    /// The score, from 0 to 100.
    pub score: f64,
    pub classification: ScoreClass,
    /// Why the verdict is so, in words, the weightiest reason first.
    pub reasons: Vec<String>,
    pub groups: Vec<GroupScore>,
    pub metrics: Vec<MetricResult>,
}
