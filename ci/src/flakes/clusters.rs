//! Failures with a common cause: three quarters of flaky tests fail in company.
//!
//! Failures of several subjects that share a signature, a worker or a time are one event. Subjects that are
//! known to fail now and then, or that failed together before, are a cluster, which weighs as one piece of
//! evidence for each of them. Otherwise the infrastructure has failed, or a change has broken them all:
//! either says nothing of whether they are flaky.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use statrs::function::gamma::checked_gamma_lr;

use super::{Piece, Signature};
use crate::model::{Subject, Time};

/// Subjects that make a cluster.
const LEAST: usize = 3;
/// Subjects that make a cluster where they are not known to fail, and fail on one worker or at one time.
const LEAST_UNKNOWN: usize = 2;
/// Failures that it takes at least for an outage of everything.
const LEAST_OUTAGE: usize = 5;
/// How improbable as many failures of these must be, by chance.
const SURPRISE: f64 = 1e-2;
/// How improbable it must be that as many of an earlier event fail together again.
const SURPRISE_AGAIN: f64 = 1e-4;
/// The share of all runs that have to fail for an outage, whoever failed together before.
const OUTAGE_SHARE: f64 = 0.5;
/// An event goes on while the next failures of its cause come within this time.
const LULL: Duration = Duration::from_secs(3600);
/// How many events, and how many members of one, are remembered.
const MAX_EVENTS: usize = 256;
const MAX_MEMBERS: usize = 4_096;

/// A failure within a window of time.
#[derive(Clone, Debug)]
pub struct Failure<'a> {
    pub subject: &'a Subject,
    pub worker: &'a str,
    pub signature: Option<Signature>,
    /// The subject is known to be flaky: see [`super::History::is_flaky`].
    pub known: bool,
}

/// How many tests ran on a worker within the window, and how many were expected to fail of those that are not
/// known to: the sum of their rates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub runs: u32,
    pub expected: f64,
}

impl Load {
    /// Adds a run of a subject, with its rate by what was known before.
    pub fn add(&mut self, rate: f64, known: bool) {
        self.runs = self.runs.saturating_add(1);
        if !known {
            self.expected += rate;
        }
    }
}

/// What ended within a few minutes: first attempts of real work. Re-runs, which are made of what has failed
/// already, are no further coincidence.
#[derive(Clone, Debug, Default)]
pub struct Window<'a> {
    pub from: Time,
    pub until: Time,
    pub failures: Vec<Failure<'a>>,
    pub workers: BTreeMap<&'a str, Load>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Signature(Signature),
    Worker(String),
    Time,
}

/// Failures that happened together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub id: u64,
    pub cause: Cause,
    pub from: Time,
    pub until: Time,
    pub members: BTreeSet<Subject>,
}

/// The events of the past: what fails together again and again is a cluster of flaky tests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Clusters {
    events: VecDeque<Event>,
    next: u64,
}

impl Clusters {
    /// What each failure of the window weighs, in their order. Windows are given in their order too, and
    /// each failure in one of them alone.
    pub fn weigh(&mut self, window: &Window<'_>) -> Vec<Piece> {
        let mut pieces = vec![Piece::Own; window.failures.len()];
        let mut free: BTreeSet<usize> = (0..window.failures.len()).collect();
        for (cause, group) in self.groups(window) {
            // What is known to fail now and then needs no outage to do so.
            let unknown =
                |it: &usize| matches!(cause, Cause::Signature(_)) || !window.failures[*it].known;
            let outage = is_outage(window, window.failures.len());
            let fits = |it: &usize| free.contains(it) && (outage || unknown(it));
            let group: Vec<_> = group.into_iter().filter(fits).collect();
            if !surprising(window, &cause, &group) {
                continue;
            }
            let piece = self.event(window, cause, &group);
            for index in group {
                free.remove(&index);
                pieces[index] = piece;
            }
        }
        pieces
    }

    /// Candidates, the most telling cause first: an outage of everything, then signatures, workers, time.
    fn groups(&self, window: &Window<'_>) -> Vec<(Cause, Vec<usize>)> {
        let mut signatures: BTreeMap<Signature, Vec<usize>> = BTreeMap::new();
        let mut workers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, failure) in window.failures.iter().enumerate() {
            if let Some(signature) = failure.signature {
                signatures.entry(signature).or_default().push(index);
            }
            workers.entry(failure.worker).or_default().push(index);
        }
        let all = (Cause::Time, (0..window.failures.len()).collect::<Vec<_>>());
        if is_outage(window, all.1.len()) {
            return vec![all];
        }
        let signatures = signatures.into_iter().map(|(it, group)| (Cause::Signature(it), group));
        let workers = workers.into_iter().map(|(it, group)| (Cause::Worker(it.to_owned()), group));
        signatures.chain(workers).chain([all]).collect()
    }

    fn event(&mut self, window: &Window<'_>, cause: Cause, group: &[usize]) -> Piece {
        let failures: Vec<_> = group.iter().map(|it| &window.failures[*it]).collect();
        let members: BTreeSet<_> =
            failures.iter().map(|it| it.subject.clone()).take(MAX_MEMBERS).collect();
        let known = failures.iter().filter(|it| it.known).count() * 2 > failures.len();
        let together = known || self.recurs(&members, window);
        let id = self.remember(window, cause, members);
        if together && !is_outage(window, window.failures.len()) {
            Piece::Cluster(id)
        } else {
            Piece::Outage
        }
    }

    /// Whether at least half of these failed together before, at another time, and more of them than would by
    /// chance.
    fn recurs(&self, members: &BTreeSet<Subject>, window: &Window<'_>) -> bool {
        let runs = f64::from(total(window).runs).max(1.0);
        self.events.iter().filter(|it| it.until.plus(LULL) < window.from).any(|event| {
            let both = event.members.intersection(members).count();
            let (many, few) = (event.members.len(), members.len());
            let chance = (many as f64 / runs).min(1.0) * few as f64;
            both >= 2 && both * 2 >= many.min(few) && at_least(both, chance) < SURPRISE_AGAIN
        })
    }

    /// An event that goes on keeps its id.
    fn remember(&mut self, window: &Window<'_>, cause: Cause, members: BTreeSet<Subject>) -> u64 {
        let goes_on = |it: &&mut Event| it.cause == cause && window.from.since(it.until) <= LULL;
        if let Some(event) = self.events.iter_mut().find(goes_on) {
            event.until = event.until.max(window.until);
            let room = MAX_MEMBERS.saturating_sub(event.members.len());
            event.members.extend(members.into_iter().take(room));
            return event.id;
        }
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        let id = self.next;
        self.next += 1;
        self.events.push_back(Event { id, cause, from: window.from, until: window.until, members });
        id
    }

    /// Forgets the older half of what happened; `false`: there is nothing to forget.
    pub fn forget_half(&mut self) -> bool {
        let half = self.events.len().div_ceil(2);
        self.events.drain(..half).count() > 0
    }

    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }
}

fn surprising(window: &Window<'_>, cause: &Cause, group: &[usize]) -> bool {
    let signature = matches!(cause, Cause::Signature(_));
    let counts = |it: &&Failure<'_>| signature || !it.known;
    let failures = group.iter().map(|it| &window.failures[*it]).filter(counts);
    let subjects: BTreeSet<_> = failures.map(|it| it.subject).collect();
    let load = match cause {
        Cause::Signature(_) => return subjects.len() >= LEAST,
        Cause::Worker(worker) => window.workers.get(worker.as_str()).copied().unwrap_or_default(),
        Cause::Time => total(window),
    };
    subjects.len() >= LEAST_UNKNOWN && at_least(subjects.len(), load.expected) < SURPRISE
}

fn total(window: &Window<'_>) -> Load {
    window.workers.values().fold(Load::default(), |sum, it| Load {
        runs: sum.runs.saturating_add(it.runs),
        expected: sum.expected + it.expected,
    })
}

fn is_outage(window: &Window<'_>, failures: usize) -> bool {
    failures >= LEAST_OUTAGE && failures as f64 >= OUTAGE_SHARE * f64::from(total(window).runs)
}

/// The probability of at least `count` events where `expected` are (Poisson).
fn at_least(count: usize, expected: f64) -> f64 {
    if count == 0 || !expected.is_finite() {
        return 1.0;
    }
    checked_gamma_lr(count as f64, expected.max(f64::MIN_POSITIVE)).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TestKey;

    fn subject(number: usize) -> Subject {
        let label = format!("//t:{number}");
        let test = TestKey { instance: String::new(), label, configuration: String::new() };
        Subject { test, case: None }
    }

    fn subjects(count: usize) -> Vec<Subject> {
        (0..count).map(subject).collect()
    }

    const WORKERS: [&str; 4] = ["w0", "w1", "w2", "w3"];

    /// Failures of `failing`, among 1,000 runs on four workers of which one fails by chance.
    fn window<'a>(
        minute: u64,
        failing: &[&'a Subject],
        worker: Option<&'static str>,
        text: Option<&str>,
    ) -> Window<'a> {
        let failures = failing.iter().enumerate().map(|(index, subject)| Failure {
            subject,
            worker: worker.unwrap_or(WORKERS[index % 4]),
            signature: text.and_then(Signature::of),
            known: false,
        });
        let load = Load { runs: 250, expected: 0.25 };
        Window {
            from: Time(minute * 60_000),
            until: Time((minute + 10) * 60_000),
            failures: failures.collect(),
            workers: WORKERS.into_iter().map(|it| (it, load)).collect(),
        }
    }

    #[test]
    fn few_failures_stand_by_themselves() {
        let all = subjects(4);
        let failing: Vec<_> = all.iter().collect();
        let mut clusters = Clusters::default();
        assert_eq!(clusters.weigh(&window(0, &failing, None, None)), [Piece::Own; 4]);
        let mut known = window(0, &failing, Some("w1"), None);
        known.failures.iter_mut().for_each(|it| it.known = true);
        assert_eq!(clusters.weigh(&known), [Piece::Own; 4]);
        assert_eq!(clusters.events().count(), 0);
    }

    #[test]
    fn a_sick_worker_a_bad_time_and_a_common_message_say_nothing_of_the_tests() {
        let all = subjects(40);
        let failing: Vec<_> = all.iter().collect();
        let outage = |failing: &[&Subject], worker, text| {
            let pieces = Clusters::default().weigh(&window(0, failing, worker, text));
            pieces.iter().all(|it| *it == Piece::Outage)
        };
        assert!(outage(&failing[..6], Some("w2"), None));
        assert!(outage(&failing, None, None));
        assert!(outage(&failing[..3], None, Some("connection refused")));
        assert!(!outage(&failing[..3], None, None));
    }

    #[test]
    fn who_fails_together_again_is_a_cluster_and_counts_once() {
        let all = subjects(13);
        let failing: Vec<_> = all.iter().collect();
        let mut clusters = Clusters::default();
        let mut at = |minute, failing: &[&Subject]| {
            clusters.weigh(&window(minute, failing, None, Some("port is taken")))[0]
        };
        assert_eq!(at(0, &failing), Piece::Outage);
        // The same outage goes on.
        assert_eq!(at(20, &failing), Piece::Outage);
        assert_eq!(at(60, &failing[..10]), Piece::Outage);
        // Half a day later they fail together again.
        assert_eq!(at(700, &failing[2..9]), Piece::Cluster(1));
        assert_eq!(at(710, &failing[2..9]), Piece::Cluster(1));
        assert_eq!(at(2_000, &failing), Piece::Cluster(2));
    }

    #[test]
    fn an_outage_of_most_is_none_of_a_cluster_however_often_it_comes() {
        let all = subjects(600);
        let failing: Vec<_> = all.iter().collect();
        let mut clusters = Clusters::default();
        for day in 0..4 {
            let pieces = clusters.weigh(&window(day * 1440, &failing, None, None));
            assert!(pieces.iter().all(|it| *it == Piece::Outage));
        }
    }

    #[test]
    fn known_flakes_with_one_cause_are_a_cluster_at_once() {
        let all = subjects(5);
        let failing: Vec<_> = all.iter().collect();
        let mut it = window(0, &failing, None, Some("boom"));
        it.failures.iter_mut().for_each(|it| it.known = true);
        assert_eq!(Clusters::default().weigh(&it), [Piece::Cluster(0); 5]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let all = subjects(3);
        let failing: Vec<_> = all.iter().collect();
        let mut clusters = Clusters::default();
        for minute in 0..400 {
            clusters.weigh(&window(minute * 100, &failing, None, Some("boom")));
        }
        assert_eq!(clusters.events().count(), MAX_EVENTS);
        assert!((at_least(3, 1.0) - 0.0803).abs() < 1e-4);
        assert_eq!(at_least(0, 1.0), 1.0);
    }
}
