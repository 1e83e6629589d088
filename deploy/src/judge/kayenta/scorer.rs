//! Kayenta's score, with its weaknesses.

use std::collections::BTreeMap;

use crate::judge::judgement::{Class, GroupScore, MetricResult};
use crate::judge::score::{groups, share};

/// The percentage of metrics without data from which on nothing passes.
const NODATA: f64 = 50.0;

/// What the metrics come to, and why it is 0 where something forces it to be.
pub struct Score {
    pub score: f64,
    pub groups: Vec<GroupScore>,
    pub forced: Option<String>,
}

pub fn score(metrics: &[MetricResult], weights: &BTreeMap<String, f64>) -> Score {
    let counts = |metric: &MetricResult| match metric.classification {
        Class::Pass => Some(true),
        Class::High | Class::Low | Class::NodataFailMetric => Some(false),
        _ => None,
    };
    let groups = groups(metrics, counts);
    let without = groups.iter().filter(|(name, _)| !weights.contains_key(name)).count();
    let rest = (100.0 - weights.values().sum::<f64>()) / without as f64;
    let weight = |name: &String| weights.get(name).copied().unwrap_or(rest);
    let effective = |members: &[bool]| share(members).unwrap_or(100.0);
    let all =
        groups.iter().map(|(name, members)| effective(members) * (weight(name) / 100.0)).sum();
    let scores = groups.iter().map(|(name, members)| GroupScore {
        name: name.clone(),
        score: share(members).unwrap_or(0.0),
        weight: weight(name),
    });
    let forced = forced(metrics);
    let score = if forced.is_some() { 0.0 } else { half_up(all) };
    Score { score, groups: scores.collect(), forced }
}

fn forced(metrics: &[MetricResult]) -> Option<String> {
    let counted = || metrics.iter().filter(|metric| !metric.muted);
    if let Some(failed) = counted().find(|it| it.critical && it.classification != Class::Pass) {
        return Some(format!("Canary Failed: {}", failed.reason));
    }
    let missing = counted().filter(|it| it.classification == Class::Nodata).count();
    let share = 100.0 * missing as f64 / counted().count() as f64;
    (share >= NODATA).then(|| format!("Canary Failed: {NODATA}% or more metrics returned NODATA"))
}

/// The value to two decimals as they are written: 66.665 becomes 66.67, whatever its binary digits are.
fn half_up(value: f64) -> f64 {
    let text = format!("{value}");
    // No negative zero.
    let Some((whole, part)) = text.split_once('.') else { return value + 0.0 };
    let (Some(kept), Some(next)) = (part.get(..2), part.get(2..3)) else { return value };
    let Ok(cents) = format!("{whole}{kept}").parse::<i64>() else { return value };
    // Away from zero; "-0" has lost its sign.
    let sign = if value < 0.0 { -1 } else { 1 };
    let cents = cents.abs() + i64::from(next >= "5");
    (sign * cents) as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing::result;

    #[test]
    fn decimals_are_rounded_as_they_are_written() {
        for (value, rounded) in
            [(66.665, 66.67), (1.005, 1.01), (33.333_333, 33.33), (100.0, 100.0), (-0.555, -0.56)]
        {
            assert_eq!(half_up(value), rounded);
        }
        assert!(half_up(-0.0).is_sign_positive());
    }

    #[test]
    fn weaknesses_are_kept() {
        let weights = BTreeMap::from([("a".to_owned(), 60.0)]);
        let of = |metrics: &[MetricResult]| score(metrics, &weights).score;
        assert_eq!(
            of(&[result("b", Class::Pass)]),
            40.0,
            "a group without metrics loses its weight"
        );
        assert_eq!(of(&[result("a", Class::Pass), result("b", Class::Error)]), 100.0);
        let mut muted = result("a", Class::Pass);
        muted.muted = true;
        assert_eq!(of(&[muted]), 0.0, "all muted");
        assert_eq!(of(&[result("a", Class::Nodata)]), 0.0);
        let over = BTreeMap::from([("a".to_owned(), 80.0), ("b".to_owned(), 80.0)]);
        let both = [result("a", Class::Pass), result("b", Class::Pass)];
        assert_eq!(score(&both, &over).score, 160.0);
    }
}
