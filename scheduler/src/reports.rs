//! What running tests in parts asks of test intelligence: to read reports, to put them together, and to cut cases into lists.

use bytes::Bytes;

/// A case of a test, as a report names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaseTime {
    pub class: String,
    pub name: String,
    /// Whether the case ran; `false`: it was skipped.
    pub ran: bool,
    /// Milliseconds that the case took; 0 where the report does not say.
    pub ms: u64,
}

/// Reports of test runners, in JUnit's XML. What they hold is of clients.
pub trait TestReports: Send + Sync + 'static {
    /// The cases that a report names, each once. Empty where the report was made of a log and names the test of
    /// this label alone. Errors: why it is refused, in words.
    fn cases(&self, report: &[u8], label: &str) -> Result<Vec<CaseTime>, String>;

    /// Puts reports together into one, in their order. Errors: why one is refused, in words.
    fn put_together(&self, reports: &[Bytes]) -> Result<Bytes, String>;

    /// The places of these cases, cut into so many lists that take equally long.
    fn balanced(&self, cases: &[CaseTime], lists: usize) -> Vec<Vec<usize>>;
}

/// Reads none: what tests report is not known, and nothing is cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReports;

impl TestReports for NoReports {
    fn cases(&self, _report: &[u8], _label: &str) -> Result<Vec<CaseTime>, String> {
        Err("reports are not read here".to_owned())
    }

    fn put_together(&self, _reports: &[Bytes]) -> Result<Bytes, String> {
        Err("reports are not read here".to_owned())
    }

    fn balanced(&self, _cases: &[CaseTime], _lists: usize) -> Vec<Vec<usize>> {
        Vec::new()
    }
}
