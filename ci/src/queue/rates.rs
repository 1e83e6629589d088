//! How often changes are bad and checks fail by chance, as learned from what became of them.

use serde::{Deserialize, Serialize};

/// What old outcomes keep of their weight with each new one: about the last 2,000 count.
const KEPT: f64 = 0.9995;
const PRIOR_BAD: (f64, f64) = (0.5, 9.5);
const PRIOR_FLAKY: (f64, f64) = (0.5, 49.5);
/// Bad of changes that have passed on another tree: they meet others there.
pub const MEETING: f64 = 2e-4;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    bad: f64,
    good: f64,
    flakes: f64,
    passes: f64,
}

impl Rates {
    pub fn rejected(&mut self) {
        self.bad = self.bad * KEPT + 1.0;
        self.good *= KEPT;
    }

    pub fn landed(&mut self) {
        self.bad *= KEPT;
        self.good = self.good * KEPT + 1.0;
    }

    pub fn passed(&mut self) {
        self.passes = self.passes * KEPT + 1.0;
        self.flakes *= KEPT;
    }

    /// Something failed of which each part has passed since.
    pub fn flaked(&mut self) {
        self.flakes = self.flakes * KEPT + 1.0;
        self.passes *= KEPT;
    }

    /// The probability that a change is bad of which nothing is known.
    pub fn bad(&self) -> f64 {
        let (bad, good) = (PRIOR_BAD.0 + self.bad, PRIOR_BAD.1 + self.good);
        bad / (bad + good)
    }

    /// The probability that a check of a good tree fails.
    pub fn flaky(&self) -> f64 {
        let (flakes, passes) = (PRIOR_FLAKY.0 + self.flakes, PRIOR_FLAKY.1 + self.passes);
        flakes / (flakes + passes)
    }
}
