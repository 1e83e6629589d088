//! How many shards there are to be. No I/O.

use super::wish::{MAX_SHARDS, Number};

/// A shard that takes less is not worth its start, in milliseconds.
const LEAST_MS: u64 = 2_000;

/// What is known when the number is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// Milliseconds that all cases take; `None`: it has not run yet.
    pub whole_ms: Option<u64>,
    /// Milliseconds that the longest case takes.
    pub longest_ms: Option<u64>,
    /// Cases of the last full run; 0: not known.
    pub cases: usize,
    /// Slots that are free for the test.
    pub idle: u64,
}

/// The number of shards, at least 2 and at most [`MAX_SHARDS`]; `None`: it runs whole.
pub fn choose(wished: Number, expected: &Expected) -> Option<u32> {
    let number = match wished {
        Number::Exactly(number) => u64::from(number),
        Number::Auto => worthwhile(expected)?,
    };
    // A shard without a case would have nothing to do.
    let cases = if expected.cases == 0 { u64::MAX } else { expected.cases as u64 };
    let number = u32::try_from(number.min(cases)).unwrap_or(MAX_SHARDS).min(MAX_SHARDS);
    (number >= 2).then_some(number)
}

/// The number of shards that is worth it: limited by free slots, by the longest case and by how
/// little work each would have. `None`: the test has not run yet.
fn worthwhile(expected: &Expected) -> Option<u64> {
    let whole = expected.whole_ms?;
    let useful = match expected.longest_ms {
        Some(longest) if longest > 0 => whole.div_ceil(longest),
        _ => u64::MAX,
    };
    Some(expected.idle.min(useful).min(whole / LEAST_MS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expected(whole_s: u64, longest_s: u64, idle: u64) -> Expected {
        Expected {
            whole_ms: Some(whole_s * 1000),
            longest_ms: Some(longest_s * 1000).filter(|longest| *longest > 0),
            cases: 0,
            idle,
        }
    }

    #[test]
    fn auto_is_bounded_by_idle_slots_by_the_longest_case_and_by_what_is_worth_it() {
        let auto = |expected: Expected| choose(Number::Auto, &expected);
        assert_eq!(auto(expected(60, 1, 8)), Some(8));
        assert_eq!(auto(expected(60, 25, 8)), Some(3));
        assert_eq!(auto(expected(60, 60, 8)), None, "one case is all of it");
        assert_eq!(auto(expected(60, 1, 1)), None, "nothing is idle");
        assert_eq!(auto(expected(7, 1, 8)), Some(3), "each has two seconds to do");
        assert_eq!(auto(expected(3, 0, 8)), None);
        assert_eq!(auto(expected(60_000, 0, 500)), Some(MAX_SHARDS));
        assert_eq!(auto(Expected { idle: 8, ..Default::default() }), None, "it has never run");
    }

    #[test]
    fn a_number_is_taken_as_it_is_unless_there_are_fewer_cases() {
        let exactly = |number, cases| {
            choose(Number::Exactly(number), &Expected { cases, ..Default::default() })
        };
        assert_eq!(exactly(4, 0), Some(4));
        assert_eq!(exactly(4, 3), Some(3));
        assert_eq!(exactly(4, 1), None);
    }

    proptest! {
        #[test]
        fn never_fewer_than_two_and_never_more_than_help(
            whole in 0..1_000_000_u64, longest in 1..100_000_u64, idle in 0..500_u64, cases in 0..100_usize,
        ) {
            let expected =
                Expected { whole_ms: Some(whole), longest_ms: Some(longest), cases, idle };
            if let Some(number) = choose(Number::Auto, &expected) {
                prop_assert!((2..=MAX_SHARDS).contains(&number));
                prop_assert!(u64::from(number) <= whole.div_ceil(longest));
                prop_assert!(u64::from(number) <= idle);
                prop_assert!(cases == 0 || number as usize <= cases);
            }
        }
    }
}
