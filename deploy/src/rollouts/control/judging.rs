//! What was measured becomes a verdict, with the numbers that led to it. Pure.

use serde_json::Value;

use super::kept::{Looked, Series};
use super::notice::cut;
use crate::judge::{
    self, Burn, Case, Class, Crashes, Evidence, Judgement, Points, Traffic, Verdict,
};
use crate::rollouts::machine::Millis;
use crate::rollouts::parts::{Cohorts, Measured};
use crate::rollouts::plan::Judging;

/// Crashes of one target from which on they are a crash loop.
pub const CRASH_LOOP: u64 = 3;
/// Points of a metric that are kept to be drawn.
const DRAWN: usize = 120;
/// Reasons that are kept.
const MAX_REASONS: usize = 20;

/// What is looked at.
pub struct Sight {
    pub now: Millis,
    pub from: Millis,
    pub step: usize,
    pub cohorts: Cohorts,
    /// Crashes of the canary that crashed most.
    pub crashes: u64,
    /// Canaries that are not well, in words.
    pub unwell: Vec<String>,
    /// No request goes to the canary yet, so that nothing is measured.
    pub quiet: bool,
}

/// What is decided, and why.
struct Decided {
    verdict: Verdict,
    breach: bool,
    reasons: Vec<String>,
}

pub fn judged(
    judging: &Judging,
    sight: &Sight,
    measured: Vec<Measured>,
    burns: Vec<Burn>,
) -> Looked {
    let (series, missing) = (series(judging, &measured), missing(judging, &measured));
    let case = judging.case.clone().filter(|_| !sight.quiet);
    let judgement = case.map(|case| judge::judge(&filled(case, sight, measured, burns)));
    let mut decided = match &judgement {
        Some(judgement) => decided(judgement, sight),
        None => without_signals(sight),
    };
    if !sight.unwell.is_empty() && decided.verdict != Verdict::Rollback {
        decided.verdict = Verdict::Rollback;
        decided.reasons.splice(0..0, sight.unwell.iter().take(MAX_REASONS).cloned());
    }
    decided.reasons.extend(missing);
    decided.reasons.truncate(MAX_REASONS);
    Looked {
        at: sight.now,
        from: sight.from,
        step: Some(sight.step),
        canary: sight.cohorts.canary.targets.len(),
        baseline: sight.cohorts.baseline.targets.len(),
        verdict: decided.verdict,
        breach: decided.breach,
        // What targets and programs say may be long, and all of it has to fit into a record.
        reasons: decided.reasons.iter().map(|it| cut(it)).collect(),
        judgement: judgement.and_then(|it| serde_json::to_value(it).ok()).unwrap_or(Value::Null),
        series,
    }
}

/// Decides without signals: only crashes and the health of targets count.
fn without_signals(sight: &Sight) -> Decided {
    let crashes = Crashes { count: sight.crashes, limit: CRASH_LOOP };
    match crashes.breach() {
        Some(why) => Decided { verdict: Verdict::Rollback, breach: true, reasons: vec![why] },
        None => {
            let why = match sight.quiet {
                true => "no request goes there yet: only targets' health is watched",
                false => "no signal is declared: only targets' health is watched",
            };
            let reasons = vec![why.to_owned()];
            Decided { verdict: Verdict::Promote, breach: false, reasons }
        }
    }
}

/// The case with what was measured in it.
fn filled(mut case: Case, sight: &Sight, measured: Vec<Measured>, burns: Vec<Burn>) -> Case {
    case.burn = burns;
    for (metric, measured) in case.metrics.iter_mut().zip(measured) {
        metric.evidence = match measured {
            Measured::Points { canary, baseline } => {
                Evidence::Points { experiment: canary, control: baseline }
            }
            Measured::Counts { canary, baseline } => {
                let (experiment, control) = (canary.total, baseline.total);
                // The first counts are taken for the requests to each side.
                case.traffic.get_or_insert(Traffic { experiment, control });
                Evidence::Counts { experiment: canary, control: baseline }
            }
            // Nothing is there to be compared: the judge says so, and holds.
            Measured::Missing(_) => {
                Evidence::Points { experiment: Points::new(), control: Points::new() }
            }
            Measured::Failed(why) => Evidence::Failed(why),
        };
    }
    case.crashes = Some(Crashes { count: sight.crashes, limit: CRASH_LOOP });
    case
}

/// Decides by a judgement. After the last step nothing is left to compare with: then limits decide, and every signal
/// has to answer.
fn decided(judgement: &Judgement, sight: &Sight) -> Decided {
    let (verdict, breach) = (judgement.verdict, judgement.breach);
    let reasons = judgement.reasons.clone();
    if breach || !sight.cohorts.baseline.targets.is_empty() {
        return Decided { verdict, breach, reasons };
    }
    let unknown = judgement.metrics.iter().filter(|metric| {
        let failed = matches!(metric.classification, Class::Error);
        !metric.muted && (failed || metric.experiment.points == 0)
    });
    let unknown: Vec<String> =
        unknown.map(|metric| format!("{}: {}", metric.name, metric.reason)).collect();
    if unknown.is_empty() {
        let reasons = vec!["nothing is left to compare with, and no limit is broken".to_owned()];
        return Decided { verdict: Verdict::Promote, breach, reasons };
    }
    Decided { verdict: Verdict::Hold, breach, reasons: unknown }
}

/// Why there is nothing to compare, of each metric of which there is nothing.
fn missing(judging: &Judging, measured: &[Measured]) -> Vec<String> {
    let of = |(asked, measured): (&crate::rollouts::plan::Asked, &Measured)| match measured {
        Measured::Missing(why) => Some(format!("{}: {why}", asked.metric)),
        _ => None,
    };
    judging.asked.iter().zip(measured).filter_map(of).collect()
}

/// Every metric that has points, thinned.
fn series(judging: &Judging, measured: &[Measured]) -> Vec<Series> {
    let of = |(asked, measured): (&crate::rollouts::plan::Asked, &Measured)| match measured {
        Measured::Points { canary, baseline } => Some(Series {
            metric: asked.metric.clone(),
            canary: thinned(canary),
            baseline: thinned(baseline),
        }),
        _ => None,
    };
    judging.asked.iter().zip(measured).filter_map(of).collect()
}

/// The mean of as many neighbours as have to be one.
fn thinned(points: &Points) -> Points {
    let size = points.len().div_ceil(DRAWN).max(1);
    let mean = |points: &[Option<f64>]| {
        let known: Vec<f64> =
            points.iter().flatten().copied().filter(|it| it.is_finite()).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    points.chunks(size).map(mean).collect()
}
