//! Classifies one metric by Kayenta's rules.

use super::interval::interval;
use crate::judge::case::{Direction, EffectSize, Evidence, Measure, Metric};
use crate::judge::compare::{beyond, blank, cohort};
use crate::judge::judgement::{Class, Interval, MetricResult};
use crate::judge::normal;
use crate::judge::ranks::rank_sum;
use crate::judge::series::{NanStrategy, Points, clean, mean, sorted};

/// The confidence where a metric says nothing else.
const CONFIDENCE: f64 = 0.98;
const TOLERANCE: f64 = 0.25;
/// The deviation of the noise that is added to constants, as a part of their value.
const NOISE: f64 = 1e-5;

pub fn classify(metric: &Metric, confidence: Option<f64>) -> MetricResult {
    let (experiment, control) = match &metric.evidence {
        Evidence::Points { experiment, control } => padded(experiment, control),
        Evidence::Counts { .. } => {
            return blank(metric, Class::Error, "Kayenta compares points, not counts");
        }
        Evidence::Failed(why) => {
            return blank(metric, Class::Error, format!("asking for it failed: {why}"));
        }
    };
    let x = clean(&experiment, metric.nan, metric.outliers);
    let y = clean(&control, metric.nan, metric.outliers);
    let mut result = match early(metric, &x.values, &y.values) {
        Some(result) => result,
        None => {
            let confidence = metric.confidence.or(confidence).unwrap_or(CONFIDENCE);
            compared(metric, &x.values, &y.values, confidence)
        }
    };
    (result.experiment, result.control) = (cohort(&x), cohort(&y));
    result
}

/// A side that has fewer points gets more without a value; one that has none stays empty.
fn padded(experiment: &Points, control: &Points) -> (Points, Points) {
    let length = experiment.len().max(control.len());
    let pad = |points: &Points| {
        let mut points = points.clone();
        if !points.is_empty() {
            points.resize(length, None);
        }
        points
    };
    (pad(experiment), pad(control))
}

/// What needs no comparison.
fn early(metric: &Metric, x: &[f64], y: &[f64]) -> Option<MetricResult> {
    let name = &metric.name;
    if x.is_empty() || y.is_empty() {
        let class = match (metric.nan, metric.must_have_data && !metric.critical) {
            (NanStrategy::Replace, _) => {
                return Some(same(metric, "no data counts as a pass here"));
            }
            (NanStrategy::Remove, true) => Class::NodataFailMetric,
            (NanStrategy::Remove, false) => Class::Nodata,
        };
        let mut result = blank(metric, class, format!("Missing data for {name}"));
        result.critical = metric.critical;
        result.effect = Some(1.0);
        return Some(result);
    }
    let (x, y) = (sorted(x), sorted(y));
    let one_value = x.first() == y.last() && x.last() == y.first();
    let reason = "the canary's data and the baseline's are identical";
    (x == y || one_value).then(|| same(metric, reason))
}

fn same(metric: &Metric, reason: &str) -> MetricResult {
    let mut result = blank(metric, Class::Pass, reason);
    result.effect = Some(1.0);
    result
}

fn compared(metric: &Metric, x: &[f64], y: &[f64], confidence: f64) -> MetricResult {
    let (mut x, mut y) = (sorted(x), sorted(y));
    if x.first() == x.last() && y.first() == y.last() {
        (x, y) = (noisy(&x), noisy(&y));
    }
    let Some(interval) = interval(&x, &y, confidence) else {
        return blank(metric, Class::Error, "an interval cannot be computed");
    };
    let effect = measured(&metric.effect, &x, &y);
    let class = class(metric, &interval, effect);
    let name = &metric.name;
    let mut result = blank(metric, class, format!("{name} shows no difference that counts"));
    (result.interval, result.effect) = (Some(interval), Some(effect));
    if class != Class::Pass {
        let (limit, high) = critical_limit(&metric.effect, class);
        result.critical = metric.critical && beyond(effect, limit, high);
        let critical = if result.critical { " (Critical)" } else { "" };
        result.reason = format!("{name} was classified as {class:?}{critical}");
    }
    result
}

/// Constants with noise around them, evenly drawn from the normal distribution instead of at random,
/// so that a case is judged the same each time.
fn noisy(values: &[f64]) -> Vec<f64> {
    let count = values.len() as f64;
    let place = |place: usize| normal::exceeded_by((place as f64 + 0.5) / count);
    let noisy =
        values.iter().enumerate().map(|(at, value)| value + place(at) * value.abs() * NOISE);
    sorted(&noisy.collect::<Vec<_>>())
}

fn measured(effect: &EffectSize, x: &[f64], y: &[f64]) -> f64 {
    match effect.measure {
        Measure::Cles => rank_sum(x, y, 0.0).u / (x.len() as f64 * y.len() as f64),
        Measure::MeanRatio => match (mean(x), mean(y)) {
            (of_x, of_y) if of_x == 0.0 || of_y == 0.0 => f64::NAN,
            (of_x, of_y) => of_x / of_y,
        },
    }
}

/// No effect at all, in units of the measure.
fn none(effect: &EffectSize) -> f64 {
    match effect.measure {
        Measure::MeanRatio => 1.0,
        Measure::Cles => 0.5,
    }
}

fn critical_limit(effect: &EffectSize, class: Class) -> (f64, bool) {
    match class {
        Class::High => (effect.critical_increase.unwrap_or(none(effect)), true),
        _ => (effect.critical_decrease.unwrap_or(none(effect)), false),
    }
}

fn class(metric: &Metric, interval: &Interval, effect: f64) -> Class {
    let bound = metric.tolerance.unwrap_or(TOLERANCE) * interval.estimate.abs();
    let limit = |own: Option<f64>| own.unwrap_or(none(&metric.effect));
    let high = metric.direction != Direction::Decrease && interval.lower > bound;
    if high && beyond(effect, limit(metric.effect.allowed_increase), true) {
        return Class::High;
    }
    let low = metric.direction != Direction::Increase && interval.upper < -bound;
    if low && beyond(effect, limit(metric.effect.allowed_decrease), false) {
        return Class::Low;
    }
    Class::Pass
}
