//! Reads reports of tests for the scheduler's fan-out, by test intelligence.

use std::collections::BTreeMap;

use bytes::Bytes;
use kiln_ci::attempts::{Attempt, CaseRun, Known, Slot, add_cases};
use kiln_ci::junit::{Limits, put_together};
use kiln_ci::model::{CaseName, Outcome, TestKey};
use kiln_ci::shards::{Item, plan};
use kiln_net::counts::counted;
use kiln_scheduler::{CaseTime, TestReports};

const MS_PER_S: f64 = 1000.0;
/// Stands between the name of a case and its place: no name has it, as XML has no such sign.
const SEPARATOR: char = '\u{1}';

/// Reports in JUnit's XML, and plans of shards.
pub struct Reports;

impl TestReports for Reports {
    fn cases(&self, report: &[u8], label: &str) -> Result<Vec<CaseTime>, String> {
        let test = TestKey {
            instance: String::new(),
            label: label.to_owned(),
            configuration: String::new(),
        };
        let slot = Slot { run: 1, shard: 1, attempt: 1 };
        let mut attempt = Attempt::new(test, "", slot, Known::EXECUTED);
        let said = add_cases(&mut attempt, report).map_err(|refused| refused.to_string())?;
        if said.left_out > 0 {
            let more = counted(said.left_out, "case");
            return Err(format!("it has {more} more than are read"));
        }
        Ok(distinct(&attempt.cases))
    }

    fn put_together(&self, reports: &[Bytes]) -> Result<Bytes, String> {
        let together = put_together(reports, &Limits::default());
        together.map(Bytes::from).map_err(|error| error.to_string())
    }

    fn balanced(&self, cases: &[CaseTime], lists: usize) -> Vec<Vec<usize>> {
        let item = |(place, case): (usize, &CaseTime)| Item {
            name: format!("{}.{}{SEPARATOR}{place}", case.class, case.name),
            seconds: case.ms as f64 / MS_PER_S,
        };
        let planned = plan(cases.iter().enumerate().map(item).collect(), lists);
        let place = |name: &String| name.rsplit_once(SEPARATOR)?.1.parse().ok();
        planned.shards.iter().map(|shard| shard.tests.iter().filter_map(place).collect()).collect()
    }
}

/// Each case once: what a runner repeats is one case, and its times add up.
fn distinct(runs: &[CaseRun]) -> Vec<CaseTime> {
    let mut cases: BTreeMap<&CaseName, (bool, u64)> = BTreeMap::new();
    for run in runs {
        let (ran, ms) = cases.entry(&run.case).or_default();
        *ran |= run.outcome != Outcome::Skipped;
        let took = run.duration.unwrap_or_default().as_millis();
        *ms = ms.saturating_add(u64::try_from(took).unwrap_or(u64::MAX));
    }
    let case = |(name, (ran, ms)): (&CaseName, (bool, u64))| CaseTime {
        class: name.class.clone(),
        name: name.name.clone(),
        ran,
        ms,
    };
    cases.into_iter().map(case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &[u8] = br#"<testsuite name="S">
        <testcase classname="C" name="a" time="1.5"><rerunFailure message="x"/></testcase>
        <testcase classname="C" name="b"><skipped/></testcase></testsuite>"#;

    fn case(name: &str, ran: bool, ms: u64) -> CaseTime {
        CaseTime { class: "C".to_owned(), name: name.to_owned(), ran, ms }
    }

    #[test]
    fn a_report_names_each_case_once() {
        assert_eq!(Reports.cases(REPORT, "//a:t").unwrap().len(), 2);
        let cases = Reports.cases(REPORT, "//a:t").unwrap();
        assert_eq!(cases[1], case("b", false, 0));
        assert!(cases[0].ran && cases[0].ms >= 1500);
        assert!(Reports.cases(b"<testsuite", "//a:t").is_err());
        let made_up =
            br#"<testsuites><testsuite name="a/t"><testcase name="a/t"/></testsuite></testsuites>"#;
        assert_eq!(Reports.cases(made_up, "//a:t").unwrap(), []);
    }

    #[test]
    fn lists_are_balanced_and_have_each_case_once() {
        let cases: Vec<_> = (1..=20).map(|n| case(&n.to_string(), true, n * 100)).collect();
        let lists = Reports.balanced(&cases, 4);
        let mut all: Vec<usize> = lists.concat();
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        let times = lists.iter().map(|list| list.iter().map(|place| cases[*place].ms).sum::<u64>());
        let times: Vec<u64> = times.collect();
        assert!(times.iter().all(|time| (4_500..=6_000).contains(time)), "{times:?}");
    }
}
