//! How many tests may be in quarantine, over several instances.

use std::collections::BTreeSet;

use kiln_ci::model::Time;
use kiln_ci::quarantine::Quarantine;
use kiln_ci::verdicts::Census;

/// The caps of several instances in sum.
#[derive(Default)]
pub struct Caps {
    pub tests: usize,
    pub allowed: usize,
    /// Whether one of the instances has more tests in quarantine than it may.
    pub is_over: bool,
}

impl Caps {
    /// The caps of these instances, each of which has one of its own. Where there is no instance, since nothing is in
    /// quarantine, it is the cap of the instance without a name.
    pub fn of<'a>(
        instances: impl IntoIterator<Item = &'a str>,
        quarantine: &Quarantine,
        census: &Census,
        now: Time,
    ) -> Self {
        let mut instances: BTreeSet<&str> = instances.into_iter().collect();
        if instances.is_empty() {
            instances.insert("");
        }
        let mut caps = Self::default();
        for instance in instances {
            let tests = census.of(instance);
            caps.tests += tests;
            caps.allowed += quarantine.allowed(tests);
            caps.is_over |= quarantine.over_cap(instance, tests, now);
        }
        caps
    }
}
