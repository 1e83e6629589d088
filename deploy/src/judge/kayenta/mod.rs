//! The rules of Spinnaker's Kayenta (NetflixACAJudge), weaknesses and all, for whoever comes from there
//! and wants to see the same verdicts first. docs/judge.md says what these weaknesses are.

mod classify;
mod interval;
mod root;
mod scorer;

use super::case::Case;
use super::judgement::{Judgement, MetricResult, ScoreClass, Verdict};
use super::score::classify;

/// Judges a canary as Kayenta would. Limits, traffic and budgets, which it does not know, are left
/// out.
pub fn judge(case: &Case) -> Judgement {
    let metrics: Vec<_> = case
        .metrics
        .iter()
        .map(|metric| scored(classify::classify(metric, case.confidence)))
        .collect();
    let scorer::Score { score, groups, forced } = scorer::score(&metrics, &case.group_weights);
    let classification = classify(score, &case.thresholds);
    let (verdict, words) = match classification {
        ScoreClass::Pass => (Verdict::Promote, "met or exceeded the pass score threshold"),
        ScoreClass::Marginal => {
            (Verdict::Hold, "met or exceeded the marginal score threshold only")
        }
        ScoreClass::Fail => (Verdict::Rollback, "is not above the marginal score threshold"),
    };
    let final_score = format!("Final canary score {score:?} {words}.");
    let worse = metrics.iter().filter(|it| it.classification.is_worse() && !it.muted);
    let reasons = [final_score].into_iter().chain(forced).chain(worse.map(|it| it.reason.clone()));
    let reasons = reasons.collect();
    let (judge, breach) = ("kayenta", false);
    Judgement { judge, verdict, breach, score, classification, reasons, groups, metrics }
}

fn scored(mut result: MetricResult) -> MetricResult {
    use super::judgement::Class::{High, Low, NodataFailMetric, Pass};
    result.score = match result.classification {
        _ if result.muted => None,
        Pass => Some(100.0),
        High | Low | NodataFailMetric => Some(0.0),
        _ => None,
    };
    result
}
