//! A failure: does the test fail always, or now and then?

use serde::{Deserialize, Serialize};

use super::Mixture;

/// What is believed of a test before it ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    /// How often a change breaks a given test, so that it fails always.
    pub broken: f64,
    /// The rate at which a test fails that is not broken.
    pub rate: Mixture,
    /// A verdict of 'broken' needs at least this probability.
    pub certainty: f64,
    /// A test that has failed so often in a row that its rate makes this less probable is broken, also when
    /// equal inputs passed before.
    pub streak: f64,
}

impl Default for Prior {
    fn default() -> Self {
        Self { broken: 0.003, rate: Mixture::of_tests(), certainty: 0.99, streak: 1e-4 }
    }
}

/// What runs of one identity did since the failure in question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    /// Independent failures since the last pass: what failures with a common cause say counts once.
    pub straight: u32,
    /// Passes since the first of these failures began. What passed before is no sign that it still would:
    /// a date may have come, a service may have gone.
    pub passes: u32,
}

impl Tries {
    pub fn failed(&mut self) {
        self.straight = self.straight.saturating_add(1);
    }

    pub fn passed(&mut self) {
        self.straight = 0;
        self.passes = self.passes.saturating_add(1);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Flaky,
    Broken,
    Undecided,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    pub verdict: Verdict,
    /// The probability that the test fails always with these inputs.
    pub broken: f64,
}

/// The probability that a test is broken after it failed `straight` times in a row and never passed. `rate`
/// is what is believed of its failure rate if it is not: the test's own history where there is one.
pub fn broken(prior: f64, rate: &Mixture, straight: u32) -> f64 {
    let prior = prior.clamp(0.0, 1.0);
    let flaky = (1.0 - prior) * rate.straight(straight);
    if prior + flaky > 0.0 { prior / (prior + flaky) } else { 0.0 }
}

pub fn judge(prior: &Prior, rate: &Mixture, tries: Tries) -> Judgement {
    if tries.passes > 0 {
        let too_long = tries.straight > 1 && rate.straight(tries.straight) < prior.streak;
        let verdict = if too_long { Verdict::Broken } else { Verdict::Flaky };
        return Judgement { verdict, broken: if too_long { 1.0 - prior.streak } else { 0.0 } };
    }
    if tries.straight == 0 {
        return Judgement { verdict: Verdict::Undecided, broken: 0.0 };
    }
    let broken = broken(prior.broken, rate, tries.straight);
    // Whatever its history says, one failure alone never condemns: the machine may have had its part in it.
    let sure = broken >= prior.certainty && tries.straight > 1;
    let verdict = if sure { Verdict::Broken } else { Verdict::Undecided };
    Judgement { verdict, broken }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flakes::Part;

    #[test]
    fn published_probabilities_come_out() {
        let rate = Mixture::of_tests();
        let table: [(f64, [f64; 4]); 2] =
            [(0.03, [0.88, 0.94, 0.97, 0.98]), (0.003, [0.43, 0.62, 0.75, 0.84])];
        for (prior, expected) in table {
            for (straight, expected) in (1..).zip(expected) {
                let it = broken(prior, &rate, straight);
                assert!((it - expected).abs() < 0.015, "{prior} {straight}: {it}, not {expected}");
            }
        }
    }

    #[test]
    fn the_formula_is_that_of_a_beta_prior() {
        let rate = Mixture::new([Part { weight: 1.0, failures: 0.3, passes: 20.0 }]).unwrap();
        for (straight, expected) in [(1, 0.68), (2, 0.972), (3, 0.997)] {
            assert!((broken(0.03, &rate, straight) - expected).abs() < 0.005);
        }
    }

    #[test]
    fn history_decides_how_many_failures_it_takes() {
        let prior = Prior::default();
        let decided = |rate: &Mixture| {
            (1..100).find(|straight| {
                judge(&prior, rate, Tries { straight: *straight, passes: 0 }).verdict
                    == Verdict::Broken
            })
        };
        assert_eq!(decided(&prior.rate.after(0.0, 500.0)), Some(2));
        let unknown = decided(&prior.rate).unwrap();
        let often = decided(&prior.rate.after(150.0, 100.0)).unwrap();
        assert!(unknown < often, "{unknown} {often}");
        // It passed, and then failed too often in a row for what it is known to do.
        let rare = prior.rate.after(5.0, 500.0);
        assert_eq!(judge(&prior, &rare, Tries { straight: 1, passes: 1 }).verdict, Verdict::Flaky);
        assert_eq!(judge(&prior, &rare, Tries { straight: 4, passes: 1 }).verdict, Verdict::Broken);
    }

    proptest! {
        #[test]
        fn broken_grows_with_failures_and_ends_with_a_pass(
            prior in 0.0_f64..=1.0, failures in 0_u32..300, passes in 0_u32..300, straight in 1_u32..60
        ) {
            let rate = Mixture::of_tests().after(failures.into(), passes.into());
            let (one, two) = (broken(prior, &rate, straight), broken(prior, &rate, straight + 1));
            prop_assert!((0.0..=1.0).contains(&one));
            prop_assert!(two >= one - 1e-12);
            let passed = judge(&Prior { broken: prior, ..Prior::default() }, &rate, Tries { straight: 0, passes: 1 });
            prop_assert_eq!(passed, Judgement { verdict: Verdict::Flaky, broken: 0.0 });
        }
    }
}
