//! Turns metrics into a score: of each group the part that passed, then of all groups by their weights.

use std::collections::BTreeMap;

use super::case::Thresholds;
use super::judgement::{Class, GroupScore, MetricResult, ScoreClass};

/// What a metric that names no group belongs to.
pub const DEFAULT_GROUP: &str = "default";

/// The groups of unmuted metrics, in the order in which they first come, with what `counts` says of
/// each member: whether it passed, or `None` where it is left out.
pub fn groups(
    metrics: &[MetricResult],
    counts: impl Fn(&MetricResult) -> Option<bool>,
) -> Vec<(String, Vec<bool>)> {
    let mut groups: Vec<(String, Vec<bool>)> = Vec::new();
    for metric in metrics.iter().filter(|metric| !metric.muted) {
        for name in &metric.groups {
            let counted = counts(metric);
            match groups.iter_mut().find(|(known, _)| known == name) {
                Some((_, members)) => members.extend(counted),
                None => groups.push((name.clone(), counted.into_iter().collect())),
            }
        }
    }
    groups
}

/// 100 times the part that passed; `None` of nobody.
pub fn share(members: &[bool]) -> Option<f64> {
    let passed = members.iter().filter(|passed| **passed).count();
    (!members.is_empty()).then(|| 100.0 * passed as f64 / members.len() as f64)
}

/// The score of each group and of all. Groups without a weight share what the others leave of 100;
/// a group that nothing can be said of hands its weight on to the rest.
pub fn score(
    metrics: &[MetricResult],
    weights: &BTreeMap<String, f64>,
    undecided_pass: bool,
) -> (Vec<GroupScore>, f64) {
    let counts = |metric: &MetricResult| match metric.classification {
        Class::Pass => Some(true),
        Class::High | Class::Low | Class::NodataFailMetric => Some(false),
        Class::Nodata | Class::Error | Class::Inconclusive => undecided_pass.then_some(true),
    };
    let groups = groups(metrics, counts);
    let scored = || groups.iter().filter_map(|(name, members)| Some((name, share(members)?)));
    let given: f64 = scored().filter_map(|(name, _)| weights.get(name)).sum();
    let without = scored().filter(|(name, _)| !weights.contains_key(*name)).count();
    let rest = (100.0 - given).max(0.0) / without.max(1) as f64;
    let weight = |name: &String| weights.get(name).copied().unwrap_or(rest);
    let sum: f64 = scored().map(|(name, _)| weight(name)).sum();
    let scores: Vec<_> = scored()
        .map(|(name, score)| GroupScore {
            name: name.clone(),
            score,
            weight: if sum > 0.0 { 100.0 * weight(name) / sum } else { 0.0 },
        })
        .collect();
    let all = scores.iter().map(|group| group.score * group.weight / 100.0).sum();
    (scores, rounded(all))
}

/// The score to two decimals. The sum of no groups is a negative zero, which nobody is to read.
pub fn rounded(score: f64) -> f64 {
    (score * 100.0).round() / 100.0 + 0.0
}

pub fn classify(score: f64, thresholds: &Thresholds) -> ScoreClass {
    match score {
        score if score >= thresholds.pass => ScoreClass::Pass,
        score if score >= thresholds.marginal => ScoreClass::Marginal,
        _ => ScoreClass::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing::result;

    fn scored(metrics: &[(&str, Class)], weights: &[(&str, f64)]) -> f64 {
        let metrics: Vec<_> = metrics.iter().map(|(group, class)| result(group, *class)).collect();
        let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        score(&metrics, &weights, false).1
    }

    #[test]
    fn nothing_scores_nothing() {
        assert!(scored(&[], &[]).is_sign_positive());
        assert!(scored(&[("a", Class::Nodata)], &[]).is_sign_positive());
    }

    #[test]
    fn groups_weigh_what_was_said_and_share_the_rest() {
        use Class::{High, Low, Nodata, Pass};
        assert_eq!(scored(&[("a", Pass), ("a", High)], &[]), 50.0);
        assert_eq!(
            scored(&[("a", Pass), ("a", Pass), ("b", High)], &[("a", 75.0), ("b", 25.0)]),
            75.0
        );
        let four = [("a", High), ("a", Low), ("a", Pass), ("b", High)];
        assert_eq!(scored(&four, &[("a", 15.0), ("b", 85.0)]), 5.0);
        assert_eq!(scored(&[("a", Pass), ("b", High), ("c", High)], &[("a", 50.0)]), 50.0);
        assert_eq!(scored(&[("a", Pass), ("b", Nodata)], &[("a", 10.0), ("b", 90.0)]), 100.0);
        assert_eq!(scored(&[("a", Pass), ("b", High)], &[("a", 150.0), ("b", 50.0)]), 75.0);
        assert_eq!(scored(&[("a", Pass)], &[("other", 60.0)]), 100.0);
        assert_eq!(scored(&[("a", Nodata)], &[]), 0.0);
    }
}
