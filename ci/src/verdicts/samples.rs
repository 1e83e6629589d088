//! Sample attempts that tests use.

use std::time::Duration;

use super::heard::Heard;
use crate::attempts::{Attempt, BlobName, CaseRun, Failure, Known, Slot};
use crate::flakes::{Identity, Run};
use crate::model::{CaseName, Outcome, TestKey, Time};

pub fn identity(number: u64) -> Identity {
    let argv = [number.to_string()];
    Identity::of(&Run {
        argv: &argv,
        environment: &[],
        working_directory: "",
        input_root: "",
        platform: &[],
    })
}

/// An attempt with the same inputs as all others, in the second of its number.
pub fn attempt(label: &str, number: u64, outcome: Outcome) -> Attempt {
    let test =
        TestKey { instance: String::new(), label: label.to_owned(), configuration: String::new() };
    let slot = Slot { run: 1, shard: 1, attempt: 0 };
    Attempt {
        execution: number,
        outcome,
        started: Time(number * 1_000),
        duration: Some(Duration::from_secs(1)),
        worker: "w1".to_owned(),
        action: Some(BlobName { hash: "a".repeat(64), size: 1 }),
        identity: Some(identity(0)),
        failure: (outcome == Outcome::Failed).then(|| Failure::of("boom")).flatten(),
        commit: Some(format!("c{number}")),
        ..Attempt::new(test, "build", slot, Known::EXECUTED)
    }
}

pub fn heard(label: &str, number: u64, outcome: Outcome) -> Heard {
    Heard::of(&attempt(label, number, outcome)).expect("it is evidence")
}

pub fn case(name: &str) -> CaseName {
    CaseName { class: "c".to_owned(), name: name.to_owned() }
}

/// A sample attempt with a report: it failed where one of its cases did.
pub fn with_cases(label: &str, number: u64, cases: &[(&str, Outcome)]) -> Heard {
    let failed = cases.iter().any(|it| it.1 == Outcome::Failed);
    let outcome = if failed { Outcome::Failed } else { Outcome::Passed };
    let run = |(name, outcome): &(&str, Outcome)| CaseRun {
        case: case(name),
        attempt: 1,
        outcome: *outcome,
        duration: None,
        failure: (*outcome == Outcome::Failed).then(|| Failure::of("boom")).flatten(),
    };
    let cases = cases.iter().map(run).collect();
    Heard::of(&Attempt { cases, ..attempt(label, number, outcome) }).expect("it is evidence")
}
