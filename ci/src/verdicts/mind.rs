//! What a server that decides has in mind: failures that nobody has explained, and what happens together. It does
//! no I/O; what it says is written by [`super::leading`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::builds::BuildRecord;
use super::census::Census;
use super::evidence::{DAYS, Observed, TestEvidence};
use super::heard::Heard;
use crate::flakes::clusters::{Clusters, Failure, Window};
use crate::flakes::{
    Case, Fresh, History, Hold, Identity, Judgement, Limits, Piece, Prior, Purpose, Rerun, RerunId,
    Shadows, Tries, Verdict,
};
use crate::model::{Outcome, Subject, TestKey, Time};

/// Failures that are not known after so long are no longer run again.
pub const OPEN_FOR: Duration = Duration::from_secs(24 * 3600);
/// Controls that are tried of failures that happened together.
const MAX_CONTROLS: usize = 3;

/// A failure of a subject with these inputs.
pub type Key = (Subject, Identity);

/// A failure as it is kept, for any server to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseRecord {
    pub case: Case,
    pub judgement: Judgement,
    pub tries: Tries,
    /// Shadow runs that the failure has cost so far.
    pub runs: u32,
    /// Whether nothing more will be tried.
    pub settled: bool,
    pub at: Time,
}

/// What is kept of everything else.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MindState {
    pub clusters: Clusters,
    /// How many tests there are; nothing in what was written before they were counted by instance.
    #[serde(default)]
    pub census: Option<Census>,
    pub holds: Vec<Hold>,
    /// The day for which `spent` is, and worker time that shadow runs took in it.
    pub day: u64,
    pub spent: Duration,
}

/// Evidence of tests, by test.
pub type Tests = BTreeMap<TestKey, TestEvidence>;
pub type Builds = BTreeMap<(String, String), BuildRecord>;

pub struct Mind {
    clusters: Clusters,
    pub census: Census,
    shadows: Shadows,
    prior: Prior,
    /// For the inputs of a failure, the subjects whose cases are open.
    open: HashMap<Identity, BTreeSet<Subject>>,
    /// Cases that changed since they were written.
    changed: BTreeSet<Key>,
    /// Cases whose failure is not yet in the evidence of its test.
    unrecorded: BTreeSet<Key>,
}

impl Mind {
    /// `cases`: failures that are open still.
    pub fn new(limits: Limits, state: MindState, cases: Vec<Case>) -> Self {
        let prior = Prior::default();
        let mut shadows = Shadows::new(limits, prior.clone());
        shadows.resume(state.day, state.spent, state.holds);
        let mut open: HashMap<Identity, BTreeSet<Subject>> = HashMap::new();
        for case in cases {
            open.entry(case.fresh.identity).or_default().insert(case.fresh.subject.clone());
            shadows.restore(case);
        }
        Self {
            clusters: state.clusters,
            census: state.census.unwrap_or_default(),
            shadows,
            prior,
            open,
            changed: BTreeSet::new(),
            unrecorded: BTreeSet::new(),
        }
    }

    pub fn state(&self) -> MindState {
        let (day, spent) = self.shadows.spending();
        MindState {
            clusters: self.clusters.clone(),
            census: Some(self.census.clone()),
            holds: self.shadows.holds(),
            day,
            spent,
        }
    }

    /// Whether [`Self::hear`] would change anything with whatever evidence: a pass of inputs that are not known to have
    /// failed is evidence alone.
    pub fn wants(&self, it: &Heard) -> bool {
        let has_failed = it.is_failure() || !it.failed.is_empty();
        let is_own = it.shadow.is_none() && !it.merged;
        is_own && (has_failed || self.open.contains_key(&it.identity))
    }

    /// An attempt has come: its failures are run again from now on. What it says as evidence waits for what else
    /// happens at the time.
    pub fn hear(&mut self, it: &Heard, evidence: &TestEvidence, now: Time) {
        if it.shadow.is_some() || it.merged || evidence.has_heard(it.execution) {
            return;
        }
        // What Kiln did not run it cannot run again.
        let fresh = it.action.as_ref().map(|_| evidence.fresh(it, &self.prior.rate, now));
        for fresh in fresh.into_iter().flatten() {
            let key = (fresh.subject.clone(), fresh.identity);
            self.open(fresh);
            self.unrecorded.insert(key);
        }
        for subject in self.subjects_of(it.identity) {
            if shown(it, &subject) == Outcome::Passed {
                self.shadows.passed(&subject, it.identity);
                self.changed.insert((subject, it.identity));
            }
        }
    }

    /// What passed after an earlier failure has to do so again.
    fn open(&mut self, fresh: Fresh) {
        let key = (fresh.subject.clone(), fresh.identity);
        let known = self.shadows.judgement(&key.0, key.1);
        if known.is_some_and(|it| it.verdict == Verdict::Flaky) {
            self.shadows.close(&key.0, key.1);
        }
        self.shadows.failed(fresh);
        self.open.entry(key.1).or_default().insert(key.0.clone());
        self.changed.insert(key);
    }

    fn subjects_of(&self, identity: Identity) -> Vec<Subject> {
        self.open.get(&identity).into_iter().flatten().cloned().collect()
    }

    /// What ended within a window becomes evidence, in the order in which it began.
    pub fn close(&mut self, heard: &[&Heard], tests: &mut Tests, builds: &mut Builds, now: Time) {
        let pieces = self.weigh(heard, tests);
        let mut together = Together::default();
        for it in heard {
            let Some(evidence) = tests.get_mut(&it.test) else { continue };
            let build = (it.test.instance.clone(), it.invocation.clone());
            let build = builds.get_mut(&build).filter(|_| it.shadow.is_none());
            if it.merged {
                let observed = self.as_its_own(it);
                build.into_iter().for_each(|build| build.add(it, &observed));
                continue;
            }
            let piece = pieces.get(&(it.test.clone(), it.identity)).copied().unwrap_or(Piece::Own);
            if piece == Piece::Outage && it.shadow.is_none() {
                together.add(it, evidence);
            }
            let observed = evidence.observe(it, piece);
            build.into_iter().for_each(|build| build.add(it, &observed));
        }
        self.hold(together, now);
        self.unrecorded.clear();
    }

    /// Notes that what an attempt said is not evidence yet.
    pub fn awaits(&mut self, it: &Heard) {
        let own = self.subjects_of(it.identity).into_iter().filter(|own| own.test == it.test);
        self.unrecorded.extend(own.map(|subject| (subject, it.identity)));
    }

    /// What failed for whoever asked first has failed for this one.
    fn as_its_own(&self, it: &Heard) -> Vec<Observed> {
        let mut subjects = self.subjects_of(it.identity);
        if subjects.is_empty() {
            subjects.push(whole(&it.test));
        }
        let observed = |subject| Observed {
            subject,
            outcome: it.outcome,
            signature: it.signature,
            known: false,
        };
        subjects.into_iter().map(observed).collect()
    }

    /// What the first failure of each test weighs.
    fn weigh(&mut self, heard: &[&Heard], tests: &Tests) -> BTreeMap<(TestKey, Identity), Piece> {
        let mut window = Window::default();
        let mut keys = Vec::new();
        let mut seen = BTreeSet::new();
        let mut rates: BTreeMap<(&TestKey, u64), (bool, f64)> = BTreeMap::new();
        let subjects: BTreeMap<_, _> = tests.keys().map(|it| (it, whole(it))).collect();
        for it in heard.iter().filter(|it| it.shadow.is_none() && !it.merged) {
            let (Some(evidence), Some(subject)) = (tests.get(&it.test), subjects.get(&it.test))
            else {
                continue;
            };
            let repeats = !seen.insert((&it.test, it.identity, it.outcome == Outcome::Failed));
            if repeats || evidence.has_heard(it.execution) || it.at.0 == 0 {
                continue;
            }
            window.from = if window.until.0 == 0 { it.at } else { window.from.min(it.at) };
            window.until = window.until.max(it.at);
            // To find it out takes longer than all else here, and it is the same for all attempts at a test in a day.
            let (known, rate) = *rates.entry((&it.test, it.at.day())).or_insert_with(|| {
                let rate = evidence.history(None).rate(&self.prior.rate, it.at, DAYS);
                (is_known(evidence), rate.mean())
            });
            window.workers.entry(it.worker.as_str()).or_default().add(rate, known);
            if it.outcome == Outcome::Failed {
                let first = it.failed.first().and_then(|it| it.1);
                let (worker, signature) = (it.worker.as_str(), it.signature.or(first));
                window.failures.push(Failure { subject, worker, signature, known });
                keys.push((it.test.clone(), it.identity));
            }
        }
        keys.into_iter().zip(self.clusters.weigh(&window)).collect()
    }

    /// What failed together waits for a control.
    fn hold(&mut self, together: Together, now: Time) {
        let members: Vec<_> = together.members.into_iter().collect();
        self.changed.extend(members.iter().cloned());
        self.shadows.together(now.0, &members, together.controls);
    }

    /// Idle slots that are left alone.
    pub fn reserve(&self) -> usize {
        self.shadows.limits().reserve
    }

    /// Shadow runs that idle slots can take.
    pub fn next(&mut self, now: Time, idle: usize) -> Vec<Rerun> {
        self.shadows.next(now, idle)
    }

    /// Shadow runs that give their slots back, since so many actions wait.
    pub fn preempt(&mut self, waiting: usize) -> Vec<RerunId> {
        self.shadows.preempt(waiting)
    }

    /// A shadow run has ended; nothing for one that showed nothing.
    pub fn ended(&mut self, id: RerunId, it: Option<&Heard>, took: Duration, now: Time) {
        let outcome =
            |subject: &Subject| it.map_or(Outcome::Infrastructure, |it| shown(it, subject));
        let Some(rerun) = self.shadows.running(id) else { return };
        self.shadows.ended(id, outcome(&rerun.subject), took, now);
        // What a control was for is not known here: all of its subject's cases may have changed.
        let cases = self.open.iter().filter(|(_, own)| own.contains(&rerun.subject));
        self.changed.extend(cases.map(|(it, _)| (rerun.subject.clone(), *it)));
        if rerun.purpose != Purpose::Decide {
            return;
        }
        for subject in self.subjects_of(rerun.identity) {
            if subject != rerun.subject {
                self.shadows.shown(&subject, rerun.identity, outcome(&subject), now);
                self.changed.insert((subject, rerun.identity));
            }
        }
    }

    /// Gives up a run that cannot be made again: nothing more will be tried.
    pub fn give_up(&mut self, rerun: &Rerun) {
        for subject in self.subjects_of(rerun.identity) {
            self.shadows.give_up(&subject, rerun.identity);
            self.changed.insert((subject, rerun.identity));
        }
    }

    /// Runs a test when nothing else is to be done, while less than half of the day's budget is spent.
    pub fn probe(&mut self, subject: &Subject, identity: Identity, expected: Duration) {
        if self.shadows.spent() * 2 < self.shadows.limits().per_day {
            self.shadows.probe(subject.clone(), identity, expected);
        }
    }

    /// Whether anything might be run again.
    pub fn has_work(&self) -> bool {
        self.shadows.has_work()
    }

    /// Cases that changed and whose failures are evidence already, as they are to be written.
    pub fn take_changed(&mut self, most: usize) -> Vec<(Key, CaseRecord)> {
        let due: Vec<_> = self.changed.difference(&self.unrecorded).take(most).cloned().collect();
        due.iter().for_each(|key| {
            self.changed.remove(key);
        });
        let record = |key: Key| {
            let case = self.shadows.case(&key.0, key.1)?.clone();
            let record = CaseRecord {
                judgement: case.judgement(),
                tries: case.tries,
                runs: case.runs,
                settled: self.shadows.settled(&key.0, key.1),
                at: case.fresh.at,
                case,
            };
            Some((key, record))
        };
        due.into_iter().filter_map(record).collect()
    }

    /// Drops what is too old to be decided.
    pub fn forget(&mut self, now: Time) {
        let age = u64::try_from(OPEN_FOR.as_millis()).unwrap_or(u64::MAX);
        self.shadows.turn(now);
        self.shadows.forget(Time(now.0.saturating_sub(age)));
        let shadows = &self.shadows;
        self.open.retain(|identity, subjects| {
            subjects.retain(|it| shadows.case(it, *identity).is_some());
            !subjects.is_empty()
        });
    }
}

/// Failures that happened together, and what might show whether the surroundings are well.
#[derive(Default)]
struct Together {
    members: BTreeSet<Key>,
    controls: Vec<Key>,
}

impl Together {
    fn add(&mut self, it: &Heard, evidence: &TestEvidence) {
        let cases = it.failed.iter().map(|(case, _)| Some(case.clone()));
        let whole = it.failed.is_empty().then_some(None);
        for case in cases.chain(whole) {
            let good = evidence.history(case.as_ref()).last_good(it.identity);
            let subject = Subject { test: it.test.clone(), case };
            if let Some(good) = good.filter(|it| evidence.repeatable(*it).is_some())
                && self.controls.len() < MAX_CONTROLS
            {
                self.controls.push((subject.clone(), good));
            }
            self.members.insert((subject, it.identity));
        }
    }
}

/// What an attempt says of a subject. A case that its report does not name was not run.
fn shown(it: &Heard, subject: &Subject) -> Outcome {
    if subject.test != it.test {
        return Outcome::Infrastructure;
    }
    match &subject.case {
        None => it.outcome,
        Some(case) if it.failed.iter().any(|(failed, _)| failed == case) => Outcome::Failed,
        Some(case) if it.has_passed(case) => Outcome::Passed,
        // It ended before there was a report.
        Some(_) if it.failed.is_empty() && it.outcome == Outcome::Failed => Outcome::Failed,
        Some(_) if it.outcome == Outcome::TimedOut => Outcome::TimedOut,
        Some(_) => Outcome::Infrastructure,
    }
}

fn whole(test: &TestKey) -> Subject {
    Subject { test: test.clone(), case: None }
}

fn is_known(evidence: &TestEvidence) -> bool {
    let mut all = evidence.subjects().map(|(_, history)| history);
    all.any(History::is_flaky)
}

#[cfg(test)]
#[path = "mind_tests.rs"]
mod tests;
