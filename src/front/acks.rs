//! When to acknowledge at once what a client sent.
//!
//! The kernel keeps an acknowledgement back for 40 ms, in the hope of an answer that carries it. A client
//! that connects without `TCP_NODELAY` (Buck2's does) sends nothing small meanwhile: each of its requests
//! that takes two writes waits for 44 ms instead of less than one. An acknowledgement of its own costs the
//! others a packet for each request (1.6 of 9.6 µs of a bare round trip on loopback). So it is given
//! where a client may need it, and for good to a client that was seen to wait.

use std::time::{Duration, Instant};

/// How often a new connection is acknowledged at once, before it is watched instead: enough for what a
/// client that has few requests sends over it.
const EAGER: u32 = 64;
/// How late a client's next bytes come, after the server began to wait for them, when they were
/// held back by a delayed acknowledgement: the kernel's 40 ms, and what a busy machine adds.
const DELAYED: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(36)..=Duration::from_millis(80);

/// Decides for one connection when to acknowledge.
#[derive(Debug)]
pub struct Acks {
    mode: Mode,
    /// Whether something was read that no answer has acknowledged since.
    owed: bool,
    /// Since when the server has been waiting while it owes the client an acknowledgement; `None`:
    /// it is not waiting so.
    waits: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Acknowledge at once, so many times more.
    Eager(u32),
    /// Leave acknowledgements to the kernel, unless the client turns out to wait for them.
    Watching,
    Always,
}

impl Default for Acks {
    fn default() -> Self {
        Self { mode: Mode::Eager(EAGER), owed: false, waits: None }
    }
}

impl Acks {
    /// Notes that the client has sent something.
    pub fn read(&mut self, now: impl FnOnce() -> Instant) {
        self.owed = true;
        if let Some(since) = self.waits.take()
            && DELAYED.contains(&now().saturating_duration_since(since))
        {
            self.mode = Mode::Always;
        }
    }

    /// Notes that the server has sent something, which acknowledges all that came before.
    pub fn wrote(&mut self) {
        self.owed = false;
        self.waits = None;
    }

    /// Notes that there is nothing more to read, and says whether to acknowledge at once what there was.
    pub fn drained(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if !self.owed {
            return false;
        }
        match &mut self.mode {
            Mode::Watching => {
                self.waits.get_or_insert_with(now);
                return false;
            }
            Mode::Always => {}
            Mode::Eager(0) => self.mode = Mode::Watching,
            Mode::Eager(left) => *left -= 1,
        }
        self.owed = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client whose every request comes in two parts, the second so long after the first.
    fn requests(acks: &mut Acks, now: &mut Instant, count: u32, gap: Duration) -> u32 {
        let mut acknowledged = 0;
        for _ in 0..count {
            acks.read(|| *now);
            acknowledged += u32::from(acks.drained(|| *now));
            *now += gap;
            acks.read(|| *now);
            acks.wrote();
            assert!(!acks.drained(|| *now), "the answer was acknowledgement enough");
        }
        acknowledged
    }

    #[test]
    fn a_client_that_waits_is_acknowledged_at_once_for_good() {
        let (mut acks, mut now) = (Acks::default(), Instant::now());
        let at_once = Duration::from_micros(20);
        assert_eq!(requests(&mut acks, &mut now, EAGER + 1, at_once), EAGER + 1);
        assert_eq!(requests(&mut acks, &mut now, 1, Duration::from_millis(40)), 0);
        assert_eq!(requests(&mut acks, &mut now, 1000, at_once), 1000);
    }

    #[test]
    fn one_that_does_not_wait_costs_nothing_after_its_first_requests() {
        let (mut acks, mut now) = (Acks::default(), Instant::now());
        let at_once = Duration::from_micros(20);
        assert_eq!(requests(&mut acks, &mut now, 1000, at_once), EAGER + 1);
        assert_eq!(requests(&mut acks, &mut now, 10, Duration::from_secs(1)), 0, "it thinks");
        assert_eq!(requests(&mut acks, &mut now, 1000, at_once), 0);
    }
}
