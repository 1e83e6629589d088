//! News that comes before what it is about is known here.
//!
//! What the engine says in answer to several calls, and what other frontends' calls led to, is taken in any
//! order: the end of a task can be heard before the answer by which a client of this frontend waits for it. So
//! news of what is not known is kept for as long as any call is under way that may make it known.

use std::collections::{BTreeSet, VecDeque};

use crate::queue::{OperationId, TaskId, WorkerId};

use super::told::Told;

/// News kept at most. Whatever is dropped for want of room, the engine is asked for again.
const MAX_EARLY: usize = 1024;

/// News that came too early, and the calls under way that may make known what it is about.
#[derive(Default)]
pub struct Early {
    /// Calls that have begun so far.
    begun: u64,
    under_way: BTreeSet<u64>,
    /// News, each with the number of calls that had begun when it came: it may matter to those
    /// alone.
    kept: VecDeque<(u64, Told)>,
    /// The number of calls that had begun when the latest news was dropped for want of room.
    dropped: u64,
}

impl Early {
    /// A call begins that may make a task or a worker known here. Returns its number.
    pub fn begin(&mut self) -> u64 {
        let call = self.begun;
        self.begun += 1;
        self.under_way.insert(call);
        call
    }

    /// `false`: news was dropped that the call may have had to know.
    pub fn end(&mut self, call: u64) -> bool {
        self.under_way.remove(&call);
        match self.under_way.first() {
            Some(oldest) => {
                let outdated = self.kept.iter().take_while(|(begun, _)| begun <= oldest).count();
                self.kept.drain(..outdated);
            }
            None => self.kept.clear(),
        }
        self.dropped <= call
    }

    /// Has each call that is under way ask once more, when it ends, for what it made known: news
    /// may have been missed.
    pub fn doubt(&mut self) {
        self.dropped = self.begun;
    }

    /// Keeps news of what may become known in a moment.
    pub fn keep(&mut self, told: Told) {
        if self.under_way.is_empty() {
            return;
        }
        if self.kept.len() == MAX_EARLY {
            let dropped = self.kept.pop_front().map_or(0, |(begun, _)| begun);
            self.dropped = self.dropped.max(dropped);
        }
        self.kept.push_back((self.begun, told));
    }

    /// Takes the news that came too early for `task` or `worker`, in the order in which it came.
    pub fn take(&mut self, task: Option<TaskId>, worker: Option<WorkerId>) -> Vec<Told> {
        let wanted = |told: &Told| {
            let (its_task, its_worker) = subject(told);
            task.is_some() && its_task == task || worker.is_some() && its_worker == worker
        };
        if !self.kept.iter().any(|(_, told)| wanted(told)) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.kept).into_iter();
        let (taken, rest): (VecDeque<_>, _) = all.partition(|(_, told)| wanted(told));
        self.kept = rest;
        taken.into_iter().map(|(_, told)| told).collect()
    }
}

fn subject(told: &Told) -> (Option<TaskId>, Option<WorkerId>) {
    match told {
        Told::Leased { task, .. }
        | Told::Requeued { task, .. }
        | Told::Ended { task, .. }
        | Told::RequestCancelled { id: OperationId { task, .. }, .. } => (Some(*task), None),
        Told::Assign { worker, .. } => (None, Some(*worker)),
        _ => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(task: u64) -> Told {
        Told::Requeued { task: TaskId(task), at_once: true }
    }

    fn taken(early: &mut Early, task: u64) -> usize {
        early.take(Some(TaskId(task)), None).len()
    }

    #[test]
    fn news_is_kept_for_calls_that_had_begun_before() {
        let mut early = Early::default();
        early.keep(news(1));
        assert_eq!(taken(&mut early, 1), 0, "nothing was under way");
        let first = early.begin();
        early.keep(news(1));
        early.keep(news(2));
        let second = early.begin();
        early.keep(news(3));
        assert_eq!(taken(&mut early, 2), 1);
        assert_eq!(taken(&mut early, 2), 0, "it is taken once");
        assert!(early.end(first));
        assert_eq!(taken(&mut early, 1), 0, "the second call began later");
        assert_eq!(taken(&mut early, 3), 1);
        early.keep(news(4));
        assert!(early.end(second));
        assert_eq!(taken(&mut early, 4), 0, "nobody is left to want it");
    }

    #[test]
    fn calls_that_began_before_something_was_dropped_are_told() {
        let mut early = Early::default();
        let first = early.begin();
        (0..=MAX_EARLY as u64).for_each(|task| early.keep(news(task)));
        let second = early.begin();
        early.keep(news(0));
        assert_eq!(taken(&mut early, MAX_EARLY as u64), 1);
        assert!(early.end(second), "all that came since is there");
        assert!(!early.end(first));
        let third = early.begin();
        early.keep(news(0));
        let fourth = early.begin();
        early.doubt();
        (0..MAX_EARLY as u64).for_each(|task| early.keep(news(task)));
        assert!(!early.end(fourth), "what is dropped later takes no doubt away");
        assert!(!early.end(third));
        let fifth = early.begin();
        assert!(early.end(fifth));
    }
}
