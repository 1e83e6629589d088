//! What tests of the judge are made of.

use super::case::{CONFIDENCE, Case, Direction, EffectSize, Evidence, LEAST_EFFECT, Metric};
use super::compare::blank;
use super::judgement::{Class, MetricResult};
use super::limits::Limits;
use super::series::NanStrategy;

pub fn metric(name: &str, experiment: &[f64], control: &[f64]) -> Metric {
    let points = |values: &[f64]| values.iter().map(|value| Some(*value)).collect();
    Metric {
        name: name.to_owned(),
        groups: vec!["default".to_owned()],
        evidence: Evidence::Points { experiment: points(experiment), control: points(control) },
        direction: Direction::Either,
        critical: false,
        must_have_data: false,
        muted: false,
        nan: NanStrategy::Remove,
        outliers: None,
        effect: EffectSize::default(),
        limits: Limits::default(),
        tolerance: None,
        confidence: None,
    }
}

pub fn case(metrics: Vec<Metric>) -> Case {
    Case {
        metrics,
        thresholds: super::case::Thresholds::default(),
        group_weights: std::collections::BTreeMap::new(),
        confidence: Some(CONFIDENCE),
        least_effect: LEAST_EFFECT,
        least: super::case::Least::default(),
        traffic: None,
        burn: Vec::new(),
        crashes: None,
    }
}

pub fn result(group: &str, class: Class) -> MetricResult {
    let mut metric = metric("m", &[], &[]);
    metric.groups = vec![group.to_owned()];
    blank(&metric, class, "")
}
