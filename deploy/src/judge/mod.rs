//! The canary's judge: compares what was measured of a canary with what was measured of its baseline,
//! and says with numbers and in words whether the rollout goes on, waits or is reverted. Pure: no
//! clock, no randomness, no I/O. docs/judge.md has the rules and what they were measured at.

mod autocorrelation;
mod case;
mod compare;
mod counts;
mod holm;
mod judgement;
mod kayenta;
mod limits;
mod looks;
mod mann_whitney;
mod normal;
mod ranks;
mod read;
mod score;
mod series;
mod shift;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verdict;

pub use case::{
    CONFIDENCE, Case, Direction, EffectSize, Evidence, LEAST_EFFECT, Least, Measure, Metric,
    Thresholds, Traffic,
};
pub use counts::Counts;
pub use judgement::{
    Class, Cohort, GroupScore, Interval, Judgement, MetricResult, ScoreClass, Verdict,
};
pub use kayenta::judge as judge_as_kayenta;
pub use limits::{Burn, Crashes, Limits, Statistic};
pub use looks::{BAD, LOOKS, Looks};
pub use read::{MAX_BYTES, MAX_METRICS, MAX_POINTS, ReadError, read};
pub use score::DEFAULT_GROUP;
pub use series::{NanStrategy, Points};
pub use verdict::judge;
