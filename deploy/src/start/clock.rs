//! One clock, as promotion and rollouts ask for the time.

use crate::executions::Clock;
use crate::promotion;
use crate::rollouts::parts;
use crate::timestamp::Timestamp;

const NS_PER_S: i64 = 1_000_000_000;
const NS_PER_MS: i64 = 1_000_000;

pub struct ServerClock(pub Clock);

impl promotion::Clock for ServerClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix((self.0)().div_euclid(NS_PER_S))
    }
}

impl parts::Clock for ServerClock {
    fn now(&self) -> u64 {
        u64::try_from((self.0)() / NS_PER_MS).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_same_moment_is_told_in_seconds_and_in_milliseconds() {
        let clock = ServerClock(Arc::new(|| 1_700_000_000_999_999_999_i64));
        assert_eq!(promotion::Clock::now(&clock), Timestamp::from_unix(1_700_000_000));
        assert_eq!(parts::Clock::now(&clock), 1_700_000_000_999);
    }
}
