//! What all parts of test intelligence speak of: tests, the runs of them, and how these ended.

mod run_directory;
mod time;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use run_directory::{run_in, without_run};
pub use time::Time;

/// A test as its users know it, over all revisions of its sources.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TestKey {
    /// The REAPI instance, or the empty one.
    pub instance: String,
    /// The target's label (`//pkg:name`), or the suite's name when runs were imported.
    pub label: String,
    /// What the client calls the configuration that the test was built in; empty when it does not say.
    pub configuration: String,
}

/// One case of a test: a method, a parametrised variant. A test without cases has none of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CaseName {
    /// The class, file or module that the case is in, as its runner writes it.
    pub class: String,
    pub name: String,
}

/// What evidence is about: a test, or one case of it where cases are known. Cases are the better subject:
/// two cases that fail in turn look like one test that never passes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    pub test: TestKey,
    pub case: Option<CaseName>,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.test.label)?;
        match &self.case {
            Some(case) if case.class.is_empty() => write!(out, " ({})", case.name),
            Some(case) => write!(out, " ({} {})", case.class, case.name),
            None => Ok(()),
        }
    }
}

/// How one attempt at a test, or one case of it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Passed,
    Failed,
    /// Counted apart from failures: it says as much about the machine as about the test.
    TimedOut,
    Skipped,
    /// The worker was lost, memory ran out, the runner said that its infrastructure failed. It says nothing
    /// about the test.
    Infrastructure,
}

/// What one case did within an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    pub case: CaseName,
    pub outcome: Outcome,
    /// What the runner measured; none when it did not say, or said something that is no time.
    pub duration: Option<Duration>,
    /// Message and trace of a failure, cut to a length that the reader names.
    pub message: Option<String>,
}
