//! Plays the changes of a month through history, clusters, shadow runs, quarantine and gate, as a server would.

mod gates;
mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use fastrand::Rng;
use kiln_ci::flakes::clusters::{Clusters, Failure as Clustered, Window};
use kiln_ci::flakes::{
    Attempt, Fresh, History, Identity, Limits, Mixture, Piece, Prior, Purpose, Shadows, Signature,
};
use kiln_ci::model::{Outcome, Time};
use kiln_ci::quarantine::{Kind, Quarantine};

use self::gates::{PATIENCE, Pending};
pub use self::report::Report;
use crate::world::{DAY, MINUTE, World};

/// What ends within this time is looked at together.
const TICK: u64 = 10 * MINUTE;
/// How often it is looked whether something is to be run again.
const STEP: u64 = MINUTE / 6;
const TOOK: Duration = Duration::from_secs(30);

struct Log {
    test: usize,
    change: usize,
    at: u64,
    worker: usize,
    failed: bool,
    signature: Option<Signature>,
    shadow: bool,
    control: bool,
}

pub struct Driver {
    world: World,
    rng: Rng,
    histories: Vec<History>,
    rates: Vec<f64>,
    clusters: Clusters,
    shadows: Shadows,
    quarantine: Quarantine,
    gates: Vec<Pending>,
    queue: Vec<Log>,
    shadow_log: Vec<Log>,
    found: BTreeMap<usize, u64>,
    names: Vec<String>,
    /// The number of the test that a subject is, by the subject's name.
    numbers: BTreeMap<String, usize>,
    identities: HashMap<Identity, usize>,
    pub report: Report,
}

pub fn play(world: World, seed: u64) -> Report {
    let tests = world.tests.len();
    let prior = Mixture::of_tests();
    let numbers = world.tests.iter().enumerate();
    let numbers = numbers.map(|(it, truth)| (truth.subject.test.label.clone(), it)).collect();
    let days = world.size.days;
    let mut driver = Driver {
        names: (0..world.size.workers).map(|it| format!("w{it}")).collect(),
        rng: Rng::with_seed(seed ^ 0x5eed),
        histories: vec![History::default(); tests],
        rates: vec![prior.mean(); tests],
        clusters: Clusters::default(),
        shadows: Shadows::new(
            Limits { per_day: Duration::from_secs(24 * 3600), ..Limits::default() },
            Prior::default(),
        ),
        quarantine: Quarantine::default(),
        gates: Vec::new(),
        queue: Vec::new(),
        shadow_log: Vec::new(),
        found: BTreeMap::new(),
        numbers,
        identities: HashMap::new(),
        world,
        report: Report::default(),
    };
    let mut next = 0;
    for tick in 0..days * DAY / TICK + PATIENCE / TICK + 2 {
        let now = tick * TICK;
        if now.is_multiple_of(DAY) {
            driver.new_day(now);
        }
        while driver.world.changes.get(next).is_some_and(|it| it.at < now + TICK) {
            driver.start(next);
            next += 1;
        }
        driver.tick(now);
    }
    driver.finish(days);
    driver.report
}

impl Driver {
    fn new_day(&mut self, now: u64) {
        if now < self.world.size.days * DAY {
            let mut rng = self.rng.fork();
            self.world.new_day(&mut rng);
        }
        for (history, rate) in self.histories.iter().zip(&mut self.rates) {
            *rate = history.rate(&Mixture::of_tests(), Time(now), 14).mean();
        }
        self.shadows.forget(Time(now.saturating_sub(DAY)));
        for change in self.quarantine.tick(Time(now)) {
            assert_eq!(change.kind, Kind::Expired);
        }
    }

    /// Runs the tests that a change affects, within ten minutes, on all workers.
    fn start(&mut self, number: usize) {
        let change = &self.world.changes[number];
        let mut pending =
            Pending { change: number, until: change.at + TICK, failures: BTreeMap::new() };
        for test in 0..self.world.tests.len() {
            let affected = self.rng.f64() < change.affected
                || change.edited.binary_search(&test).is_ok()
                || change.broken.binary_search(&test).is_ok();
            if !affected {
                continue;
            }
            let at = change.at + self.rng.u64(0..TICK);
            let worker = self.rng.usize(0..self.names.len());
            let ran = self.world.run(test, change, Time(at), worker, &mut self.rng);
            self.report.runs += 1;
            if ran.failed {
                pending.failures.insert(test, (ran.signature, false, at));
            }
            let signature = ran.signature;
            self.queue.push(Log {
                test,
                change: number,
                at,
                worker,
                failed: ran.failed,
                signature,
                shadow: false,
                control: false,
            });
        }
        self.gates.push(pending);
    }

    fn tick(&mut self, now: u64) {
        let (mut log, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.queue).into_iter().partition(|it| it.at < now + TICK);
        self.queue = later;
        log.sort_by_key(|it| it.at);
        let pieces = self.weigh(&log, now);
        // Re-runs are recorded a little later than they were, after the failures that they repeat.
        let mut touched = self.record(&log, &pieces);
        self.open(&log, &pieces, now);
        let reruns = std::mem::take(&mut self.shadow_log);
        touched.extend(self.record(&reruns, &[]));
        let quarantined =
            self.quarantine.entries(Time(now)).map(|(it, _)| self.numbers[&it.test.label]);
        touched.extend(quarantined.collect::<Vec<_>>());
        self.assess(&touched, now + TICK);
        for step in 0..TICK / STEP {
            self.rerun(now + TICK + step * STEP);
        }
        self.answer(now + 2 * TICK);
    }

    fn weigh(&mut self, log: &[Log], now: u64) -> Vec<Piece> {
        let mut window = Window { from: Time(now), until: Time(now + TICK), ..Window::default() };
        for it in log {
            let load = window.workers.entry(&self.names[it.worker]).or_default();
            let known = self.found.contains_key(&it.test);
            load.add(self.rates[it.test], known);
            if it.failed {
                window.failures.push(Clustered {
                    subject: &self.world.tests[it.test].subject,
                    worker: &self.names[it.worker],
                    signature: it.signature,
                    known,
                });
            }
        }
        self.clusters.weigh(&window)
    }

    fn record(&mut self, log: &[Log], pieces: &[Piece]) -> BTreeSet<usize> {
        let mut pieces = pieces.iter().peekable();
        let mut touched = BTreeSet::new();
        for it in log {
            let piece = pieces.next_if(|_| it.failed).copied().unwrap_or(Piece::Own);
            let change = &self.world.changes[it.change];
            let history = &mut self.histories[it.test];
            if it.failed && !it.shadow {
                let known = history.knows(it.signature);
                if let Some(gate) = self.gates.iter_mut().find(|gate| gate.change == it.change) {
                    gate.failures.insert(it.test, (it.signature, known, it.at));
                }
            }
            if it.control && it.failed {
                history.control_failed(Time(it.at));
                continue;
            }
            let identity = self.world.identity(it.test, it.change);
            self.identities.insert(identity, it.change);
            history.record(&Attempt {
                identity,
                seed: None,
                target: None,
                commit: Some(&change.label),
                at: Time(it.at),
                outcome: if it.failed { Outcome::Failed } else { Outcome::Passed },
                signature: it.signature,
                piece,
            });
            if it.failed || it.shadow {
                touched.insert(it.test);
            }
        }
        touched
    }

    /// Opens a case for each failure of real work.
    fn open(&mut self, log: &[Log], pieces: &[Piece], now: u64) {
        let mut together = Vec::new();
        let mut controls = Vec::new();
        let failures = log.iter().filter(|it| it.failed).zip(pieces);
        for (it, piece) in failures.filter(|(it, _)| !it.shadow) {
            let identity = self.world.identity(it.test, it.change);
            let subject = self.world.tests[it.test].subject.clone();
            let history = &self.histories[it.test];
            if *piece == Piece::Outage {
                together.push((subject.clone(), identity));
                if controls.len() < 3
                    && let Some(good) = history.last_good(identity)
                {
                    controls.push((self.rates[it.test], subject.clone(), good));
                }
            }
            let rate = history.failing(&Mixture::of_tests(), Time(now), 14);
            self.shadows.failed(Fresh {
                subject,
                identity,
                at: Time(it.at),
                rate,
                expected: TOOK,
                worker: Some(self.names[it.worker].clone()),
                good: history.last_good(identity),
                flaky: history.flips().next().is_some(),
            });
        }
        controls.sort_by(|one, other| one.0.total_cmp(&other.0));
        let controls = controls.into_iter().map(|(_, subject, good)| (subject, good)).collect();
        self.shadows.together(now, &together, controls);
    }

    fn assess(&mut self, touched: &BTreeSet<usize>, now: u64) {
        let tests = self.world.tests.len();
        for test in touched {
            let (history, truth) = (&self.histories[*test], &self.world.tests[*test]);
            if history.is_flaky() {
                self.found.entry(*test).or_insert(now / DAY);
            }
            self.rates[*test] = history.rate(&Mixture::of_tests(), Time(now), 14).mean();
            let change = self.quarantine.assess(&truth.subject, history, None, tests, Time(now));
            if change.is_some_and(|it| it.kind == Kind::Entered) {
                self.report.entered += 1;
                self.report.entered_wrongly += u64::from(truth.rate == 0.0);
            }
        }
        let many = self.quarantine.len("", Time(now));
        self.report.most_quarantined = self.report.most_quarantined.max(many);
    }

    fn rerun(&mut self, now: u64) {
        for rerun in self.shadows.next(Time(now), 12) {
            let test = self.numbers[&rerun.subject.test.label];
            let change = self.identities[&rerun.identity];
            let worker = self.elsewhere(rerun.avoid.as_deref());
            let ran =
                self.world.run(test, &self.world.changes[change], Time(now), worker, &mut self.rng);
            let outcome = if ran.failed { Outcome::Failed } else { Outcome::Passed };
            self.shadows.ended(rerun.id, outcome, TOOK, Time(now)).expect("it was running");
            let control = rerun.purpose == Purpose::Control;
            self.report.controls += u64::from(control);
            let (failed, signature) = (ran.failed, ran.signature);
            self.shadow_log.push(Log {
                test,
                change,
                at: now,
                worker,
                failed,
                signature,
                shadow: true,
                control,
            });
        }
    }

    fn elsewhere(&mut self, avoid: Option<&str>) -> usize {
        loop {
            let worker = self.rng.usize(0..self.names.len());
            if avoid != Some(&self.names[worker]) {
                return worker;
            }
        }
    }

    fn finish(&mut self, days: u64) {
        let report = &mut self.report;
        for (number, truth) in self.world.tests.iter().enumerate() {
            let found = self.found.get(&number);
            report.found += u64::from(found.is_some());
            let wrong = found.is_some() && truth.rates == 0.0;
            report.wrong += u64::from(wrong);
            if wrong {
                let flips: Vec<_> = self.histories[number]
                    .flips()
                    .map(|it| (it.at.0 / MINUTE, it.signature))
                    .collect();
                println!("{} is called flaky: {flips:?}, {:?}", truth.subject, truth.bomb);
            }
            if truth.rates / days as f64 > 0.01 {
                report.to_find += 1;
                report.not_found += u64::from(found.is_none());
                report.days_to_find += found.copied().unwrap_or(0);
            }
        }
    }
}
