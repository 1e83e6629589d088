//! Sample attempts that tests use.

use std::time::Duration;

use super::{Attempt, BlobName, Known, Slot};
use crate::model::{Outcome, TestKey, Time};

pub fn blob(hash: &str) -> BlobName {
    BlobName { hash: hash.repeat(32), size: 10 }
}

fn test(label: &str) -> TestKey {
    TestKey { instance: "main".into(), label: label.into(), configuration: "cfg".into() }
}

/// A sample attempt as an execution tells it.
pub fn executed(label: &str, started: u64, execution: u64, outcome: Outcome) -> Attempt {
    let slot = Slot { run: 1, shard: 1, attempt: 0 };
    Attempt {
        execution,
        outcome,
        started: Time(started),
        duration: Some(Duration::from_millis(1500)),
        set_up: Some(Duration::from_millis(20)),
        shards: 1,
        worker: "w1".into(),
        action: Some(blob("ac")),
        ..Attempt::new(test(label), "invocation", slot, Known::EXECUTED)
    }
}

/// A sample attempt as build events tell it.
pub fn reported(label: &str, attempt: u32, outcome: Outcome) -> Attempt {
    let slot = Slot { run: 1, shard: 1, attempt };
    Attempt {
        outcome,
        started: Time(u64::from(attempt) * 10 + 1),
        duration: Some(Duration::from_millis(1700)),
        strategy: "remote".into(),
        commit: Some("c0ffee".into()),
        branch: Some("main".into()),
        ..Attempt::new(test(label), "invocation", slot, Known::REPORTED)
    }
}
