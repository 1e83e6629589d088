//! Cases of the canary's judge: whatever they hold, they are read within their limits or refused, and what was read
//! is judged, by both kinds of rules, with a judgement that can be written.
#![no_main]

use kiln_deploy::judge::{judge, judge_as_kayenta, read, MAX_METRICS, MAX_POINTS, Evidence};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(case) = read(data) else { return };
    assert!((1..=MAX_METRICS).contains(&case.metrics.len()));
    for metric in &case.metrics {
        if let Evidence::Points { experiment, control } = &metric.evidence {
            assert!(experiment.len().max(control.len()) <= MAX_POINTS);
        }
    }
    for judgement in [judge(&case), judge_as_kayenta(&case)] {
        assert_eq!(judgement.metrics.len(), case.metrics.len());
        assert!(!judgement.reasons.is_empty());
        serde_json::to_vec(&judgement).expect("it can be written");
    }
});
