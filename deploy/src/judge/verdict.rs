//! All metrics together: what is certain after the correction for their number, the score, and what
//! follows.

use super::case::{CONFIDENCE, Case, Metric};
use super::compare::{Change, Compared, compare};
use super::holm::adjusted;
use super::judgement::{Class, Judgement, MetricResult, ScoreClass, Verdict};
use super::score::{classify, score};

/// Judges a canary by Kiln's own rules.
pub fn judge(case: &Case) -> Judgement {
    let confidence = case.confidence.unwrap_or(CONFIDENCE);
    let of = |metric: &Metric| compare(metric, case, metric.confidence.unwrap_or(confidence));
    let compared: Vec<_> = case.metrics.iter().map(of).collect();
    let metrics = corrected(compared, case, 1.0 - confidence);
    let (groups, score) = score(&metrics, &case.group_weights, false);
    let classification = classify(score, &case.thresholds);
    let (verdict, breach, reasons) = decide(case, &metrics, score);
    let judge = "kiln";
    Judgement { judge, verdict, breach, score, classification, reasons, groups, metrics }
}

/// Says of each metric whether its change is certain among all that were compared.
fn corrected(compared: Vec<Compared>, case: &Case, risk: f64) -> Vec<MetricResult> {
    let taken = |one: &&Compared| !one.result.muted && one.change.is_some();
    let family: Vec<f64> =
        compared.iter().filter(taken).filter_map(|one| Some(one.change?.p)).collect();
    let mut family = adjusted(&family).into_iter();
    let finish = |(one, metric): (Compared, &Metric)| {
        let own = one.change.map(|change| change.p);
        let adjusted = if one.result.muted { own } else { own.and_then(|_| family.next()) };
        finish(one, metric, adjusted, risk)
    };
    compared.into_iter().zip(&case.metrics).map(finish).collect()
}

fn finish(compared: Compared, metric: &Metric, adjusted: Option<f64>, risk: f64) -> MetricResult {
    let Compared { mut result, change } = compared;
    result.adjusted = adjusted;
    if let (Some(change), Some(adjusted)) = (change, adjusted) {
        let risk = metric.confidence.map_or(risk, |confidence| 1.0 - confidence);
        let certain = adjusted <= risk;
        if certain && change.counts {
            result.classification = change.class;
            result.critical = change.is_critical;
        }
        if result.classification != Class::Inconclusive {
            result.reason = in_words(&result, change, certain);
        }
    }
    // Without data nobody knows whether a critical metric holds.
    let missing = matches!(result.classification, Class::Nodata | Class::Error);
    result.critical |= metric.critical && (missing || result.breach);
    result.score = match result.classification {
        _ if result.muted => None,
        Class::Pass => Some(100.0),
        Class::High | Class::Low => Some(0.0),
        _ => None,
    };
    result
}

fn in_words(result: &MetricResult, change: Change, certain: bool) -> String {
    let way = if change.class == Class::High { "higher" } else { "lower" };
    let effect = result.effect.filter(|effect| effect.is_finite());
    let effect = effect.map_or(String::new(), |effect| format!(", effect {effect:.3}"));
    let interval = result.interval.map_or(String::new(), |interval| {
        format!(
            ", difference {:.4} ({:.4} to {:.4})",
            interval.estimate, interval.lower, interval.upper
        )
    });
    let p = result.adjusted.unwrap_or(change.p);
    match (certain, change.counts) {
        (true, true) => format!("the canary is {way}{effect}{interval}, p = {p:.2e}"),
        (true, false) => format!("the canary is {way}, but too little to count{effect}{interval}"),
        (false, _) => format!("no difference that is certain{effect}{interval}, p = {p:.2}"),
    }
}

fn decide(case: &Case, metrics: &[MetricResult], score: f64) -> (Verdict, bool, Vec<String>) {
    let breaches = breaches(case, metrics);
    if !breaches.is_empty() {
        return (Verdict::Rollback, true, breaches);
    }
    let counted = || metrics.iter().filter(|metric| !metric.muted);
    let critical: Vec<_> =
        counted().filter(|it| it.critical && it.classification.is_worse()).map(named).collect();
    let holds = holds(case, metrics);
    let traffic = silence(case);
    if traffic.is_none() {
        if !critical.is_empty() {
            return (Verdict::Rollback, false, critical);
        }
        let best = score_at_best(metrics, case);
        if counted().any(|it| it.classification.is_worse()) && best < case.thresholds.marginal {
            return (Verdict::Rollback, false, failing(metrics, case, score));
        }
    }
    let holds: Vec<_> = traffic.into_iter().chain(holds).collect();
    if !holds.is_empty() {
        return (Verdict::Hold, false, holds);
    }
    let verdict = match classify(score, &case.thresholds) {
        ScoreClass::Pass => Verdict::Promote,
        // What is worse for certain was reverted above: here nothing says so.
        ScoreClass::Marginal | ScoreClass::Fail => Verdict::Hold,
    };
    (verdict, false, failing(metrics, case, score))
}

/// What the score would be if everything that is not known turned out well.
fn score_at_best(metrics: &[MetricResult], case: &Case) -> f64 {
    score(metrics, &case.group_weights, true).1
}

fn named(metric: &MetricResult) -> String {
    let critical = if metric.critical { " (critical)" } else { "" };
    format!("{}{critical}: {}", metric.name, metric.reason)
}

/// What broke an absolute limit.
fn breaches(case: &Case, metrics: &[MetricResult]) -> Vec<String> {
    let limits = metrics.iter().filter(|it| it.breach && !it.muted).map(named);
    let crashes = case.crashes.and_then(|crashes| crashes.breach());
    let burn = case.burn.iter().filter_map(|burn| burn.breach());
    crashes.into_iter().chain(burn).chain(limits).collect()
}

/// That there is no traffic, or too little, where it is known how much there is.
fn silence(case: &Case) -> Option<String> {
    let traffic = case.traffic?;
    let (own, other, least) = (traffic.experiment, traffic.control, case.least.requests);
    match (own, other) {
        (0, _) => Some("no traffic: the canary had no request".to_owned()),
        (_, 0) => Some("no traffic: the baseline had no request".to_owned()),
        _ if own.min(other) < least => Some(format!(
            "too little traffic: {own} requests to the canary and {other} to the baseline; at least \
             {least} to each are needed"
        )),
        _ => None,
    }
}

/// What must be known before a canary may go on, and is not.
fn holds(case: &Case, metrics: &[MetricResult]) -> Vec<String> {
    let undecided = |it: &&MetricResult| !it.muted && it.classification != Class::Pass;
    let undecided = metrics.iter().filter(undecided).filter(|it| !it.classification.is_worse());
    let silent = case.burn.iter().filter(|burn| burn.is_silent());
    let silent = silent.map(|burn| format!("{}: no traffic in one of its windows", burn.name));
    let nothing = metrics.iter().all(|it| it.muted);
    let nothing = nothing.then(|| "no metric counts: all are muted".to_owned());
    nothing.into_iter().chain(undecided.map(named)).chain(silent).collect()
}

/// The metrics that are worse, after what the score came to.
fn failing(metrics: &[MetricResult], case: &Case, score: f64) -> Vec<String> {
    let thresholds = &case.thresholds;
    let (pass, marginal) = (thresholds.pass, thresholds.marginal);
    let sum = match classify(score, thresholds) {
        ScoreClass::Pass => format!("score {score}, at or above the {pass} that pass"),
        ScoreClass::Marginal => {
            format!("score {score}, between {marginal} and the {pass} that pass: a person decides")
        }
        ScoreClass::Fail => {
            format!("score {score}, below the {marginal} from which on a person decides")
        }
    };
    let worse = metrics.iter().filter(|it| it.classification.is_worse() && !it.muted).map(named);
    [sum].into_iter().chain(worse).collect()
}
