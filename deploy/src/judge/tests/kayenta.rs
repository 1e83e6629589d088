//! Kayenta's rules, on cases of our own.

use crate::judge::testing::{case, metric};
use crate::judge::{
    Case, Class, Direction, Judgement, Measure, Metric, NanStrategy, Thresholds, Verdict,
    judge_as_kayenta as judge,
};

fn of(metric: Metric) -> Judgement {
    let thresholds = Thresholds { pass: 95.0, marginal: 75.0 };
    judge(&Case { thresholds, confidence: None, ..case(vec![metric]) })
}

fn class(metric: Metric) -> Class {
    of(metric).metrics[0].classification
}

const FIVE: [f64; 5] = [1.0, 2.2, 1.1, 2.5, 3.0];
const TENFOLD: [f64; 5] = [20.0, 22.0, 21.0, 25.0, 30.0];

#[test]
fn directions_and_effects() {
    assert_eq!(class(metric("m", &TENFOLD, &FIVE)), Class::High);
    assert_eq!(class(metric("m", &FIVE, &TENFOLD)), Class::Low);
    let mut down = metric("m", &TENFOLD, &FIVE);
    down.direction = Direction::Decrease;
    assert_eq!(class(down), Class::Pass);
    let mut large = metric("m", &TENFOLD, &FIVE);
    large.effect.allowed_increase = Some(13.0);
    assert_eq!(class(large.clone()), Class::Pass);
    large.effect.allowed_increase = Some(12.0);
    assert_eq!(class(large.clone()), Class::High);
    large.effect.measure = Measure::Cles;
    large.effect.allowed_increase = Some(1.0);
    assert_eq!(class(large), Class::High, "every value is greater");
}

#[test]
fn constants_get_noise_and_zero_has_no_ratio() {
    let constant = of(metric("m", &[10.0; 5], &[1.0; 5]));
    assert_eq!(constant.metrics[0].classification, Class::High);
    assert_eq!(class(metric("m", &[0.0, 1.0, 1.0, 1.0, 1.0], &[1.0; 5])), Class::Pass);
    let mut zero = metric("m", &[54.9, 54.5, 55.1, 55.6, 57.4], &[0.0; 5]);
    zero.effect.allowed_increase = Some(1.2);
    let zero = of(zero);
    assert_eq!(zero.metrics[0].classification, Class::High);
    assert!(zero.metrics[0].effect.unwrap().is_nan());
    assert_eq!(class(metric("m", &[0.0; 5], &[0.0; 4])), Class::Pass);
}

#[test]
fn missing_data() {
    let missing = |change: fn(&mut Metric)| {
        let mut metric = metric("m", &[], &FIVE);
        change(&mut metric);
        class(metric)
    };
    assert_eq!(missing(|_| ()), Class::Nodata);
    assert_eq!(missing(|it| it.must_have_data = true), Class::NodataFailMetric);
    assert_eq!(missing(|it| (it.must_have_data, it.critical) = (true, true)), Class::Nodata);
    assert_eq!(missing(|it| it.nan = NanStrategy::Replace), Class::Pass);
    let failed = of(metric("m", &[], &FIVE));
    assert_eq!((failed.score, failed.verdict), (0.0, Verdict::Rollback));
    // A short side is filled with nothing, and nothing is 0 where it is replaced.
    let mut short = metric("m", &[5.0; 2], &[5.0; 40]);
    short.nan = NanStrategy::Replace;
    assert_eq!(class(short), Class::Low);
}

#[test]
fn critical_metrics_fail_all() {
    let metrics = |critical_increase| {
        let mut bad = metric("bad", &TENFOLD, &FIVE);
        bad.critical = true;
        bad.effect.critical_increase = Some(critical_increase);
        let good = (0..9).map(|i| metric(&format!("m{i}"), &FIVE, &FIVE));
        judge(&Case { confidence: None, ..case(good.chain([bad]).collect()) })
    };
    let failed = metrics(12.0);
    assert_eq!((failed.score, failed.verdict), (0.0, Verdict::Rollback));
    assert!(failed.metrics[9].critical);
    assert!(
        failed.reasons[1].contains("bad was classified as High (Critical)"),
        "{:?}",
        failed.reasons
    );
    let spared = metrics(15.0);
    assert_eq!((spared.score, spared.verdict), (90.0, Verdict::Hold));
    assert!(!spared.metrics[9].critical);
}

#[test]
fn scores_are_told_as_kayenta_tells_them() {
    let good = of(metric("m", &FIVE, &FIVE));
    assert_eq!(
        good.reasons[0],
        "Final canary score 100.0 met or exceeded the pass score threshold."
    );
}
