//! Records in memory, a clock by hand, and a runner that remembers what it did.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::model::Time;
use crate::pipelines::control::driver::Driver;
use crate::pipelines::control::{
    Control, ControlError, ControlOptions, ControlParts, Happenings, Registered, Registry,
    Released, Run, Start,
};
use crate::pipelines::file::read;
use crate::pipelines::runner::{Ended, Progress, RunnerError, StageRunner, Task};
use crate::services::Clock;
use crate::storage::memory::Memory;
use crate::storage::{Records, StorageError, Write};
use crate::verdicts::{Ledger, Note};

/// What is written together with notes.
struct Book(Memory, Arc<World>);

#[async_trait]
impl Ledger for Book {
    async fn write(&self, notes: Vec<Note>, writes: Vec<Write>) -> Result<(), StorageError> {
        self.0.write(writes).await?;
        self.1.noted.lock().unwrap().extend(notes);
        Ok(())
    }
}

pub struct Hand(AtomicU64);

impl Hand {
    pub fn advance(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::Relaxed))
    }
}

/// What the stages did in the world, which outlives every frontend.
#[derive(Default)]
pub struct World {
    /// Tasks that were begun, with the name of their stage: each once.
    pub done: Mutex<BTreeMap<String, String>>,
    pub cancelled: Mutex<BTreeMap<String, bool>>,
    /// The names of the stages that fail until a test mends them.
    pub broken: Mutex<Vec<String>>,
    /// Whether the next cancelling panics.
    pub slips: AtomicBool,
    /// The audit log.
    pub noted: Mutex<Vec<Note>>,
    woken: Notify,
}

#[async_trait]
impl StageRunner for World {
    async fn run(&self, task: &Task, progress: &dyn Progress) -> Result<Ended, RunnerError> {
        let key = task.key.to_string();
        self.done.lock().unwrap().insert(key.clone(), task.stage.clone());
        progress.log(0, Bytes::from(format!("{} says hello\n", task.stage)));
        assert_ne!(task.stage, "panics");
        while task.stage.starts_with("hangs") {
            let woken = self.woken.notified();
            if self.cancelled.lock().unwrap().contains_key(&key) {
                return Ok(Ended::cancelled());
            }
            woken.await;
        }
        if self.broken.lock().unwrap().contains(&task.stage) {
            return Ok(Ended::failed("it is broken"));
        }
        Ok(Ended::passed(BTreeMap::from([("tree".to_owned(), format!("of {}", task.stage))])))
    }

    async fn cancel(&self, task: &Task) -> Result<(), RunnerError> {
        assert!(!self.slips.swap(false, Ordering::Relaxed));
        self.cancelled.lock().unwrap().insert(task.key.to_string(), true);
        self.woken.notify_waiters();
        Ok(())
    }
}

/// What an operator declares.
#[derive(Default)]
pub struct Declared(pub Arc<BTreeMap<String, Registered>>);

impl Registry for Declared {
    fn pipelines(&self) -> Arc<BTreeMap<String, Registered>> {
        self.0.clone()
    }
}

/// Releases that were made, each `INSTANCE NAME`.
#[derive(Default)]
pub struct Releases(pub Mutex<Vec<String>>);

#[async_trait]
impl Happenings for Releases {
    async fn released(&self, after: u64) -> Result<(Vec<Released>, u64), StorageError> {
        let made = self.0.lock().unwrap();
        let released = (1..).zip(made.iter().cloned());
        let new = released.filter(|(number, _)| *number > after);
        let new = new.map(|(number, made)| {
            let (instance, name) = made.split_once(' ').unwrap();
            Released { number, instance: Some(instance.to_owned()), name: name.to_owned() }
        });
        let new = new.collect();
        Ok((new, made.len() as u64))
    }

    async fn latest(&self) -> Result<u64, StorageError> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
}

/// All that survives a crash.
pub struct Rig {
    pub releases: Arc<Releases>,
    pub memory: Memory,
    pub world: Arc<World>,
    pub clock: Arc<Hand>,
    pub declared: Arc<BTreeMap<String, Registered>>,
}

impl Rig {
    pub fn new() -> Self {
        let clock = Arc::new(Hand(AtomicU64::new(1_790_000_000_000)));
        let (world, releases, declared) = Default::default();
        Self { releases, memory: Memory::default(), world, clock, declared }
    }

    pub fn declare(&mut self, text: &str) {
        let declared = Arc::new(read(text).unwrap());
        let registered = Registered { declared: declared.clone(), instance: String::new() };
        self.declared = Arc::new(BTreeMap::from([(declared.name.clone(), registered)]));
    }

    /// Another frontend over the same records.
    pub fn frontend(&self) -> Arc<Control> {
        self.frontend_on(Arc::new(self.memory.clone()))
    }

    pub fn frontend_on(&self, records: Arc<dyn Records>) -> Arc<Control> {
        let parts = ControlParts {
            records,
            ledger: Arc::new(Book(self.memory.clone(), self.world.clone())),
            runner: self.world.clone(),
            registry: Arc::new(Declared(self.declared.clone())),
            happenings: self.releases.clone(),
            clock: self.clock.clone(),
            name: "test".to_owned(),
        };
        let options = ControlOptions { keep: Duration::from_secs(86_400), most: 10 };
        Control::new(parts, options)
    }

    pub async fn start(&self, text: &str) -> Run {
        let declared = Control::read(text.to_owned()).await.unwrap();
        self.frontend().start(&declared, &ask()).await.unwrap()
    }

    /// Drives a run until it has ended, or the records fail.
    pub async fn drive(&self, id: &str) -> Result<(), ControlError> {
        let mut driver = Driver::load(self.frontend(), id).await?;
        for _ in 0..500 {
            match driver.round(self.clock.now()).await? {
                None => return Ok(()),
                Some(pause) => {
                    driver.pause(pause).await;
                    self.clock.advance(pause);
                }
            }
        }
        panic!("it does not end");
    }

    /// How often each stage was done.
    pub fn times(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for stage in self.world.done.lock().unwrap().values() {
            *times.entry(stage.clone()).or_default() += 1;
        }
        times
    }
}

pub fn ask() -> Start {
    Start { trigger: "manual".to_owned(), by: "ann".to_owned(), ..Start::default() }
}
