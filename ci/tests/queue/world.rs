//! A world around a lane that knows everything: which changes are bad, what conflicts with what, when checks fail
//! by chance. It carries out what the lane wants, holds each step against what is true, and measures.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use fastrand::Rng;
use kiln_ci::model::Time;
use kiln_ci::queue::{
    Add, Branch, ChangeId, Commit, Effect, End, Ended, Event, Lane, LeftOut, Member, Options,
    Outcome, Phase, Refusal, RunId,
};

pub const MINUTE: u64 = 60_000;
/// How many times as long a check takes with a large change in it.
pub const LARGE: u64 = 6;

/// The facts of the simulated world, which the queue cannot see.
#[derive(Clone, Debug)]
pub struct Truth {
    pub bad: f64,
    /// The probability that a check of a good tree fails.
    pub flaky: f64,
    /// How long a check takes.
    pub takes: u64,
    /// The probability that a change touches one of five files, of which no two changes merge.
    pub conflicts: f64,
    /// Whether whoever runs checks rules flakes out.
    pub proven: bool,
    /// The share of changes with which a check takes `LARGE` times as long.
    pub large: f64,
    /// Areas of the repository; each change affects one, and a failure names it. 0: nobody knows.
    pub areas: u64,
    pub seed: u64,
}

impl Truth {
    pub fn new(bad: f64, flaky: f64, seed: u64) -> Self {
        let (takes, conflicts, proven, large, areas) = (10 * MINUTE, 0.0, flaky == 0.0, 0.0, 0);
        Self { bad, flaky, takes, conflicts, proven, large, areas, seed }
    }
}

/// The facts of one head, which the queue cannot see.
#[derive(Clone, Debug)]
struct Head {
    bad: bool,
    file: Option<u64>,
    area: String,
    large: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Checked(RunId),
    Proven(RunId, Commit, Option<Commit>),
    Compared(RunId, RunId, bool),
}

pub struct World {
    pub truth: Truth,
    pub lane: Lane,
    pub now: u64,
    pub rng: Rng,
    heads: BTreeMap<Commit, Head>,
    due: BinaryHeap<Reverse<(u64, Due)>>,
    /// The runs under way: of each the base, the members, and the commit that they were built to.
    running: BTreeMap<RunId, (Commit, Vec<Member>, Commit)>,
    /// Trees that have passed, with the heads in them.
    passed: BTreeSet<Commit>,
    pub target: Commit,
    /// Whether each commit of the target fails by itself.
    red: BTreeSet<Commit>,
    /// The files that the landed changes have taken, so that no other change of them merges.
    taken: BTreeSet<u64>,
    pub ended: Vec<Ended>,
    pub runs: u64,
    pub branches: u64,
    /// The next push is refused, or finds the target moved.
    pub refuse: Option<Refusal>,
    /// The probability that a check cannot be run.
    pub unable: f64,
    /// Whether somebody says what the check of a change costs, as soon as it has come.
    pub tells_costs: bool,
}

pub fn commit(of: &str) -> Commit {
    let hash = blake3_hex(of);
    Commit::new(&hash[..40]).expect("hexadecimal digits")
}

fn blake3_hex(of: &str) -> String {
    // Two independent hashes of the standard library are names enough for a test.
    use std::hash::{DefaultHasher, Hash, Hasher};
    let part = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, of).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    (0..3).map(part).collect()
}

pub fn built(base: &Commit, members: &[Member]) -> Commit {
    members.iter().fold(base.clone(), |at, member| commit(&format!("{at} {}", member.head)))
}

impl World {
    pub fn new(truth: Truth, options: Options) -> Self {
        let main = Branch::new("main").expect("a name");
        let target = commit("root");
        let mut world = Self {
            rng: Rng::with_seed(truth.seed),
            truth,
            lane: Lane::new(main, options),
            now: 0,
            heads: BTreeMap::new(),
            due: BinaryHeap::new(),
            running: BTreeMap::new(),
            passed: BTreeSet::from([target.clone()]),
            target: target.clone(),
            red: BTreeSet::new(),
            taken: BTreeSet::new(),
            ended: Vec::new(),
            runs: 0,
            branches: 0,
            refuse: None,
            unable: 0.0,
            tells_costs: false,
        };
        world.tell(Event::Target(target));
        world
    }

    pub fn tell(&mut self, event: Event) {
        if let Ok(effects) = self.lane.apply(event, Time(self.now)) {
            effects.into_iter().for_each(|it| self.carry_out(it));
        }
    }

    fn head(&mut self, name: &str) -> Commit {
        let head = commit(name);
        let area = self.rng.u64(..).checked_rem(self.truth.areas).map(|it| format!("//area:{it}"));
        let bad = self.rng.f64() < self.truth.bad;
        let file = (self.rng.f64() < self.truth.conflicts).then(|| self.rng.u64(..5));
        let large = self.truth.large > 0.0 && self.rng.f64() < self.truth.large;
        self.heads.insert(head.clone(), Head { bad, file, area: area.unwrap_or_default(), large });
        head
    }

    pub fn arrive(&mut self) {
        self.branches += 1;
        let name = format!("change-{}", self.branches);
        let head = self.head(&name);
        let branch = Branch::new(&name).expect("a name");
        let area = self.heads[&head].area.clone();
        let impact = (self.truth.areas > 0).then(|| BTreeSet::from([area]));
        let priority = self.rng.u8(..3);
        self.tell(Event::Add(Add { branch, head: head.clone(), priority, impact }));
        let id = self.lane.changes.values().find(|it| it.head == head).map(|it| it.id);
        if let Some(id) = id.filter(|_| self.tells_costs) {
            let cost = self.takes([&head]);
            self.tell(Event::Cost { id, head, cost });
        }
    }

    /// How long a check of these takes in the mean: as long as the largest of them.
    fn takes<'a>(&self, heads: impl IntoIterator<Item = &'a Commit>) -> u64 {
        let large = heads.into_iter().any(|head| self.heads[head].large);
        self.truth.takes * if large { LARGE } else { 1 }
    }

    /// A change is pushed again.
    pub fn push_again(&mut self, id: ChangeId) {
        let head = self.head(&format!("again-{}-{}", id.0, self.now));
        self.tell(Event::Pushed { id, head });
    }

    /// Somebody moves the target by hand; what was landed stays in it.
    pub fn move_target(&mut self, red: bool) {
        self.target = commit(&format!("hand-{}", self.now));
        if red {
            self.red.insert(self.target.clone());
        }
        self.tell(Event::Target(self.target.clone()));
    }

    /// Crashes: everything that is not kept is gone.
    pub fn crash(&mut self) {
        let kept = serde_json::to_vec(&self.lane).expect("it is kept");
        self.lane = serde_json::from_slice(&kept).expect("it is read back");
        self.due.clear();
        self.running.clear();
        self.tell(Event::Target(self.target.clone()));
        let outstanding: Vec<_> = self.lane.outstanding().into_values().collect();
        outstanding.into_iter().for_each(|it| self.carry_out(it));
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Check { run, base, members } => self.check(run, base, members),
            Effect::Prove { run, base, tested, members } => {
                self.prove(run, base, &tested, &members);
            }
            Effect::Compare { run, with, .. } => {
                let (at, clear) = (self.now + self.rng.u64(..=MINUTE), self.rng.bool());
                self.due.push(Reverse((at, Due::Compared(run, with, clear))));
            }
            Effect::Cancel(run) => drop(self.running.remove(&run)),
            Effect::Land { run, base, commit } => self.land(run, &base, commit),
            Effect::Tell(ended) => self.note(ended),
        }
    }

    fn check(&mut self, run: RunId, base: Commit, members: Vec<Member>) {
        if self.running.contains_key(&run) {
            return;
        }
        self.runs += 1;
        let (mut kept, mut left_out, mut files) = (Vec::new(), Vec::new(), BTreeSet::new());
        for member in members {
            let file = self.heads[&member.head].file;
            let with_base = file.is_some_and(|it| self.taken.contains(&it));
            if with_base || file.is_some_and(|it| !files.insert(it)) {
                left_out.push(LeftOut { id: member.id, with_base });
            } else {
                kept.push(member);
            }
        }
        let commit = built(&base, &kept);
        let spread = self.truth.takes / 10;
        let mean = self.takes(kept.iter().map(|it| &it.head));
        self.running.insert(run, (base, kept, commit.clone()));
        let takes = mean - spread / 2 + self.rng.u64(..=spread);
        self.due.push(Reverse((self.now + takes, Due::Checked(run))));
        self.tell(Event::Built { run, commit, left_out });
    }

    /// Mostly what passed on one base is as it was on another one, if it merges.
    fn prove(&mut self, run: RunId, base: Commit, tested: &Commit, members: &[Member]) {
        assert!(self.passed.contains(tested), "{tested} never passed");
        assert!(!self.red.contains(&base), "{base} fails by itself");
        let taken =
            |it: &Member| self.heads[&it.head].file.is_some_and(|it| self.taken.contains(&it));
        let merges = !members.iter().any(taken);
        let commit = (merges && self.rng.f64() < 0.7).then(|| built(&base, members));
        self.passed.extend(commit.clone());
        let takes = self.rng.u64(..=MINUTE);
        self.due.push(Reverse((self.now + takes, Due::Proven(run, base, commit))));
    }

    /// Lets the next check end, if one does until then.
    pub fn step(&mut self, until: u64) -> bool {
        let next = self.due.peek().map(|Reverse((at, _))| *at).filter(|at| *at <= until);
        let Some(at) = next else {
            self.now = until;
            return false;
        };
        self.now = at;
        let Some(Reverse((_, due))) = self.due.pop() else { return false };
        let run = match due {
            Due::Checked(run) => run,
            Due::Proven(run, base, commit) => {
                self.tell(Event::Proven { run, base, commit });
                return true;
            }
            Due::Compared(run, with, clear) => {
                self.tell(Event::Compared { run, with, clear });
                return true;
            }
        };
        let Some((base, members, commit)) = self.running.remove(&run) else { return true };
        let outcome = self.outcome(&base, &members);
        if outcome == Outcome::Passed {
            self.passed.insert(commit);
        }
        self.tell(Event::Finished { run, outcome });
        true
    }

    fn outcome(&mut self, base: &Commit, members: &[Member]) -> Outcome {
        if self.rng.f64() < self.unable {
            return Outcome::Unable("no machine".to_owned());
        }
        let bad = members.iter().map(|it| &self.heads[&it.head]).filter(|it| it.bad);
        let mut targets: BTreeSet<_> = bad.map(|it| it.area.clone()).collect();
        let red = self.red.contains(base);
        if red {
            targets.insert("//main".to_owned());
        }
        let flaky = self.rng.f64() < self.truth.flaky;
        if targets.is_empty() && !flaky {
            return Outcome::Passed;
        }
        let known = self.truth.areas > 0 && !flaky && !red;
        Outcome::Failed {
            proven: self.truth.proven && !flaky,
            affecting: None,
            targets: if known { targets } else { BTreeSet::new() },
        }
    }

    fn land(&mut self, run: RunId, base: &Commit, commit: Commit) {
        if self.target == commit {
            return self.tell(Event::Landed(run));
        }
        if let Some(why) = self.refuse.take() {
            return self.tell(Event::NotLanded { run, why });
        }
        if self.target != *base {
            self.tell(Event::NotLanded { run, why: Refusal::Moved });
            return self.tell(Event::Target(self.target.clone()));
        }
        assert!(self.passed.contains(&commit), "{commit} was never tested");
        let members = self.lane.runs[&run].members.clone();
        for member in &members {
            assert!(!self.heads[&member.head].bad, "a bad change lands");
            self.taken.extend(self.heads[&member.head].file);
        }
        self.target = commit;
        self.tell(Event::Landed(run));
    }

    fn note(&mut self, ended: Ended) {
        let head = &self.heads[ended.head.as_ref().expect("it was there")];
        match &ended.end {
            End::Failed { .. } => assert!(head.bad, "an innocent change is rejected: {ended:?}"),
            End::Landed(_) => assert!(!head.bad, "a bad change has landed: {ended:?}"),
            End::Conflict(_) => {
                assert!(head.file.is_some_and(|it| self.taken.contains(&it)), "{ended:?}");
            }
            _ => {}
        }
        self.ended.push(ended);
    }

    /// Minutes that landed changes waited, in order.
    pub fn waits(&self, skip: usize) -> Vec<f64> {
        let landed = self.ended.iter().skip(skip).filter(|it| matches!(it.end, End::Landed(_)));
        let mut waits: Vec<f64> =
            landed.map(|it| (it.at.0 - it.added.0) as f64 / MINUTE as f64).collect();
        waits.sort_by(f64::total_cmp);
        waits
    }

    /// The same of the changes that are large, or of those that are not.
    pub fn waits_of(&self, skip: usize, large: bool) -> Vec<f64> {
        let landed = self.ended.iter().skip(skip).filter(|it| matches!(it.end, End::Landed(_)));
        let of = |it: &&Ended| it.head.as_ref().is_some_and(|it| self.heads[it].large == large);
        let wait = |it: &Ended| (it.at.0 - it.added.0) as f64 / MINUTE as f64;
        let mut waits: Vec<f64> = landed.filter(of).map(wait).collect();
        waits.sort_by(f64::total_cmp);
        waits
    }

    pub fn idle(&self) -> bool {
        let goes_on = |it: &kiln_ci::queue::Run| {
            matches!(it.phase, Phase::Checking | Phase::Proving | Phase::Comparing)
        };
        !self.lane.runs.values().any(goes_on)
    }
}
