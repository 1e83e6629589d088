//! What threads of a crew do next. Others who keep silent hold up neither pieces nor the tracker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::swarm::downloader::{PeerId, Source};

/// Threads that wait at once for others to say what they have.
pub const ASKING: usize = 8;

pub enum Job {
    Announce { seeded: Vec<u32>, starving: Vec<u32> },
    Ask(PeerId),
    Fetch { from: Source, piece: u32, cancelled: Arc<AtomicBool> },
}

impl Job {
    fn asks(&self) -> bool {
        matches!(self, Self::Ask(_))
    }
}

#[derive(Default)]
pub struct Jobs {
    waiting: VecDeque<Job>,
    asking: usize,
}

impl Jobs {
    pub fn push(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    /// The first one, but for questions to others while as many wait for answers as may.
    pub fn take(&mut self) -> Option<Job> {
        let is_full = self.asking >= ASKING;
        let at = self.waiting.iter().position(|it| !(is_full && it.asks()))?;
        let job = self.waiting.remove(at)?;
        self.asking += usize::from(job.asks());
        Some(job)
    }

    /// Notes that somebody who was asked has answered, or will not.
    pub fn answered(&mut self) {
        self.asking = self.asking.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_peers_hold_up_neither_a_piece_nor_the_tracker() {
        let mut jobs = Jobs::default();
        (0..16).for_each(|peer| jobs.push(Job::Ask(peer)));
        for peer in 0..ASKING {
            assert!(matches!(jobs.take(), Some(Job::Ask(it)) if it as usize == peer));
        }
        assert!(jobs.take().is_none());
        jobs.push(Job::Announce { seeded: Vec::new(), starving: Vec::new() });
        let cancelled = Arc::default();
        jobs.push(Job::Fetch { from: Source::Origin, piece: 7, cancelled });
        assert!(matches!(jobs.take(), Some(Job::Announce { .. })));
        assert!(matches!(jobs.take(), Some(Job::Fetch { piece: 7, .. })));
        assert!(jobs.take().is_none());
        jobs.answered();
        assert!(matches!(jobs.take(), Some(Job::Ask(it)) if it as usize == ASKING));
    }
}
