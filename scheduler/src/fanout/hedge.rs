//! When a part that takes too long is run a second time beside itself: the first answer counts, whatever it says. No
//! I/O.
//!
//! Where an action may do something to others (it has the network), or must not run twice at a time (`exclusive`,
//! do_not_cache), there is no second copy. Nor is there one while most parts still run: what is slow then is the machines.

use crate::config::Hedge;
use crate::job::ActionFacts;

/// Copies that run at a time: one for every so many parts of a test, and at least one.
const PARTS_FOR_A_COPY: usize = 4;

/// Whether an action may run twice at the same time.
pub fn is_safe(facts: &ActionFacts) -> bool {
    let asks = |(name, value): &(String, String)| {
        let is_known =
            matches!(name.as_str(), "kiln-network" | "requires-network" | "exclusive" | "external");
        is_known && value != "false" && value != "0"
    };
    !facts.do_not_cache && !facts.platform.pairs().iter().any(asks)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartState {
    Open,
    Copied,
    Over,
}

/// The parts of one test.
#[derive(Debug)]
pub struct Hedging {
    rule: Hedge,
    /// Milliseconds that each is expected to take; 0: not known.
    expected: Vec<u64>,
    states: Vec<PartState>,
}

impl Hedging {
    pub fn new(rule: Hedge, expected: Vec<u64>) -> Self {
        let states = vec![PartState::Open; expected.len()];
        Self { rule, expected, states }
    }

    pub fn came(&mut self, part: usize) {
        self.set(part, PartState::Over);
    }

    /// Notes that a copy of this part runs beside it.
    pub fn copied(&mut self, part: usize) {
        self.set(part, PartState::Copied);
    }

    fn set(&mut self, part: usize, state: PartState) {
        if let Some(place) = self.states.get_mut(part) {
            *place = state;
        }
    }

    /// Milliseconds after the start before which no part is slow. `None`: none is to be copied now.
    pub fn earliest(&self) -> Option<u64> {
        self.open().map(|(_, after)| after).min()
    }

    /// The part that is most beyond its time. `runs_for`: milliseconds since its worker has it; `None`: none has.
    pub fn slowest(&self, runs_for: impl Fn(usize) -> Option<u64>) -> Option<usize> {
        let beyond = self.open().filter_map(|(part, after)| {
            let by = runs_for(part)?.checked_sub(after)?;
            Some((by, part))
        });
        beyond.max().map(|(_, part)| part)
    }

    /// Parts that may be copied, and after how long they are slow.
    fn open(&self) -> impl Iterator<Item = (usize, u64)> {
        let count = |state| self.states.iter().filter(|it| **it == state).count();
        let is_ripe = 2 * count(PartState::Over) >= self.states.len();
        let may_copy = count(PartState::Copied) < (self.states.len() / PARTS_FOR_A_COPY).max(1);
        let may = self.rule.factor > 0.0 && is_ripe && may_copy;
        let parts = self.states.iter().zip(&self.expected).enumerate();
        parts
            .filter(move |(_, (state, expected))| {
                may && **state == PartState::Open && **expected > 0
            })
            .map(|(part, (_, expected))| (part, self.slow_after(*expected)))
    }

    fn slow_after(&self, expected: u64) -> u64 {
        let least = u64::try_from(self.rule.least.as_millis()).unwrap_or(u64::MAX);
        let times = (expected as f64 * self.rule.factor) as u64;
        times.max(expected.saturating_add(least))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::queue::platform::Requirement;

    fn hedging(expected: &[u64]) -> Hedging {
        Hedging::new(Hedge::default(), expected.to_vec())
    }

    #[test]
    fn a_part_is_copied_once_most_are_over_and_it_takes_far_too_long() {
        let mut it = hedging(&[10_000, 20_000, 10_000, 10_000]);
        assert_eq!(it.slowest(|_| Some(900_000)), None, "nothing is over yet");
        it.came(0);
        assert_eq!(it.earliest(), None);
        it.came(3);
        assert_eq!(it.earliest(), Some(20_000));
        assert_eq!(it.slowest(|_| Some(19_999)), None);
        assert_eq!(it.slowest(|part| (part == 2).then_some(20_000)), Some(2));
        assert_eq!(it.slowest(|_| None), None, "none has a worker");
        it.copied(2);
        assert_eq!(it.slowest(|_| Some(900_000)), None, "one copy at a time");
        it.came(2);
        assert_eq!(it.slowest(|_| Some(40_000)), Some(1));
    }

    #[test]
    fn what_is_short_or_of_which_nothing_is_known_is_not_slow_soon() {
        let mut it = hedging(&[100, 100, 0]);
        it.came(0);
        it.came(1);
        assert_eq!(it.earliest(), None);
        let mut it = hedging(&[100, 100]);
        it.came(0);
        assert_eq!(it.earliest(), Some(5_100));
        let off = Hedge { factor: 0.0, ..Hedge::default() };
        let mut it = Hedging::new(off, vec![100, 100]);
        it.came(0);
        assert_eq!((it.earliest(), it.slowest(|_| Some(u64::MAX))), (None, None));
    }

    #[test]
    fn what_reaches_others_or_must_be_alone_runs_no_second_time() {
        let facts = |properties: &[(&str, &str)]| ActionFacts {
            command: kiln_cas::DigestFunction::Sha256.digest(b"command"),
            input_root: kiln_cas::DigestFunction::Sha256.digest(b"root"),
            platform: Requirement::new(
                properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
            ),
            timeout_ms: None,
            do_not_cache: false,
        };
        assert!(is_safe(&facts(&[("OSFamily", "linux"), ("kiln-network", "false")])));
        assert!(!is_safe(&facts(&[("kiln-network", "true")])));
        assert!(!is_safe(&facts(&[("exclusive", "")])));
        assert!(!is_safe(&ActionFacts { do_not_cache: true, ..facts(&[]) }));
    }

    proptest! {
        /// Whatever ends in whatever order, copies are few, and no part gets one that has ended or has a copy
        /// already.
        #[test]
        fn copies_are_few_and_of_what_is_open(
            expected in prop::collection::vec(1..10_000_u64, 2..20),
            ends in prop::collection::vec((0..20_usize, 0..60_000_u64), 0..60),
        ) {
            let mut it = Hedging::new(Hedge::default(), expected.clone());
            let mut open: Vec<usize> = Vec::new();
            let mut over = Vec::new();
            for (part, ran) in ends {
                if let Some(slow) = it.slowest(|_| Some(ran)) {
                    prop_assert!(!over.contains(&slow) && !open.contains(&slow));
                    prop_assert!(ran >= 2 * expected[slow]);
                    it.copied(slow);
                    open.push(slow);
                }
                prop_assert!(open.len() <= (expected.len() / 4).max(1));
                if part < expected.len() {
                    it.came(part);
                    over.push(part);
                    open.retain(|it| *it != part);
                }
            }
        }
    }
}
