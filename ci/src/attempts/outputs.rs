//! Cases of an attempt, out of its report.

use std::io::Read;

use super::{Attempt, CaseRun, Failure, own_name};
use crate::junit::{self, CaseAttempt, Limits, Refused};
use crate::model::{CaseName, CaseResult, Outcome};

/// Cases that are kept of one attempt. What is beyond is counted only.
pub const MAX_CASES: usize = 100_000;

/// What a report said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub cases: u64,
    /// Cases that were not kept, since they were too many.
    pub left_out: u64,
    /// Whether the report names the test alone: Bazel makes such a report for a runner that writes none.
    pub is_made_up: bool,
}

/// What was read of a report, before it is added to an attempt.
pub struct ReadCases {
    cases: Vec<CaseRun>,
    report: Report,
}

/// Reads the report of an attempt and adds its cases. A report that is refused changes nothing.
pub fn add_cases(attempt: &mut Attempt, source: impl Read) -> Result<Report, Refused> {
    Ok(read_cases(&attempt.test.label, source)?.add_to(attempt))
}

/// Reads the report of an attempt at the test with this label.
pub fn read_cases(label: &str, source: impl Read) -> Result<ReadCases, Refused> {
    let mut cases = Vec::new();
    let mut report = Report::default();
    junit::read(source, &Limits::default(), |it| {
        report.cases += 1;
        if cases.len() < MAX_CASES {
            cases.push(case_run(it));
        } else {
            report.left_out += 1;
        }
    })?;
    report.is_made_up = is_made_up(&cases, label);
    if report.is_made_up {
        cases.clear();
    }
    Ok(ReadCases { cases, report })
}

impl ReadCases {
    /// Adds the cases to the attempt whose report it was.
    pub fn add_to(self, attempt: &mut Attempt) -> Report {
        if attempt.failure.is_none() && attempt.outcome != Outcome::Passed {
            let failed = |it: &&CaseRun| super::executed::is_failure(it.outcome);
            attempt.failure = self.cases.iter().find(failed).and_then(|it| it.failure.clone());
        }
        attempt.cases = self.cases;
        self.report
    }
}

fn case_run(it: CaseAttempt) -> CaseRun {
    let CaseResult { case, outcome, duration, message } = it.result;
    CaseRun {
        case: CaseName { class: own_name(case.class), name: own_name(case.name) },
        attempt: it.attempt,
        outcome,
        duration,
        failure: message.as_deref().and_then(Failure::of),
    }
}

/// Bazel's own report has one case that is called as the test's program is, and its shard.
fn is_made_up(cases: &[CaseRun], label: &str) -> bool {
    let [only] = cases else { return false };
    let (_, path) = label.split_once("//").unwrap_or(("", label));
    let path = path.replace(':', "/");
    let rest = only.case.name.strip_prefix(path.trim_start_matches('/'));
    !path.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("_shard_"))
}

#[cfg(test)]
mod tests {
    use super::super::samples::executed;
    use super::*;

    #[test]
    fn cases_come_from_the_report() {
        let mut it = executed("//a:t", 1, 1, Outcome::Failed);
        let report = r#"<testsuites><testsuite name="S"><testcase name="a" classname="C" time="1.5"/>
            <testcase name="b" classname="C" time="0.5"><failure message="boom at 17"/></testcase>
            </testsuite></testsuites>"#;
        let said = add_cases(&mut it, report.as_bytes()).unwrap();
        assert_eq!(said, Report { cases: 2, left_out: 0, is_made_up: false });
        assert_eq!(
            it.cases.iter().map(|it| it.outcome).collect::<Vec<_>>(),
            [Outcome::Passed, Outcome::Failed]
        );
        let failure = it.failure.unwrap();
        assert!(failure.excerpt.starts_with("boom"));
        assert_eq!(failure.signature, crate::flakes::Signature::of("boom at 18"));
    }

    #[test]
    fn a_report_that_bazel_made_up_has_no_cases() {
        let mut it = executed("//a/b:t", 1, 1, Outcome::Passed);
        let report = r#"<?xml version="1.0" encoding="UTF-8"?><testsuites><testsuite name="a/b/t" tests="1">
            <testcase name="a/b/t" status="run" duration="0" time="0"></testcase></testsuite></testsuites>"#;
        assert!(add_cases(&mut it, report.as_bytes()).unwrap().is_made_up);
        assert!(it.cases.is_empty());
        let sharded = report.replace("a/b/t\"", "a/b/t_shard_1/4\"");
        assert!(add_cases(&mut it, sharded.as_bytes()).unwrap().is_made_up);
        let real = report.replace("case name=\"a/b/t\"", "case name=\"a/b/two\"");
        assert!(!add_cases(&mut it, real.as_bytes()).unwrap().is_made_up);
    }

    #[test]
    fn a_report_that_is_refused_changes_nothing() {
        let mut it = executed("//a:t", 1, 1, Outcome::Failed);
        let before = it.clone();
        assert!(
            add_cases(&mut it, "<testsuites><testsuite><testcase name=\"a\"/>".as_bytes()).is_err()
        );
        assert_eq!(it, before);
    }

    #[test]
    fn cases_are_bounded() {
        let cases: String = (0..=MAX_CASES).map(|i| format!("<testcase name=\"{i}\"/>")).collect();
        let mut it = executed("//a:t", 1, 1, Outcome::Passed);
        let report = format!("<testsuite name=\"s\">{cases}</testsuite>");
        assert_eq!(add_cases(&mut it, report.as_bytes()).unwrap().left_out, 1);
        assert_eq!(it.cases.len(), MAX_CASES);
    }
}
