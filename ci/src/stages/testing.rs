//! What tests of stages stand on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::model::Time;
use crate::pipelines::{Command, Program, Progress, Source, Task, TaskKey, Work};
use crate::services::Clock;

/// A clock that goes on when it is told to.
#[derive(Clone, Default)]
pub struct TestClock(Arc<Mutex<Time>>);

impl TestClock {
    pub fn pass(&self, time: Duration) {
        let mut now = self.0.lock().unwrap();
        *now = now.plus(time);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Time {
        *self.0.lock().unwrap()
    }
}

/// Keeps a log as it was told.
#[derive(Default)]
pub struct Heard {
    pub before: u64,
    pub text: Mutex<Vec<u8>>,
    pub standing: Mutex<Vec<String>>,
}

impl Heard {
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    pub fn stood(&self) -> Vec<String> {
        self.standing.lock().unwrap().clone()
    }
}

impl Progress for Heard {
    fn logged(&self) -> u64 {
        self.before
    }

    fn log(&self, offset: u64, chunk: Bytes) {
        let mut text = self.text.lock().unwrap();
        assert_eq!(offset, self.before + text.len() as u64, "nothing is missing between");
        text.extend_from_slice(&chunk);
    }

    fn standing(&self, line: &str) {
        self.standing.lock().unwrap().push(line.to_owned());
    }
}

pub fn key(attempt: u32) -> TaskKey {
    TaskKey { run: "r1".to_owned(), stage: 3, attempt }
}

pub fn task(attempt: u32, work: Work) -> Task {
    Task {
        key: key(attempt),
        pipeline: "p".to_owned(),
        stage: "test".to_owned(),
        instance: "main".to_owned(),
        by: "ana".to_owned(),
        source: Source::default(),
        work,
        variables: BTreeMap::new(),
        told: BTreeMap::new(),
        timeout: Duration::from_secs(60),
    }
}

pub fn command(script: &str) -> Command {
    Command::plain(Program::Script(script.to_owned()))
}
