//! Decides which tools are kept, and for which actions. Holds no lock and waits for nothing.

use std::collections::VecDeque;
use std::time::Duration;

use kiln_cas::Digest;
use tokio::time::Instant;

/// How long a tool that never answered is not tried again.
const UNRELIABLE_FOR: Duration = Duration::from_secs(600);
/// Most tools of which the pool remembers that they are not to be tried again yet.
const MAX_UNRELIABLE: usize = 256;

/// The tools that wait for requests, and the numbers that are free for others. `T`: a tool that
/// waits; its number is to be freed when it is gone.
#[derive(Debug)]
pub struct Pool<T> {
    /// The tools that wait; the one that has waited longest comes first.
    idle: VecDeque<Idle<T>>,
    free: Vec<u32>,
    unreliable: VecDeque<(Digest, Instant)>,
    closed: bool,
}

#[derive(Debug)]
struct Idle<T> {
    key: Digest,
    since: Instant,
    tool: T,
}

/// What an action may do that finds no tool waiting for it.
#[derive(Debug, PartialEq, Eq)]
pub enum Room<T> {
    /// Start a tool of this number.
    Number(u32),
    /// End this one, and start another of its number.
    Evict(T),
    None,
}

impl<T> Pool<T> {
    pub fn new(tools: u32) -> Self {
        Self {
            idle: VecDeque::new(),
            free: (0..tools).rev().collect(),
            unreliable: VecDeque::new(),
            closed: false,
        }
    }

    /// The tool of this key that was used last.
    pub fn take(&mut self, key: &Digest) -> Option<T> {
        let index = self.idle.iter().rposition(|idle| idle.key == *key)?;
        self.idle.remove(index).map(|idle| idle.tool)
    }

    pub fn room(&mut self) -> Room<T> {
        if self.closed {
            return Room::None;
        }
        if let Some(number) = self.free.pop() {
            return Room::Number(number);
        }
        self.idle.pop_front().map_or(Room::None, |idle| Room::Evict(idle.tool))
    }

    /// Frees the number of a tool that has ended.
    pub fn free(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Keeps the tool for its next request, or returns it where the pool is closed.
    pub fn keep(&mut self, key: Digest, tool: T, now: Instant) -> Option<T> {
        if self.closed {
            return Some(tool);
        }
        self.idle.push_back(Idle { key, since: now, tool });
        None
    }

    /// When the first tool will have waited for `idle`; `None`: no tool waits.
    pub fn next_expiry(&self, idle: Duration) -> Option<Instant> {
        self.idle.front().map(|first| first.since + idle)
    }

    /// Takes out the tools that have waited for `idle` at `now`.
    pub fn expire(&mut self, idle: Duration, now: Instant) -> Vec<T> {
        let waiting = self.idle.iter().position(|tool| tool.since + idle > now);
        let expired = waiting.unwrap_or(self.idle.len());
        self.idle.drain(..expired).map(|tool| tool.tool).collect()
    }

    /// Takes out all tools that wait, and keeps none from now on.
    pub fn close(&mut self) -> Vec<T> {
        self.closed = true;
        self.idle.drain(..).map(|tool| tool.tool).collect()
    }

    /// Takes note that a tool of this key has ended before it answered anything.
    pub fn failed(&mut self, key: Digest, now: Instant) {
        self.unreliable.retain(|(other, until)| *other != key && *until > now);
        if self.unreliable.len() == MAX_UNRELIABLE {
            self.unreliable.pop_front();
        }
        self.unreliable.push_back((key, now + UNRELIABLE_FOR));
    }

    pub fn is_unreliable(&self, key: &Digest, now: Instant) -> bool {
        self.unreliable.iter().any(|(other, until)| other == key && *until > now)
    }
}

#[cfg(test)]
mod tests {
    use kiln_cas::DigestFunction;
    use proptest::prelude::*;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn key(name: &str) -> Digest {
        DigestFunction::Blake3.digest(name.as_bytes())
    }

    #[test]
    fn the_latest_of_a_key_is_taken_and_the_oldest_of_all_makes_room() {
        let now = Instant::now();
        let mut pool = Pool::new(3);
        for (name, tool) in [("a", 0), ("b", 1), ("a", 2)] {
            assert_eq!(pool.room(), Room::Number(tool));
            assert_eq!(pool.keep(key(name), tool, now), None);
        }
        assert_eq!(pool.take(&key("a")), Some(2));
        assert_eq!(pool.take(&key("c")), None);
        assert_eq!(pool.room(), Room::Evict(0));
        assert_eq!(pool.room(), Room::Evict(1));
        assert_eq!(pool.room(), Room::None);
        pool.free(0);
        assert_eq!(pool.room(), Room::Number(0));
    }

    #[test]
    fn who_waits_too_long_and_all_at_the_end_are_given_out() {
        let now = Instant::now();
        let mut pool = Pool::new(3);
        pool.keep(key("a"), 'a', now);
        pool.keep(key("b"), 'b', now + IDLE / 2);
        assert_eq!(pool.next_expiry(IDLE), Some(now + IDLE));
        assert!(pool.expire(IDLE, now + IDLE / 2).is_empty());
        assert_eq!(pool.expire(IDLE, now + IDLE), ['a']);
        assert_eq!(pool.next_expiry(IDLE), Some(now + IDLE / 2 + IDLE));
        assert_eq!(pool.close(), ['b']);
        assert_eq!(pool.keep(key("c"), 'c', now), Some('c'));
        assert_eq!(pool.room(), Room::None);
    }

    #[test]
    fn a_tool_that_never_answered_is_left_alone_for_a_while() {
        let now = Instant::now();
        let mut pool = Pool::<()>::new(1);
        pool.failed(key("a"), now);
        assert!(pool.is_unreliable(&key("a"), now));
        assert!(!pool.is_unreliable(&key("b"), now));
        assert!(!pool.is_unreliable(&key("a"), now + UNRELIABLE_FOR));
        for number in 0..2 * MAX_UNRELIABLE {
            pool.failed(key(&number.to_string()), now);
        }
        assert_eq!(pool.unreliable.len(), MAX_UNRELIABLE);
    }

    proptest! {
        /// Each number is either free, or that of exactly one tool, which waits or works.
        #[test]
        fn no_number_is_lost_or_given_twice(
            tools in 0_u32..4,
            steps in prop::collection::vec((0_u8..5, 0_u8..3), 0..60),
        ) {
            let now = Instant::now();
            let mut pool = Pool::new(tools);
            let mut working: Vec<u32> = Vec::new();
            for (step, name) in steps {
                let key = key(&name.to_string());
                match step {
                    0 => working.extend(pool.take(&key)),
                    1 => match pool.room() {
                        Room::Number(number) => working.push(number),
                        Room::Evict(number) => pool.free(number),
                        Room::None => prop_assert_eq!(working.len(), tools as usize),
                    },
                    2 => if let Some(number) = working.pop() {
                        prop_assert_eq!(pool.keep(key, number, now), None);
                    },
                    3 => if let Some(number) = working.pop() { pool.free(number) },
                    _ => pool.expire(IDLE, now + IDLE).into_iter().for_each(|number| pool.free(number)),
                }
                let mut all = working.clone();
                all.extend(&pool.free);
                all.extend(pool.idle.iter().map(|idle| idle.tool));
                all.sort_unstable();
                prop_assert_eq!(all, (0..tools).collect::<Vec<_>>());
            }
        }
    }
}
