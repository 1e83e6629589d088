//! Who runs a queue: one runner at a time, by a lease that each of its calls renews. A number that grows with each
//! runner (the fence) keeps out what an earlier one still sends.
//!
//! That is no lease among frontends, as [`kiln_net::lease`] is: none of them has it, and a runner may call any of them, so
//! that none knows by itself when it was heard last.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Time;
use crate::queue::RunId;
use crate::queue::serving::{Ran, Step, Verdict};
use crate::queue::{End, Ended};

/// A runner that was not heard for so long has lost its queue to whoever asks for it.
pub const LEASE: Duration = Duration::from_secs(10);
/// The shortest time between two notes that a runner was heard.
const NOTED: Duration = Duration::from_secs(2);
/// Runs of which is kept how they ended.
pub const MAX_RUNS: usize = 200;
/// Runs whose time says what the next one takes.
const MAX_TIMES: usize = 31;
/// Most bytes of each text that a runner says of itself.
const MAX_TEXT: usize = 300;

/// What a runner says of itself, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The machine and the process.
    pub name: String,
    /// The URL of the repository, without passwords.
    pub repository: String,
    pub target: String,
    pub check: String,
}

/// A runner that wants a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// An id of the runner: the same in all its calls, and in those of no other.
    pub nonce: String,
    pub about: About,
}

/// What became of changes, and runs that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub landed: u64,
    pub rejected: u64,
    /// Changes that neither landed nor were rejected: removed, deleted, merged by somebody else.
    pub left: u64,
    pub runs: u64,
    /// Milliseconds that the changes which landed have waited, together.
    pub waited_ms: u64,
}

impl Totals {
    pub fn step(&mut self, step: &Step) {
        self.runs += step.ran.len() as u64;
        step.ended.iter().for_each(|it| self.ended(it));
    }

    fn ended(&mut self, ended: &Ended) {
        match ended.end {
            End::Landed(_) => {
                self.landed += 1;
                let waited = ended.at.since(ended.added).as_millis();
                let waited = u64::try_from(waited).unwrap_or(u64::MAX);
                self.waited_ms = self.waited_ms.saturating_add(waited);
            }
            End::Failed { .. } | End::Conflict(_) => self.rejected += 1,
            End::Merged | End::Deleted | End::Removed => self.left += 1,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub about: About,
    nonce: String,
    /// Grows with each runner that takes the queue.
    pub fence: u64,
    /// Since when this runner has the queue.
    pub since: Time,
    /// When the runner was heard last.
    pub seen: Time,
    /// Whether the runner has given the queue back.
    pub left: bool,
    /// Steps of this runner.
    pub steps: u64,
    /// The last number of news.
    pub news: u64,
    /// Runs of which is kept how they ended, oldest first.
    pub runs: Vec<RunId>,
    /// What checks took that were carried out, in milliseconds, oldest first.
    pub times: Vec<u64>,
    pub totals: Totals,
}

impl Head {
    /// The head of a queue that begins now, and that nobody has yet. Its news and its fences go on behind those of one
    /// of the same name that was forgotten: a runner of that one has no word in this one.
    pub fn new(now: Time) -> Self {
        Self { news: now.0, fence: now.0, left: true, ..Self::default() }
    }

    /// Whether its runner can be expected to answer. One that was heard in the future was heard before the clock ran
    /// backwards: nobody would have its queue until then.
    pub fn connected(&self, now: Time) -> bool {
        !self.left && now.since(self.seen) < LEASE && self.seen.since(now) < LEASE
    }

    /// Gives the queue to a runner, unless another one has it. Answers whether it is another one than before.
    pub fn take(&mut self, take: &Take, now: Time) -> bool {
        if self.connected(now) && self.nonce != take.nonce {
            return false;
        }
        let About { name, repository, target, check } = &take.about;
        self.about = About {
            name: short(name),
            repository: short(repository),
            target: short(target),
            check: short(check),
        };
        self.nonce.clone_from(&take.nonce);
        self.fence += 1;
        (self.since, self.seen, self.left, self.steps) = (now, now, false, 0);
        true
    }

    /// Closes the queue to its runner: nothing that it says counts any more.
    pub fn close(&mut self) {
        self.fence += 1;
        self.left = true;
        self.nonce.clear();
    }

    /// Whether what this runner says counts.
    pub fn holds(&self, fence: u64) -> bool {
        self.fence == fence && !self.left
    }

    /// Notes that the runner was heard. Answers whether that has to be written.
    pub fn hear(&mut self, now: Time) -> bool {
        let due = now.since(self.seen) >= NOTED || self.seen.since(now) >= NOTED;
        if due {
            self.seen = now;
        }
        due
    }

    /// Notes a run that ended, and says of which nothing is kept any more.
    pub fn ran(&mut self, ran: &Ran) -> Option<RunId> {
        if matches!(ran.verdict, Verdict::Passed | Verdict::Failed { .. }) {
            let took = ran.ended.since(ran.began).as_millis();
            self.times.push(u64::try_from(took).unwrap_or(u64::MAX));
            if self.times.len() > MAX_TIMES {
                self.times.remove(0);
            }
        }
        self.runs.push(ran.run);
        (self.runs.len() > MAX_RUNS).then(|| self.runs.remove(0))
    }

    /// What half of the last checks took at most; nothing where none was carried out yet.
    pub fn usual(&self) -> Option<Duration> {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().map(Duration::from_millis)
    }
}

/// The text on one line, and not longer than is kept.
pub fn short(text: &str) -> String {
    let line = text.chars().map(|it| if it.is_control() { ' ' } else { it });
    let mut kept = String::new();
    for it in line {
        if kept.len() + it.len_utf8() > MAX_TEXT {
            break;
        }
        kept.push(it);
    }
    kept
}
