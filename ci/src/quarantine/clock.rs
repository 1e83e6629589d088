//! A clock that never runs backwards, over one that may.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Time;

/// Clocks of several machines differ by less than this: such a step backwards is waited out. A larger one is
/// a clock that was set, from which time goes on.
const TOLERANCE: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    last: Time,
    /// Milliseconds that the world's clock was set back by, in all.
    offset: u64,
}

impl Clock {
    pub fn advance(&mut self, wall: Time) -> Time {
        let now = Time(wall.0.saturating_add(self.offset));
        if self.last.since(now) > TOLERANCE {
            self.offset = self.offset.saturating_add(self.last.0 - now.0);
        }
        self.last = self.last.max(now);
        self.last
    }

    /// What `advance` would answer.
    pub fn now(&self, wall: Time) -> Time {
        let mut clock = *self;
        clock.advance(wall)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn it_goes_on_from_where_it_was_set_back() {
        let mut clock = Clock::default();
        assert_eq!(clock.advance(Time(100 * HOUR)), Time(100 * HOUR));
        assert_eq!(clock.advance(Time(10 * HOUR)), Time(100 * HOUR));
        assert_eq!(clock.advance(Time(12 * HOUR)), Time(102 * HOUR));
        assert_eq!(clock.now(Time(13 * HOUR)), Time(103 * HOUR));
    }

    #[test]
    fn two_clocks_that_differ_do_not_make_it_faster() {
        let mut clock = Clock::default();
        for second in 10..1_000 {
            clock.advance(Time(second * 1_000 + 5_000));
            clock.advance(Time(second * 1_000));
        }
        assert_eq!(clock.last, Time(999 * 1_000 + 5_000));
    }

    proptest! {
        #[test]
        fn it_never_runs_backwards(walls in proptest::collection::vec(any::<u64>(), 1..50)) {
            let mut clock = Clock::default();
            let mut last = Time(0);
            for wall in walls {
                let now = clock.advance(Time(wall));
                prop_assert!(now >= last);
                last = now;
            }
        }
    }
}
