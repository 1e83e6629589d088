//! Compares one metric, before it is known what the others are like.

use super::autocorrelation::dependence;
use super::case::{Case, Direction, EffectSize, Evidence, Measure, Metric};
use super::counts::{self, Counts};
use super::judgement::{Class, Cohort, Interval, MetricResult};
use super::limits::{Breach, hard_breach};
use super::mann_whitney;
use super::ranks::rank_sum;
use super::series::{Cleaned, Points, clean, mean, quantile, sorted};
use super::shift::shift;

/// Cohorts of which one has less than this part of the other's points are not of the same shape.
const LEAST_PART: f64 = 0.5;
/// The share of missing points above which the signal is flaky.
const MOST_MISSING: f64 = 0.5;

/// What a comparison came to. `change`: where the metric was compared, how likely its change in the
/// bad direction is by chance, and whether it is large enough to count. The class of `result` is what
/// the metric is unless that change is certain.
pub struct Compared {
    pub result: MetricResult,
    pub change: Option<Change>,
}

#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub p: f64,
    /// The class of the metric if the change is no chance.
    pub class: Class,
    pub counts: bool,
    pub is_critical: bool,
}

/// A result about which nothing is known.
pub fn blank(metric: &Metric, classification: Class, reason: impl Into<String>) -> MetricResult {
    MetricResult {
        name: metric.name.clone(),
        classification,
        reason: reason.into(),
        critical: false,
        breach: false,
        muted: metric.muted,
        groups: metric.groups.clone(),
        score: None,
        interval: None,
        effect: None,
        p: None,
        adjusted: None,
        effective: None,
        experiment: Cohort::default(),
        control: Cohort::default(),
    }
}

pub fn compare(metric: &Metric, case: &Case, confidence: f64) -> Compared {
    match &metric.evidence {
        Evidence::Failed(why) => {
            undecided(blank(metric, Class::Error, format!("asking for it failed: {why}")))
        }
        Evidence::Counts { experiment, control } => {
            of_counts(metric, case, confidence, *experiment, *control)
        }
        Evidence::Points { experiment, control } => {
            of_points(metric, case, confidence, experiment, control)
        }
    }
}

fn undecided(result: MetricResult) -> Compared {
    Compared { result, change: None }
}

fn of_points(
    metric: &Metric,
    case: &Case,
    confidence: f64,
    experiment: &Points,
    control: &Points,
) -> Compared {
    let x = clean(experiment, metric.nan, metric.outliers);
    let y = clean(control, metric.nan, metric.outliers);
    let mut result = blank(metric, Class::Pass, "");
    (result.experiment, result.control) = (cohort(&x), cohort(&y));
    if let Some(breach) = metric.limits.breach(&x.values) {
        return breached(result, breach);
    }
    let dependence = dependence(&x.values, &y.values);
    let smaller = x.values.len().min(y.values.len());
    result.effective = Some(dependence.effective(smaller));
    let lacking = lacking(case, experiment, control, (&x, &y), dependence.effective(smaller));
    let (x, y) = (sorted(&x.values), sorted(&y.values));
    let ties = rank_sum(&x, &y, 0.0).ties;
    if let Some(shift) = shift(&x, &y, confidence, ties, dependence.inflation) {
        let (estimate, lower, upper) = (shift.estimate, shift.lower, shift.upper);
        result.interval = Some(Interval { lower, upper, estimate, confidence });
    }
    if let Some((class, reason)) = lacking {
        (result.classification, result.reason) = (class, reason);
        return undecided(result);
    }
    let Some(test) = mann_whitney::test(&x, &y, dependence.inflation) else {
        result.reason = "all values are equal".to_owned();
        result.p = Some(1.0);
        return undecided(result);
    };
    let superior = test.u / (x.len() as f64 * y.len() as f64);
    let sizes = Sizes::of(&x, &y, &result, superior);
    result.effect = Some(match metric.effect.measure {
        Measure::MeanRatio => sizes.ratio,
        Measure::Cles => superior,
    });
    decided(metric, case, result, (test.high, test.low), sizes)
}

pub fn cohort(cleaned: &Cleaned) -> Cohort {
    Cohort {
        points: cleaned.values.len() as u64,
        missing: cleaned.missing,
        outliers: cleaned.outliers,
        mean: mean(&cleaned.values),
        median: quantile(&sorted(&cleaned.values), 0.5),
    }
}

fn breached(mut result: MetricResult, breach: Breach) -> Compared {
    (result.classification, result.reason) = breach;
    result.breach = true;
    undecided(result)
}

/// What is missing before cohorts of points can be compared.
fn lacking(
    case: &Case,
    experiment: &Points,
    control: &Points,
    (x, y): (&Cleaned, &Cleaned),
    effective: f64,
) -> Option<(Class, String)> {
    let sides = [("canary", experiment, x), ("baseline", control, y)];
    for (side, points, cleaned) in sides {
        let given = points.len();
        if points.iter().all(Option::is_none) {
            return Some((Class::Nodata, format!("there is no data of the {side}")));
        }
        if cleaned.missing as f64 > MOST_MISSING * given as f64 {
            let missing = cleaned.missing;
            let text = format!("{missing} of {given} points of the {side} are missing");
            return Some((Class::Inconclusive, text));
        }
    }
    let (m, n, least) = (x.values.len(), y.values.len(), case.least);
    if m.min(n) < least.points {
        let text = format!(
            "{m} points of the canary and {n} of the baseline; at least {} of each are needed",
            least.points
        );
        return Some((Class::Inconclusive, text));
    }
    if (m.min(n) as f64) < LEAST_PART * m.max(n) as f64 {
        let text = format!("{m} points of the canary and {n} of the baseline: not the same shape");
        return Some((Class::Inconclusive, text));
    }
    (effective < least.effective).then(|| {
        let text = format!(
            "neighbouring points are so alike that {} are worth {effective:.1}; at least {} are needed",
            m.min(n),
            least.effective
        );
        (Class::Inconclusive, text)
    })
}

fn of_counts(
    metric: &Metric,
    case: &Case,
    confidence: f64,
    experiment: Counts,
    control: Counts,
) -> Compared {
    let of =
        |counts: Counts| Cohort { points: counts.total, mean: counts.rate(), ..Cohort::default() };
    let mut result = blank(metric, Class::Pass, "");
    (result.experiment, result.control) = (of(experiment), of(control));
    let breach = metric.limits.breach_of_rate(experiment);
    // More of what is counted is bad unless it was said to be good.
    let hard =
        || hard_breach(experiment, control).filter(|_| metric.direction != Direction::Decrease);
    if let Some(breach) = breach.or_else(hard) {
        return breached(result, breach);
    }
    let Some(found) = counts::compare(experiment, control, confidence) else {
        let side = if experiment.total == 0 { "canary" } else { "baseline" };
        (result.classification, result.reason) =
            (Class::Nodata, format!("nothing was counted of the {side}: no traffic"));
        return undecided(result);
    };
    let (lower, upper) = (found.lower, found.upper);
    result.interval = Some(Interval { lower, upper, estimate: found.ratio, confidence });
    result.effect = Some(found.ratio);
    let expected = control.rate() * experiment.total as f64;
    let sizes = Sizes {
        ratio: found.ratio,
        relative: (found.ratio - 1.0, found.ratio - 1.0),
        superior: 0.5,
    };
    let least = case.least.errors;
    if expected < least {
        // Few expected errors hide a small change; what is certain in spite of that is there.
        result.classification = Class::Inconclusive;
        result.reason = format!(
            "at the baseline's rate the canary would have {expected:.1} bad events; from {least} on their \
             number says something"
        );
    }
    decided(metric, case, result, (found.high, found.low), sizes)
}

/// How large a difference is.
struct Sizes {
    /// The ratio of the means.
    ratio: f64,
    /// The parts by which the canary is higher: by its typical value, and by its mean.
    relative: (f64, f64),
    superior: f64,
}

impl Sizes {
    fn of(x: &[f64], y: &[f64], result: &MetricResult, superior: f64) -> Self {
        let (of_x, of_y) = (mean(x), mean(y));
        let typical = quantile(y, 0.5).filter(|median| *median != 0.0).unwrap_or(of_y);
        let shift = result.interval.map_or(0.0, |interval| interval.estimate);
        // Compared with nothing, something is endlessly much.
        let part = |change: f64, of: f64| if change == 0.0 { 0.0 } else { change / of.abs() };
        Self {
            ratio: of_x / of_y,
            relative: (part(shift, typical), part(of_x - of_y, of_y)),
            superior,
        }
    }

    /// Whether an increase, or a decrease, is large enough.
    fn counts(&self, effect: &EffectSize, least: f64, increase: bool) -> bool {
        let sign = if increase { 1.0 } else { -1.0 };
        let own = if increase { effect.allowed_increase } else { effect.allowed_decrease };
        match own {
            Some(limit) => beyond(self.measured(effect), limit, increase),
            None => (sign * self.relative.0).max(sign * self.relative.1) >= least,
        }
    }

    fn measured(&self, effect: &EffectSize) -> f64 {
        match effect.measure {
            Measure::MeanRatio => self.ratio,
            Measure::Cles => self.superior,
        }
    }
}

/// An effect that is no number (a mean of 0) passes.
pub fn beyond(effect: f64, limit: f64, increase: bool) -> bool {
    effect.is_nan() || if increase { effect >= limit } else { effect <= limit }
}

fn decided(
    metric: &Metric,
    case: &Case,
    mut result: MetricResult,
    (high, low): (f64, f64),
    sizes: Sizes,
) -> Compared {
    let increase = match metric.direction {
        Direction::Increase => true,
        Direction::Decrease => false,
        Direction::Either => high <= low,
    };
    let one_sided = if increase { high } else { low };
    let p = match metric.direction {
        Direction::Either => (2.0 * one_sided).min(1.0),
        _ => one_sided,
    };
    result.p = Some(p);
    let effect = &metric.effect;
    let critical = if increase { effect.critical_increase } else { effect.critical_decrease };
    let change = Change {
        p,
        class: if increase { Class::High } else { Class::Low },
        counts: sizes.counts(effect, case.least_effect, increase),
        is_critical: metric.critical
            && critical.is_none_or(|limit| beyond(sizes.measured(effect), limit, increase)),
    };
    Compared { result, change: Some(change) }
}
