//! Reports of tests that are easy to write: a line for each case, with its milliseconds.

use bytes::Bytes;
use kiln_scheduler::fanout::{CaseTime, TestReports};

pub struct Lines;

impl TestReports for Lines {
    fn cases(&self, report: &[u8], _label: &str) -> Result<Vec<CaseTime>, String> {
        let text = str::from_utf8(report).map_err(|error| error.to_string())?;
        let case = |line: &str| {
            let (name, ms) = line.split_once(' ').ok_or("a line without a time")?;
            let ms = ms.parse().map_err(|_| "no time")?;
            Ok(CaseTime { class: "S".to_owned(), name: name.to_owned(), ran: true, ms })
        };
        text.lines().map(case).collect()
    }

    fn put_together(&self, reports: &[Bytes]) -> Result<Bytes, String> {
        Ok(reports.concat().into())
    }

    fn balanced(&self, cases: &[CaseTime], lists: usize) -> Vec<Vec<usize>> {
        (0..lists).map(|list| (list..cases.len()).step_by(lists).collect()).collect()
    }
}
