//! A suite of which the truth is known: which tests are flaky, how often, why, and what is broken when.

use fastrand::Rng;
use kiln_ci::flakes::{Identity, Mixture, Run, Signature};
use kiln_ci::model::{Subject, TestKey, Time};

pub const MINUTE: u64 = 60_000;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;

#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub tests: usize,
    pub changes_a_day: usize,
    pub days: u64,
    pub workers: usize,
    /// The share of changes that break tests, and how many these break on average.
    pub breaking: f64,
    pub broken: f64,
}

pub struct Truth {
    pub subject: Subject,
    /// The rate at which the test fails by chance now; 0 for one that never does.
    pub rate: f64,
    /// The sum of the test's rates over all days, for their mean.
    pub rates: f64,
    drifts: bool,
    /// The group of tests that fail when a common cause strikes, if this test is in one.
    pub group: Option<usize>,
    signatures: Vec<Signature>,
    /// From when until when something that is no input breaks the test, if anything does.
    pub bomb: Option<(u64, u64)>,
}

/// A common cause strikes in a slot of time with this rate; members fail then in proportion to theirs.
struct Group {
    rate: f64,
    signature: Signature,
}

pub struct Outage {
    from: u64,
    until: u64,
    /// The sick worker, or `None` if a service is out that some tests need.
    worker: Option<usize>,
    share: f64,
    seed: u64,
    signature: Option<Signature>,
}

pub struct Change {
    pub number: usize,
    pub at: u64,
    /// Numbers of tests that the change breaks, sorted.
    pub broken: Vec<usize>,
    pub edited: Vec<usize>,
    pub affected: f64,
    pub label: String,
}

pub struct World {
    pub tests: Vec<Truth>,
    pub changes: Vec<Change>,
    groups: Vec<Group>,
    outages: Vec<Outage>,
    pub size: Size,
    seed: u64,
}

pub struct Ran {
    pub failed: bool,
    pub signature: Option<Signature>,
}

fn signature(text: &str) -> Signature {
    Signature::of(text).expect("it has text")
}

/// Letters alone: numbers do not count in signatures.
fn word(number: usize) -> String {
    number.to_string().bytes().map(|it| char::from(it - b'0' + b'a')).collect()
}

fn normal(rng: &mut Rng) -> f64 {
    let (one, two) = (rng.f64().max(f64::MIN_POSITIVE), rng.f64());
    (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * two).cos()
}

/// Marsaglia and Tsang's method.
fn gamma(rng: &mut Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        return gamma(rng, shape + 1.0) * rng.f64().powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && rng.f64().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

fn published(rng: &mut Rng) -> f64 {
    let mixture = Mixture::published();
    let mut at = rng.f64();
    let part = mixture.parts().iter().find(|part| {
        at -= part.weight;
        at < 0.0
    });
    let part = part.unwrap_or(&mixture.parts()[0]);
    let (one, two) = (gamma(rng, part.failures), gamma(rng, part.passes));
    one / (one + two)
}

fn distinct(rng: &mut Rng, count: usize, of: usize) -> Vec<usize> {
    let mut all: Vec<_> = (0..count).map(|_| rng.usize(0..of)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

impl World {
    pub fn new(size: Size, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut tests: Vec<_> =
            (0..size.tests).map(|number| Truth::new(number, &mut rng)).collect();
        let groups = grouped(&mut tests, &mut rng);
        let changes = changes(size, &mut rng);
        for test in &mut tests {
            // Now and then something that is no input breaks a test for some hours.
            if rng.f64() < 0.005 {
                let from = rng.u64(DAY..size.days * DAY);
                test.bomb = Some((from, from + rng.u64(HOUR..12 * HOUR)));
            }
        }
        let outages = outages(size, &mut rng);
        Self { tests, changes, groups, outages, size, seed }
    }

    pub fn identity(&self, test: usize, change: usize) -> Identity {
        let argv = [test.to_string(), change.to_string()];
        Identity::of(&Run {
            argv: &argv,
            environment: &[],
            working_directory: "",
            input_root: "",
            platform: &[],
        })
    }

    pub fn is_broken(&self, test: usize, change: Option<&Change>, at: u64) -> bool {
        let bomb = self.tests[test].bomb.is_some_and(|(from, until)| (from..until).contains(&at));
        bomb || change.is_some_and(|it| it.broken.binary_search(&test).is_ok())
    }

    /// What a run of a test does, with the inputs of a change, at a time and on a worker.
    pub fn run(&self, test: usize, change: &Change, at: Time, worker: usize, rng: &mut Rng) -> Ran {
        let truth = &self.tests[test];
        if self.is_broken(test, Some(change), at.0) {
            let text = format!("broken by {}", word(change.number));
            return Ran { failed: true, signature: Some(signature(&text)) };
        }
        if let Some(outage) = self.outages.iter().find(|it| it.hits(test, at.0, worker, rng)) {
            return Ran { failed: true, signature: outage.signature };
        }
        let failed = match truth.group {
            Some(group) => {
                self.strikes(group, at.0) && rng.f64() < truth.rate / self.groups[group].rate
            }
            None => truth.rate > 0.0 && rng.f64() < truth.rate,
        };
        let signature = match truth.group {
            Some(group) => Some(self.groups[group].signature),
            // The first is usual, others are rare.
            None => {
                truth.signatures.get(if rng.f64() < 0.8 { 0 } else { rng.usize(0..3) }).copied()
            }
        };
        Ran { failed, signature: signature.filter(|_| failed) }
    }

    /// Causes come in slots of two minutes.
    fn strikes(&self, group: usize, at: u64) -> bool {
        let slot = at / (2 * MINUTE);
        let seed = self.seed ^ slot.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (group as u64) << 48;
        Rng::with_seed(seed).f64() < self.groups[group].rate
    }

    /// Rates drift from day to day.
    pub fn new_day(&mut self, rng: &mut Rng) {
        for test in self.tests.iter_mut().filter(|it| it.rate > 0.0) {
            if test.drifts {
                let odds = test.rate / (1.0 - test.rate) * (normal(rng) * 0.2).exp();
                test.rate = (odds / (1.0 + odds)).clamp(1e-5, 0.95);
            }
            if let Some(group) = test.group {
                test.rate = test.rate.min(self.groups[group].rate);
            }
            test.rates += test.rate;
        }
    }
}

impl Truth {
    fn new(number: usize, rng: &mut Rng) -> Self {
        let label = format!("//pkg{}:t{number}", number / 20);
        let test = TestKey { instance: String::new(), label, configuration: String::new() };
        let flaky = rng.f64() < 811.0 / 22_245.0;
        let one = |at: usize| signature(&format!("{} {}", word(number), word(at)));
        Self {
            subject: Subject { test, case: None },
            rate: if flaky { published(rng) } else { 0.0 },
            rates: 0.0,
            drifts: rng.f64() < 0.3,
            group: None,
            signatures: (0..3).map(one).collect(),
            bomb: None,
        }
    }
}

/// Three quarters of the flaky tests fail in groups of 13.5 on average, of similar rates.
fn grouped(tests: &mut [Truth], rng: &mut Rng) -> Vec<Group> {
    let mut flaky: Vec<_> = (0..tests.len()).filter(|it| tests[*it].rate > 0.0).collect();
    flaky.retain(|_| rng.f64() < 0.75);
    flaky.sort_by(|one, other| tests[*one].rate.total_cmp(&tests[*other].rate));
    let mut groups = Vec::new();
    let mut rest = flaky.as_slice();
    while !rest.is_empty() {
        let (members, others) = rest.split_at(rng.usize(2..26).min(rest.len()));
        let most = members.iter().map(|it| tests[*it].rate).fold(0.0, f64::max);
        members.iter().for_each(|it| tests[*it].group = Some(groups.len()));
        let signature = signature(&format!("common {}", word(groups.len())));
        groups.push(Group { rate: (most * 1.5).min(0.95), signature });
        rest = others;
    }
    groups
}

fn changes(size: Size, rng: &mut Rng) -> Vec<Change> {
    let count = size.changes_a_day * size.days as usize;
    // People work ten hours a day.
    let time = |rng: &mut Rng| rng.u64(0..size.days) * DAY + rng.u64(8 * HOUR..18 * HOUR);
    let mut times: Vec<_> = (0..count).map(|_| time(rng)).collect();
    times.sort_unstable();
    let change = |(number, at)| {
        let breaks = rng.f64() < size.breaking;
        let many = (-rng.f64().max(1e-9).ln() * size.broken).ceil() as usize;
        Change {
            number,
            at,
            broken: if breaks { distinct(rng, many, size.tests) } else { Vec::new() },
            edited: distinct(rng, 3, size.tests),
            affected: 0.2 + 0.6 * rng.f64(),
            label: format!("change-{number}"),
        }
    };
    times.into_iter().enumerate().map(change).collect()
}

/// Outages, one every day on average: half of them a sick worker, half a service that some of the tests need.
fn outages(size: Size, rng: &mut Rng) -> Vec<Outage> {
    let outage = |number: u64| {
        let from = rng.u64(0..size.days) * DAY + rng.u64(8 * HOUR..18 * HOUR);
        let sick = rng.bool();
        Outage {
            from,
            until: from + if sick { rng.u64(10..120) } else { rng.u64(5..45) } * MINUTE,
            worker: sick.then(|| rng.usize(0..size.workers)),
            share: if sick { 0.3 + 0.6 * rng.f64() } else { 0.05 + 0.95 * rng.f64().powi(2) },
            seed: rng.u64(..),
            signature: rng.bool().then(|| signature(&format!("out {}", word(number as usize)))),
        }
    };
    (0..size.days).map(outage).collect()
}

impl Outage {
    fn hits(&self, test: usize, at: u64, worker: usize, rng: &mut Rng) -> bool {
        if !(self.from..self.until).contains(&at) {
            return false;
        }
        match self.worker {
            Some(sick) => sick == worker && rng.f64() < self.share,
            // A test that needs the service needs it in every run.
            None => Rng::with_seed(self.seed ^ test as u64).f64() < self.share,
        }
    }
}
