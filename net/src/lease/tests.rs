//! A lease has one holder at a time, whatever is lost or late; tests of that, and of what it costs in calls.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::advance;

use super::{Claim, DRIFT, Lease, Next, Slot, Standing, Turn};

const TERM: Duration = Duration::from_millis(1_600);

/// The record that all share.
#[derive(Clone, Debug, Default)]
struct Record {
    version: u64,
    value: Option<Vec<u8>>,
}

impl Record {
    fn read(&self) -> Option<(u64, Vec<u8>)> {
        self.value.clone().map(|value| (self.version, value))
    }

    fn swap(&mut self, expected: Option<u64>, value: Vec<u8>) -> Option<u64> {
        if self.value.as_ref().map(|_| self.version) != expected {
            return None;
        }
        self.version += 1;
        self.value = Some(value);
        Some(self.version)
    }
}

/// A call that is under way, and what came of it once it has arrived.
#[derive(Debug)]
enum Call {
    Read(Option<Option<(u64, Vec<u8>)>>),
    Claim { claim: Claim, sent: Duration, came: Option<Option<u64>> },
    GiveUp { claim: Claim, came: Option<Option<u64>> },
}

impl Call {
    fn arrive(&mut self, record: &mut Record) {
        match self {
            Self::Read(came) => *came = came.take().or_else(|| Some(record.read())),
            Self::Claim { claim, came, .. } | Self::GiveUp { claim, came } => {
                if came.is_none() {
                    *came = Some(record.swap(claim.expected, claim.value.clone()));
                }
            }
        }
    }
}

struct Process {
    lease: Lease,
    name: usize,
    /// How far the process's clock goes in a second, in milliseconds.
    rate: u64,
    call: Option<Call>,
}

impl Process {
    fn new(name: usize, rate: u64) -> Self {
        Self { lease: Lease::new(format!("p{name}"), TERM), name, rate, call: None }
    }

    fn clock(&self, now: u64) -> Duration {
        Duration::from_micros(now * self.rate)
    }

    fn ask(&mut self, now: u64) {
        let now = self.clock(now);
        if self.call.is_some() {
            return;
        }
        self.call = match self.lease.next(now) {
            Next::Held(_) | Next::Elsewhere(_) => None,
            Next::Read => Some(Call::Read(None)),
            Next::Write(claim) => Some(Call::Claim { claim, sent: now, came: None }),
        };
    }

    fn give_up(&mut self) {
        if self.call.is_none() {
            let claim = self.lease.give_up();
            self.call = claim.map(|claim| Call::GiveUp { claim, came: None });
        }
    }

    /// Hears what came of its call, if that has arrived.
    fn hear(&mut self, now: u64) {
        let now = self.clock(now);
        match self.call.take() {
            Some(Call::Read(Some(found))) => {
                let found = found.as_ref().map(|(version, value)| (*version, value.as_slice()));
                self.lease.saw(found, now);
            }
            Some(Call::Claim { claim, sent, came: Some(came) }) => match came {
                Some(version) => self.lease.written(&claim, version, sent),
                None => self.lease.lost(),
            },
            Some(Call::GiveUp { claim, came: Some(Some(version)) }) => {
                self.lease.given_up(&claim, version);
            }
            Some(Call::GiveUp { came: Some(None), .. }) | None => {}
            waiting => self.call = waiting,
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    Ask(usize),
    Arrive(usize),
    Hear(usize),
    /// The process asks, its call arrives and it hears the answer, all at once.
    Call(usize),
    /// The process hears no answer to its call, which may arrive later.
    Lose(usize),
    /// A lost call, whose process no longer waits for it, arrives.
    Stray(usize),
    GiveUp(usize),
    /// The process is killed, and another one comes in its place.
    Restart(usize),
    /// Somebody writes a record that nobody can read.
    Damage,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let who = || 0..3_usize;
    let act = prop_oneof![
        4 => (0..1_200_u64).prop_map(Act::Wait),
        3 => who().prop_map(Act::Ask),
        3 => who().prop_map(Act::Arrive),
        3 => who().prop_map(Act::Hear),
        6 => who().prop_map(Act::Call),
        1 => who().prop_map(Act::Lose),
        1 => (0..8_usize).prop_map(Act::Stray),
        1 => who().prop_map(Act::GiveUp),
        1 => who().prop_map(Act::Restart),
    ];
    proptest::collection::vec(act, 1..200)
}

/// Rates of clocks within the bound.
fn rates() -> impl Strategy<Value = [u64; 3]> {
    let most = 1_000 / u64::from(DRIFT);
    proptest::array::uniform3(1_000 - most..=1_000 + most)
}

struct World {
    now: u64,
    record: Record,
    processes: Vec<Process>,
    strays: Vec<Call>,
    names: usize,
    /// The process that had the lease last, and under which epoch.
    last: Option<(usize, u64)>,
    /// How often the lease came to another process.
    taken: usize,
}

impl World {
    fn new(rates: [u64; 3]) -> Self {
        let processes = rates.into_iter().enumerate().map(|(name, rate)| Process::new(name, rate));
        let (record, processes) = (Record::default(), processes.collect());
        Self { now: 0, record, processes, strays: Vec::new(), names: 3, last: None, taken: 0 }
    }

    fn act(&mut self, act: &Act) {
        let now = self.now;
        match *act {
            Act::Wait(millis) => self.now += millis,
            Act::Ask(who) => self.processes[who].ask(now),
            Act::Arrive(who) => {
                if let Some(call) = &mut self.processes[who].call {
                    call.arrive(&mut self.record);
                }
            }
            Act::Hear(who) => self.processes[who].hear(now),
            Act::Call(who) => {
                self.processes[who].ask(now);
                self.act(&Act::Arrive(who));
                self.processes[who].hear(now);
            }
            Act::Lose(who) => self.strays.extend(self.processes[who].call.take()),
            Act::Stray(which) if which < self.strays.len() => {
                self.strays.swap_remove(which).arrive(&mut self.record);
            }
            Act::Stray(_) => {}
            Act::GiveUp(who) => self.processes[who].give_up(),
            Act::Restart(who) => {
                let rate = self.processes[who].rate;
                let gone =
                    std::mem::replace(&mut self.processes[who], Process::new(self.names, rate));
                self.names += 1;
                self.strays.extend(gone.call);
            }
            Act::Damage => {
                let version = self.record.value.as_ref().map(|_| self.record.version);
                self.record.swap(version, b"damaged".to_vec());
            }
        }
    }

    /// Processes that have the lease, each with its epoch.
    fn holders(&self) -> Vec<(usize, u64)> {
        let holds = |it: &Process| Some((it.name, it.lease.holds(it.clock(self.now))?));
        self.processes.iter().filter_map(holds).collect()
    }

    fn check(&mut self) {
        let holders = self.holders();
        assert!(holders.len() <= 1, "{holders:?} at once");
        let Some(&(name, epoch)) = holders.first() else { return };
        if let Some((last, before)) = self.last {
            let grows = if last == name { epoch >= before } else { epoch > before };
            assert!(grows, "{name} has it under {epoch}, {last} had it under {before}");
            self.taken += usize::from(last != name);
        }
        self.last = Some((name, epoch));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn two_never_have_it_at_once_and_epochs_grow(rates in rates(), acts in acts()) {
        let mut world = World::new(rates);
        for act in &acts {
            world.act(act);
            world.check();
        }
        // Whatever happened, somebody who asks has it in the end.
        world.processes[0].call = None;
        for _ in 0..40 {
            world.act(&Act::Call(0));
            world.act(&Act::Wait(200));
            world.check();
        }
        let own = world.processes[0].name;
        prop_assert!(world.holders().iter().any(|it| it.0 == own), "{:?}", world.processes[0].lease);
    }
}

/// What the world does with clocks of these rates when the first one falls silent.
fn overlaps(rates: [u64; 3]) -> bool {
    let mut world = World::new(rates);
    world.act(&Act::Call(0));
    world.act(&Act::Call(0));
    for _ in 0..400 {
        world.act(&Act::Call(1));
        if world.holders().len() > 1 {
            return true;
        }
        world.act(&Act::Wait(10));
    }
    assert_eq!(world.holders().first().map(|it| it.0), Some(1), "it takes over");
    false
}

#[test]
fn clocks_beyond_the_bound_would_be_seen_to_fail() {
    assert!(!overlaps([1_000; 3]));
    assert!(!overlaps([938, 1_062, 1_000]));
    assert!(overlaps([800, 1_200, 1_000]));
}

#[test]
fn what_cannot_be_read_holds_up_nobody_and_epochs_go_on_behind_it() {
    let mut world = World::new([1_000; 3]);
    world.act(&Act::Call(0));
    world.act(&Act::Call(0));
    world.check();
    let before = world.last;
    world.act(&Act::Damage);
    world.act(&Act::Wait(2_000));
    world.act(&Act::Call(1));
    world.act(&Act::Call(1));
    world.check();
    assert!(before.is_some() && world.taken == 1, "{before:?} {:?}", world.last);
}

/// A record in memory that counts.
#[derive(Clone, Default)]
struct Counted(Arc<(Mutex<Record>, AtomicUsize, AtomicUsize)>);

impl Counted {
    /// Reads and writes since this was asked last.
    fn calls(&self) -> (usize, usize) {
        (self.0.1.swap(0, Ordering::Relaxed), self.0.2.swap(0, Ordering::Relaxed))
    }

    fn turn(&self, name: &str) -> Turn<Self> {
        Turn::new(self.clone(), name.to_owned(), TERM)
    }
}

impl Slot for Counted {
    type Error = Infallible;

    async fn read(&self) -> Result<Option<(u64, Vec<u8>)>, Infallible> {
        self.0.1.fetch_add(1, Ordering::Relaxed);
        Ok(self.0.0.lock().unwrap().read())
    }

    async fn swap(&self, expected: Option<u64>, value: Vec<u8>) -> Result<Option<u64>, Infallible> {
        self.0.2.fetch_add(1, Ordering::Relaxed);
        Ok(self.0.0.lock().unwrap().swap(expected, value))
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_one_write_and_what_is_known_costs_nothing() {
    let record = Counted::default();
    let (one, two) = (record.turn("one"), record.turn("two"));
    assert_eq!(one.take().await, Ok(Standing::Held(1)));
    assert_eq!(record.calls(), (1, 1));
    for _ in 0..5 {
        assert_eq!(one.is_mine().await, Ok(true));
    }
    assert_eq!(record.calls(), (0, 0), "more than half of it is left");
    for _ in 0..3 {
        advance(TERM / 2).await;
        assert_eq!(one.take().await, Ok(Standing::Held(1)));
        assert_eq!(record.calls(), (0, 1));
    }
    // The loser reads once, and not before it makes sense.
    assert_eq!(two.take().await, Ok(Standing::Elsewhere(TERM / 2)));
    assert_eq!(two.take().await, Ok(Standing::Elsewhere(TERM / 2)));
    assert_eq!(record.calls(), (1, 0));
    one.give_up().await.unwrap();
    one.give_up().await.unwrap();
    assert_eq!(record.calls(), (0, 1));
    advance(TERM / 2).await;
    assert_eq!(two.take().await, Ok(Standing::Held(2)));
    assert_eq!(record.calls(), (1, 1));
    // The process that gave the lease up tries to take it without a look at the record, and looks only
    // because another one was faster.
    assert_eq!(one.take().await, Ok(Standing::Elsewhere(TERM / 2)));
    assert_eq!(record.calls(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn silence_alone_passes_it_on() {
    let record = Counted::default();
    let (one, two) = (record.turn("one"), record.turn("two"));
    assert_eq!(one.is_mine().await, Ok(true));
    let mut waited = Duration::ZERO;
    while let Standing::Elsewhere(pause) = two.take().await.unwrap() {
        assert!(!pause.is_zero());
        advance(pause).await;
        waited += pause;
    }
    assert_eq!(waited, TERM + TERM / DRIFT);
    assert_eq!(one.is_mine().await, Ok(false), "it was away for too long");
    assert_eq!(one.fence().await, Ok(None));
    let fence = two.fence().await.unwrap().unwrap();
    assert_eq!(
        record.swap(Some(fence.version), fence.resignation).await.map(|it| it.is_some()),
        Ok(true)
    );
    two.forget().await;
    advance(TERM / 2).await;
    assert_eq!(one.is_mine().await, Ok(true), "it was given up together with something else");
}
