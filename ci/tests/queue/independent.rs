//! Changes that land independently, in a world where what they break, alone or two together, is a target.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use fastrand::Rng;
use kiln_ci::model::Time;
use kiln_ci::queue::{
    Add, Branch, Commit, Effect, End, Ended, Event, Lane, Member, Options, Outcome, RunId,
};

use crate::world::{MINUTE, built, commit};

/// How long it takes to compare two trees.
const COMPARES: u64 = 1_000;

struct Change {
    targets: BTreeSet<u64>,
    /// How long the checks of a tree with this change take, in milliseconds.
    takes: u64,
    bad: bool,
}

/// Changes that are in a tree.
type Tree = BTreeSet<usize>;

/// A target as it is in a tree: with the changes that touch it. It passes or fails by that alone.
type TargetState = (u64, Vec<usize>);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Checked(RunId, Commit),
    Proven(RunId, Commit, Option<Commit>),
    Compared(RunId, RunId, bool),
}

struct World {
    lane: Lane,
    now: u64,
    changes: Vec<Change>,
    heads: BTreeMap<Commit, usize>,
    trees: BTreeMap<Commit, Tree>,
    due: BinaryHeap<Reverse<(u64, Due)>>,
    /// The checks that run and that the queue has not given up.
    running: BTreeSet<RunId>,
    target: Commit,
    passed: BTreeSet<TargetState>,
    /// Trees that were checked as a whole.
    tested: BTreeSet<Commit>,
    /// How rare pairs are that touch the same target and break it: one in so many; 0: none does.
    clashes: u64,
    checks: usize,
    /// Trees that landed and were never checked as a whole.
    proven: usize,
    ended: Vec<Ended>,
}

impl World {
    fn new(workers: usize, clashes: u64) -> Self {
        let main = Branch::new("main").expect("a name");
        let options = Options { workers, exact: true, independent: true, ..Options::default() };
        let target = commit("root");
        let mut world = Self {
            lane: Lane::new(main, options),
            now: 0,
            changes: Vec::new(),
            heads: BTreeMap::new(),
            trees: BTreeMap::from([(target.clone(), Tree::new())]),
            due: BinaryHeap::new(),
            running: BTreeSet::new(),
            target: target.clone(),
            passed: BTreeSet::new(),
            tested: BTreeSet::from([target.clone()]),
            clashes,
            checks: 0,
            proven: 0,
            ended: Vec::new(),
        };
        world.tell(Event::Target(target));
        // Whether the first target is green is not known before the first change has landed.
        world.arrive(&[], MINUTE, false);
        world.run_until(2 * MINUTE);
        assert_eq!(world.ended.len(), 1);
        world.checks = 0;
        world
    }

    fn tell(&mut self, event: Event) {
        let effects = self.lane.apply(event, Time(self.now)).expect("it is taken");
        effects.into_iter().for_each(|it| self.carry_out(it));
    }

    fn arrive(&mut self, targets: &[u64], takes: u64, bad: bool) -> usize {
        let number = self.changes.len();
        self.changes.push(Change { targets: targets.iter().copied().collect(), takes, bad });
        let name = format!("change-{number}");
        let (branch, head) = (Branch::new(&name).expect("a name"), commit(&name));
        self.heads.insert(head.clone(), number);
        self.tell(Event::Add(Add { branch, head, priority: 5, impact: None }));
        number
    }

    fn run_until(&mut self, until: u64) {
        while self.due.peek().is_some_and(|Reverse((at, _))| *at <= until) {
            let Some(Reverse((at, due))) = self.due.pop() else { return };
            self.now = at;
            match due {
                Due::Checked(run, commit) => self.checked(run, commit),
                Due::Proven(run, base, commit) => self.tell(Event::Proven { run, base, commit }),
                Due::Compared(run, with, clear) => {
                    self.tell(Event::Compared { run, with, clear });
                }
            }
        }
        self.now = until;
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Check { run, base, members } => self.check(run, &base, &members),
            Effect::Prove { run, base, tested, members } => {
                self.prove(run, base, &tested, &members);
            }
            Effect::Compare { run, with, base, other, members } => {
                let clear = self.equal(&base, &other, &members).is_some();
                self.due.push(Reverse((self.now + COMPARES, Due::Compared(run, with, clear))));
            }
            Effect::Cancel(run) => drop(self.running.remove(&run)),
            Effect::Land { run, base, commit } => self.land(run, &base, commit),
            Effect::Tell(ended) => self.note(ended),
        }
    }

    /// Puts changes together on top of a base.
    fn build(&mut self, base: &Commit, members: &[Member]) -> Commit {
        let commit = built(base, members);
        let mut tree = self.trees[base].clone();
        tree.extend(members.iter().map(|it| self.heads[&it.head]));
        self.trees.insert(commit.clone(), tree);
        commit
    }

    fn check(&mut self, run: RunId, base: &Commit, members: &[Member]) {
        self.checks += 1;
        self.running.insert(run);
        let commit = self.build(base, members);
        let takes = members.iter().map(|it| self.changes[self.heads[&it.head]].takes);
        let ends = self.now + takes.max().unwrap_or(MINUTE);
        self.due.push(Reverse((ends, Due::Checked(run, commit.clone()))));
        self.tell(Event::Built { run, commit, left_out: Vec::new() });
    }

    fn checked(&mut self, run: RunId, commit: Commit) {
        if !self.running.remove(&run) {
            return;
        }
        let states = self.states(&self.trees[&commit]);
        let broken = states.iter().filter(|it| !self.passes(it));
        let targets: BTreeSet<_> = broken.map(|(target, _)| target.to_string()).collect();
        let outcome = match targets.is_empty() {
            true => {
                self.passed.extend(states);
                self.tested.insert(commit);
                Outcome::Passed
            }
            false => Outcome::Failed { targets, proven: true, affecting: None },
        };
        self.tell(Event::Finished { run, outcome });
    }

    fn states(&self, tree: &Tree) -> BTreeSet<TargetState> {
        let mut states: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for change in tree {
            for target in &self.changes[*change].targets {
                states.entry(*target).or_default().push(*change);
            }
        }
        states.into_iter().collect()
    }

    fn passes(&self, (_, changes): &TargetState) -> bool {
        let broken = |one: &usize| {
            let mut later = changes.iter().filter(|other| *other > one);
            self.changes[*one].bad || later.any(|other| self.clash(*one, *other))
        };
        !changes.iter().any(broken)
    }

    fn clash(&self, one: usize, other: usize) -> bool {
        let seed = (one * 10_007 + other) as u64;
        Rng::with_seed(seed).u64(..).checked_rem(self.clashes) == Some(0)
    }

    fn prove(&mut self, run: RunId, base: Commit, tested: &Commit, members: &[Member]) {
        let proven = self.equal(&base, tested, members);
        self.due.push(Reverse((self.now + COMPARES, Due::Proven(run, base, proven))));
    }

    /// The commit of these members on `base`, where a comparison of hashes says that all in it has passed; `None`: it
    /// says no.
    fn equal(&mut self, base: &Commit, other: &Commit, members: &[Member]) -> Option<Commit> {
        let commit = self.build(base, members);
        let [before, passed, after] = [base, other, &commit].map(|it| self.states(&self.trees[it]));
        let is_equal = after.iter().all(|it| before.contains(it) || passed.contains(it));
        is_equal.then_some(commit)
    }

    /// Nothing lands but what passed, target by target, so that the target is always green.
    fn land(&mut self, run: RunId, base: &Commit, commit: Commit) {
        assert_eq!(self.target, *base, "it was for another target");
        for state in self.states(&self.trees[&commit]) {
            assert!(self.passed.contains(&state), "{state:?} was never tested");
            assert!(self.passes(&state), "{state:?} fails on the target");
        }
        self.proven += usize::from(!self.tested.contains(&commit));
        self.target = commit;
        self.tell(Event::Landed(run));
    }

    fn note(&mut self, ended: Ended) {
        let number = self.heads[ended.head.as_ref().expect("it was there")];
        if matches!(ended.end, End::Failed { .. }) {
            let own = &self.changes[number];
            let shares = |other: &usize| !self.changes[*other].targets.is_disjoint(&own.targets);
            let clashes = |other: usize| self.clash(number.min(other), number.max(other));
            let mut others = (0..self.changes.len()).filter(|it| *it != number).filter(shares);
            let breaks = own.bad || others.any(clashes);
            assert!(breaks, "an innocent change is rejected: {ended:?}");
        }
        self.ended.push(ended);
    }

    /// How long a change waited until it landed.
    fn waited(&self, number: usize) -> u64 {
        let head = commit(&format!("change-{number}"));
        let of = |it: &&Ended| it.head.as_ref() == Some(&head);
        let ended = self.ended.iter().find(of).expect("it has left");
        assert!(matches!(ended.end, End::Landed(_)), "{ended:?}");
        ended.at.0 - ended.added.0
    }
}

#[test]
fn no_untested_combination_lands_and_the_target_is_always_green() {
    let (mut landed, mut proven) = (0, 0);
    for seed in 0..30 {
        let mut rng = Rng::with_seed(seed);
        let mut world = World::new(rng.usize(1..12), 12);
        for _ in 0..100 {
            let targets: Vec<u64> = (0..rng.usize(1..3)).map(|_| rng.u64(..12)).collect();
            let takes = MINUTE * if rng.f64() < 0.1 { 60 } else { rng.u64(5..15) };
            let bad = rng.f64() < 0.05;
            world.arrive(&targets, takes, bad);
            world.run_until(world.now + rng.u64(..6 * MINUTE));
        }
        // No more changes come. The queue decides all that wait, and nothing may be left behind.
        for _ in 0..10_000 {
            if world.lane.changes.is_empty() {
                break;
            }
            world.run_until(world.now + MINUTE);
            world.tell(Event::Tick);
        }
        assert!(world.lane.changes.is_empty(), "{seed}: {:#?}", world.lane);
        assert_eq!(world.ended.len(), world.changes.len(), "each ends once");
        landed += world.ended.iter().filter(|it| matches!(it.end, End::Landed(_))).count();
        proven += world.proven;
    }
    println!(
        "{landed} changes landed; {proven} landings were of a tree that was not tested as a whole"
    );
    assert!(landed > 1_000, "{landed}");
    assert!(proven > 100, "{proven}");
}

#[test]
fn disjoint_changes_wait_for_no_other_and_a_large_one_holds_no_small_ones() {
    let mut world = World::new(32, 0);
    let large = world.arrive(&[0], 60 * MINUTE, false);
    let mut small = Vec::new();
    for number in 1..100 {
        small.push(world.arrive(&[number], 10 * MINUTE, false));
        world.run_until(world.now + MINUTE);
    }
    world.run_until(world.now + 60 * MINUTE);
    for number in small {
        assert!(world.waited(number) <= 11 * MINUTE, "{number}: {}", world.waited(number));
    }
    assert!(world.waited(large) <= 61 * MINUTE, "{}", world.waited(large));
    assert_eq!(world.checks, 100, "each is tested once");
}

#[test]
fn what_was_overtaken_is_not_overtaken_again() {
    let mut world = World::new(32, 0);
    let large = world.arrive(&[0, 1], 60 * MINUTE, false);
    let mut disjoint = Vec::new();
    for number in 2..202 {
        world.arrive(&[1], 10 * MINUTE, false);
        disjoint.push(world.arrive(&[number], 10 * MINUTE, false));
        world.run_until(world.now + MINUTE);
    }
    world.run_until(world.now + 20 * MINUTE);
    // The large change waits for its own check, for the batch of others that were overtaken before it, and
    // for its second check.
    assert!(world.waited(large) <= 133 * MINUTE, "{}", world.waited(large));
    for number in disjoint {
        assert!(world.waited(number) <= 11 * MINUTE, "{number}: {}", world.waited(number));
    }
}
