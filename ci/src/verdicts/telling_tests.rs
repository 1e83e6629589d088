//! Changes of the quarantine are told by one server at a time, whoever falls silent.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::time::{advance, sleep, timeout};

use super::super::ledger::{self, Ledger, Note};
use super::super::samples::attempt;
use super::*;
use crate::model::{Outcome, Subject, Time};
use crate::quarantine::{Actor, Kind, Policy};
use crate::storage::memory::Memory;
use crate::storage::{StorageError, Write};

/// Shorter than what somebody outside may take.
const SHORT: Duration = Duration::from_secs(10);

/// Notes nothing.
struct Unnoted;

#[async_trait]
impl Ledger for Unnoted {
    async fn write(&self, _notes: Vec<Note>, _writes: Vec<Write>) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Somebody outside, who says the same to whatever he is told. `None`: he never answers, and records fall silent with him.
struct Outside {
    memory: Memory,
    says: Option<Result<(), String>>,
    told: AtomicUsize,
}

impl Outside {
    fn new(memory: &Memory, says: Option<Result<(), String>>) -> Self {
        Self { memory: memory.clone(), says, told: AtomicUsize::new(0) }
    }

    fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Teller for Outside {
    async fn tell(&self, _change: &Change) -> Result<(), String> {
        self.told.fetch_add(1, Ordering::Relaxed);
        match &self.says {
            Some(said) => said.clone(),
            None => {
                self.memory.fall_silent();
                pending().await
            }
        }
    }
}

/// Somebody outside whom it takes two steps to tell something, with a pause between them.
#[derive(Default)]
struct Slow {
    went_on: AtomicUsize,
}

#[async_trait]
impl Teller for Slow {
    async fn tell(&self, _change: &Change) -> Result<(), String> {
        sleep(SHORT).await;
        self.went_on.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn telling(memory: &Memory, name: &str) -> Telling {
    let records: Arc<dyn Records> = Arc::new(memory.clone());
    let book = Book::new(records.clone(), Arc::new(Unnoted), Policy::default(), true);
    let turn = LeaseRecord::new(records.clone(), keys::TELLING).turn(name, SHORT);
    Telling { records, teller: None, turn, book, tries: 0, due: Instant::now() }
}

/// Writes a change that is to be told.
async fn change(memory: &Memory, number: u64) {
    let test = attempt("//a:t", 1, Outcome::Failed).test;
    let change = Change {
        number,
        at: Time(1),
        subject: Subject { test, case: None },
        kind: Kind::Entered,
        by: Actor::Policy,
        reason: String::new(),
        owner: None,
        expires: None,
        evidence: None,
    };
    memory.write(vec![ledger::notice(&change).unwrap()]).await.unwrap();
}

async fn left(memory: &Memory) -> usize {
    Records::list(memory, keys::NOTICES, None, false, 10).await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn what_is_told_is_cut_off_before_another_server_may_tell_it() {
    let memory = Memory::default();
    change(&memory, 1).await;
    let silent = Outside::new(&memory, None);
    let mut one = telling(&memory, "one");
    let began = Instant::now();
    one.step(&silent).await.unwrap();
    assert!(began.elapsed() < SHORT, "another one may tell by then");
    assert_eq!((silent.told(), one.tries), (1, 0), "it is neither told nor tried");
}

#[tokio::test(start_paused = true)]
async fn no_further_step_is_taken_once_the_turn_is_over() {
    // Chance would decide about each.
    for _ in 0..20 {
        let memory = Memory::default();
        change(&memory, 1).await;
        let (slow, mut one) = (Slow::default(), telling(&memory, "one"));
        let pause = async {
            memory.fall_silent();
            advance(2 * SHORT).await;
        };
        let (stepped, ()) = tokio::join!(timeout(10 * SHORT, one.step(&slow)), pause);
        assert_eq!(slow.went_on.load(Ordering::Relaxed), 0);
        stepped.expect("it was cut off").unwrap();
    }
}

#[tokio::test]
async fn a_change_is_told_by_the_server_whose_turn_it_is_and_by_no_other() {
    let memory = Memory::default();
    change(&memory, 1).await;
    let (deaf, hears) =
        (Outside::new(&memory, Some(Err("no".to_owned()))), Outside::new(&memory, Some(Ok(()))));
    let mut one = telling(&memory, "one");
    one.step(&deaf).await.unwrap();
    telling(&memory, "two").step(&hears).await.unwrap();
    assert_eq!((deaf.told(), hears.told(), left(&memory).await), (1, 0, 1));
    one.step(&hears).await.unwrap();
    assert_eq!((hears.told(), left(&memory).await), (1, 0));
    // Once all is told its turn is over.
    one.step(&hears).await.unwrap();
    change(&memory, 2).await;
    telling(&memory, "three").step(&hears).await.unwrap();
    assert_eq!((hears.told(), left(&memory).await), (2, 0));
}
