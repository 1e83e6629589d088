//! What follows from what is measured.

use crate::judge::testing::{case, metric};
use crate::judge::{
    Burn, Case, Class, Counts, Crashes, Direction, Evidence, Judgement, Limits, Metric, Statistic,
    Traffic, Verdict, judge,
};

fn around(center: f64, seed: u64) -> Vec<f64> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..60).map(|_| center * (0.9 + 0.2 * random.f64())).collect()
}

fn same(name: &str, seed: u64) -> Metric {
    metric(name, &around(100.0, seed), &around(100.0, seed + 1_000))
}

fn worse(name: &str, seed: u64) -> Metric {
    metric(name, &around(140.0, seed), &around(100.0, seed + 1_000))
}

fn of(metrics: Vec<Metric>) -> Judgement {
    judge(&case(metrics))
}

#[test]
fn a_canary_like_its_baseline_is_promoted_and_a_slower_one_reverted() {
    let good = of(vec![same("latency", 1), same("memory", 2)]);
    assert_eq!((good.verdict, good.score), (Verdict::Promote, 100.0), "{:?}", good.reasons);
    let bad = of(vec![worse("latency", 1)]);
    assert_eq!((bad.verdict, bad.score, bad.breach), (Verdict::Rollback, 0.0, false));
    let metric = &bad.metrics[0];
    assert_eq!(metric.classification, Class::High);
    let interval = metric.interval.unwrap();
    assert!(interval.lower > 30.0 && interval.upper < 50.0, "{interval:?}");
    assert!(
        bad.reasons[1].contains("latency: the canary is higher, effect 1.3"),
        "{:?}",
        bad.reasons
    );
}

#[test]
fn only_the_bad_direction_is_bad() {
    let mut metric = worse("latency", 3);
    metric.direction = Direction::Decrease;
    assert_eq!(of(vec![metric.clone()]).verdict, Verdict::Promote);
    metric.direction = Direction::Increase;
    assert_eq!(of(vec![metric]).verdict, Verdict::Rollback);
}

#[test]
fn one_of_many_is_a_matter_for_a_person_unless_it_is_critical() {
    let mut metrics: Vec<_> = (0..5).map(|i| same(&format!("m{i}"), 10 + i)).collect();
    metrics.push(worse("latency", 20));
    let marginal = of(metrics.clone());
    assert_eq!(
        (marginal.verdict, marginal.score),
        (Verdict::Hold, 83.33),
        "{:?}",
        marginal.reasons
    );
    metrics[5].critical = true;
    let critical = of(metrics.clone());
    assert_eq!(critical.verdict, Verdict::Rollback);
    assert!(critical.reasons[0].starts_with("latency (critical)"), "{:?}", critical.reasons);
    metrics[5].muted = true;
    assert_eq!(of(metrics).verdict, Verdict::Promote);
}

#[test]
fn what_is_missing_holds_and_never_passes_nor_reverts() {
    let hold = |metrics: Vec<Metric>, word: &str| {
        let judgement = of(metrics);
        assert_eq!(judgement.verdict, Verdict::Hold, "{:?}", judgement.reasons);
        assert!(judgement.reasons[0].contains(word), "{word}: {:?}", judgement.reasons);
    };
    hold(vec![metric("m", &[], &around(1.0, 1))], "no data of the canary");
    hold(vec![metric("m", &around(1.0, 1), &[])], "no data of the baseline");
    hold(vec![metric("m", &around(9.0, 1)[..49], &around(1.0, 2))], "at least 50 of each");
    hold(
        vec![metric(
            "m",
            &around(9.0, 1),
            &[around(1.0, 2), around(1.0, 3), around(1.0, 4)].concat(),
        )],
        "shape",
    );
    let mut failed = same("m", 1);
    failed.evidence = Evidence::Failed("502 Bad Gateway".to_owned());
    hold(vec![same("other", 2), failed], "asking for it failed: 502");
    let mut flaky = same("m", 1);
    let holes =
        |values: Vec<f64>| values.into_iter().flat_map(|value| [Some(value), None, None]).collect();
    let (experiment, control) = (holes(around(1.0, 1)), holes(around(1.0, 2)));
    flaky.evidence = Evidence::Points { experiment, control };
    hold(vec![flaky], "120 of 180 points of the canary are missing");
    let drift: Vec<f64> = (0..60).map(f64::from).collect();
    hold(vec![metric("m", &drift, &drift[..55])], "neighbouring points are so alike");
    let mut muted = same("m", 1);
    muted.muted = true;
    hold(vec![muted], "all are muted");
}

/// A metric that is certainly worse leads to a rollback, even though another one is not known yet, if that
/// one could not change the verdict.
#[test]
fn what_is_unknown_saves_nobody() {
    let mut unknown = same("other", 2);
    unknown.evidence = Evidence::Failed("timeout".to_owned());
    let mut bad = worse("latency", 1);
    bad.critical = true;
    assert_eq!(of(vec![bad.clone(), unknown.clone()]).verdict, Verdict::Rollback);
    bad.critical = false;
    assert_eq!(of(vec![bad.clone(), unknown.clone()]).verdict, Verdict::Rollback, "50 at best");
    let good = (0..3).map(|i| same(&format!("m{i}"), 30 + i));
    let some = good.chain([bad, unknown]).collect();
    assert_eq!(of(some).verdict, Verdict::Hold, "80 at best");
}

#[test]
fn silence_is_said_as_that() {
    let with = |experiment, control| {
        let traffic = Some(Traffic { experiment, control });
        judge(&Case { traffic, ..case(vec![worse("latency", 1)]) })
    };
    assert!(with(0, 500).reasons[0].contains("no traffic: the canary had no request"));
    assert_eq!(with(0, 500).verdict, Verdict::Hold);
    assert_eq!(with(500, 99).verdict, Verdict::Hold);
    assert_eq!(with(500, 500).verdict, Verdict::Rollback);
    let mut counted = same("errors", 1);
    let none = Counts { bad: 0, total: 0 };
    counted.evidence = Evidence::Counts { experiment: none, control: Counts { bad: 1, total: 9 } };
    assert!(of(vec![counted]).reasons[0].contains("no traffic"));
}

#[test]
fn a_broken_limit_reverts_at_once() {
    let mut slow = metric("latency", &[400.0; 3], &[400.0; 3]);
    slow.limits = Limits { max: Some(250.0), min: None, statistic: Statistic::P99 };
    let judgement = of(vec![slow.clone()]);
    assert!(judgement.breach && judgement.verdict == Verdict::Rollback);
    assert!(judgement.reasons[0].contains("above the limit of 250"), "{:?}", judgement.reasons);
    slow.muted = true;
    assert!(!of(vec![slow]).breach);
    let crashed =
        Case { crashes: Some(Crashes { count: 5, limit: 3 }), ..case(vec![metric("m", &[], &[])]) };
    assert!(judge(&crashed).breach);
    let counts = |bad, total| Counts { bad, total };
    let burning = |bad| {
        let windows = (counts(bad, 1_000), counts(bad / 10, 100));
        let burn = Burn {
            name: "availability".to_owned(),
            objective: 0.999,
            factor: 14.4,
            long: windows.0,
            short: windows.1,
        };
        judge(&Case { burn: vec![burn], ..case(vec![same("m", 1)]) })
    };
    assert_eq!(burning(20).verdict, Verdict::Rollback);
    assert_eq!(burning(0).verdict, Verdict::Promote);
}

#[test]
fn errors_are_counted_exactly_however_sparse() {
    let of = |own: (u64, u64), other: (u64, u64)| {
        let mut errors = same("errors", 1);
        errors.direction = Direction::Increase;
        let counts = |(bad, total)| Counts { bad, total };
        errors.evidence = Evidence::Counts { experiment: counts(own), control: counts(other) };
        judge(&case(vec![errors]))
    };
    // No rank test sees these: most intervals have no error at all.
    assert_eq!(of((12, 10_000), (0, 10_000)).verdict, Verdict::Rollback);
    assert_eq!(of((3, 1_000), (2, 1_000)).verdict, Verdict::Hold, "too few to say anything");
    assert_eq!(of((20, 10_000), (20, 10_000)).verdict, Verdict::Promote);
    assert!(of((60, 1_000), (100, 10_000)).breach, "six times as often");
    assert_eq!(of((5, 100_000), (40, 100_000)).verdict, Verdict::Promote, "fewer are no fault");
}

/// Among many metrics with few errors, one like this occurs by chance.
#[test]
fn sparse_errors_are_corrected_for_their_number_as_well() {
    let errors = |name: usize, own, other| {
        let mut errors = same(&format!("errors {name}"), 1);
        errors.direction = Direction::Increase;
        let counts = |bad| Counts { bad, total: 1_000 };
        errors.evidence = Evidence::Counts { experiment: counts(own), control: counts(other) };
        errors
    };
    let alone = of(vec![errors(0, 14, 3)]);
    assert_eq!(alone.metrics[0].classification, Class::High, "{:?}", alone.reasons);
    let quiet = (1..30).map(|at| errors(at, 2, 2));
    let many = of(quiet.chain([errors(0, 14, 3)]).collect());
    assert_eq!(many.metrics[29].classification, Class::Inconclusive);
    assert_eq!(many.verdict, Verdict::Hold, "{:?}", many.reasons);
}

/// Seven of ten points are a hundred times the baseline, which Kayenta does not notice.
#[test]
fn a_mixture_of_good_and_terrible_is_seen() {
    let mixed: Vec<f64> = (0..60).map(|i| if i % 10 < 3 { 1.0 } else { 100.0 }).collect();
    let calm: Vec<f64> = (0..60).map(|i| 1.0 + f64::from(i % 3) / 100.0).collect();
    assert_eq!(of(vec![metric("m", &mixed, &calm)]).verdict, Verdict::Rollback);
}

#[test]
fn many_metrics_raise_no_more_false_alarms() {
    let (mut alarms, rounds) = (0, 200);
    for round in 0..rounds {
        let metrics = (0..20).map(|i| same(&format!("m{i}"), 100_000 + round * 50 + i)).collect();
        let judgement = judge(&Case { least_effect: 0.0, ..case(metrics) });
        alarms += u32::from(judgement.metrics.iter().any(|it| it.classification.is_worse()));
    }
    println!("20 metrics, least effect 0: {alarms} of {rounds} judgements blamed any");
    assert!(alarms <= 6, "{alarms} of {rounds}");
}
