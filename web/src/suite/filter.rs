//! Says which tests are shown, and in which order.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use kiln_ci::history::{Day, Tested};
use serde::Deserialize;

use crate::error::WebError;
use crate::format::{encode, short};

/// Spans of days to choose from.
pub const SPANS: [u64; 5] = [1, 7, 14, 30, 90];
/// The one that is shown when nothing is chosen.
pub const DAYS: u64 = 14;
/// Longest text that is looked for, in characters.
const MAX_QUERY: usize = 200;

pub const OUTCOMES: [(&str, &str); 5] = [
    ("", "all"),
    ("failing", "failed or flaky"),
    ("flaky", "flaky"),
    ("timed_out", "timed out"),
    ("passing", "passed always"),
];
pub const SORTS: [(&str, &str); 6] = [
    ("", "by name"),
    ("failures", "most failures first"),
    ("flakes", "flakiest first"),
    ("slowest", "slowest first"),
    ("longest", "longest run first"),
    ("runs", "most runs first"),
];

/// What stands in the address.
#[derive(Deserialize, Default, Clone, schemars::JsonSchema)]
pub struct Filter {
    /// Parts of the label, apart by spaces.
    #[serde(default)]
    pub q: String,
    /// The instance whose tests are shown; empty: all instances.
    #[serde(default)]
    pub instance: String,
    #[serde(default)]
    pub outcome: String,
    #[serde(default)]
    pub sort: String,
    pub days: Option<u64>,
    /// The number of the page, counted from 0.
    #[serde(default)]
    pub page: usize,
    pub limit: Option<usize>,
}

/// A test and the sum of its days.
pub struct Row<'a> {
    pub tested: &'a Tested,
    pub sum: Day,
}

impl Filter {
    /// A span that can be chosen.
    pub fn days(&self) -> u64 {
        self.days.filter(|days| SPANS.contains(days)).unwrap_or(DAYS)
    }

    /// What programs ask for must be there; a page shows what there is.
    pub fn check(&self) -> Result<(), WebError> {
        let names = |of: &[(&'static str, &str)]| {
            of.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect::<Vec<_>>()
        };
        let known = |of: &[(&'static str, &str)], value: &str| {
            value.is_empty() || names(of).contains(&value)
        };
        if !known(&OUTCOMES, &self.outcome) {
            return Err(unknown("outcome", &self.outcome, &names(&OUTCOMES).join(", ")));
        }
        if !known(&SORTS, &self.sort) {
            return Err(unknown("sort", &self.sort, &names(&SORTS).join(", ")));
        }
        match self.days {
            Some(days) if !SPANS.contains(&days) => {
                Err(unknown("days", &days.to_string(), &SPANS.map(|it| it.to_string()).join(", ")))
            }
            _ => Ok(()),
        }
    }

    /// The tests that the filter asks for, in its order.
    pub fn rows<'a>(&self, tests: &'a [Tested]) -> Vec<Row<'a>> {
        let words = short(&self.q, MAX_QUERY).to_lowercase();
        let words: Vec<&str> = words.split_whitespace().collect();
        let is_named = |tested: &&Tested| {
            let is_there = self.instance.is_empty() || self.instance == tested.test.instance;
            is_there && contains(&tested.test.label, &words)
        };
        let rows = tests.iter().filter(is_named).map(Row::of);
        let mut rows: Vec<_> = rows.filter(|row| self.is_shown(&row.sum)).collect();
        self.sort(&mut rows);
        rows
    }

    fn is_shown(&self, sum: &Day) -> bool {
        match self.outcome.as_str() {
            "failing" => sum.failed + sum.timed_out + sum.flaky > 0,
            "flaky" => sum.flaky > 0,
            "timed_out" => sum.timed_out > 0,
            "passing" => sum.failed + sum.timed_out == 0 && sum.passed > 0,
            _ => true,
        }
    }

    /// Equal ones stay in the order of their names.
    fn sort(&self, rows: &mut [Row<'_>]) {
        match self.sort.as_str() {
            "failures" => rows.sort_by_key(|row| Reverse(row.sum.failed + row.sum.timed_out)),
            "flakes" => rows.sort_by(|a, b| {
                let rate = |row: &Row<'_>| row.sum.flake_rate().unwrap_or(0.0);
                rate(b).total_cmp(&rate(a)).then(b.sum.flaky.cmp(&a.sum.flaky))
            }),
            "slowest" => rows.sort_by_key(|row| Reverse(row.sum.mean())),
            "longest" => rows.sort_by_key(|row| Reverse(row.sum.longest)),
            "runs" => rows.sort_by_key(|row| Reverse(row.sum.attempts())),
            _ => {}
        }
    }

    /// The address of another page of the same list.
    pub fn link(&self, path: &str, page: usize) -> String {
        let fields = [
            ("q", &*self.q),
            ("instance", &*self.instance),
            ("outcome", &*self.outcome),
            ("sort", &*self.sort),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let mut link = format!("{path}?page={page}");
        for (name, value) in given {
            link.push_str(&format!("&{name}={}", encode(&short(value, MAX_QUERY), false)));
        }
        if let Some(days) = self.days {
            link.push_str(&format!("&days={days}"));
        }
        link
    }
}

impl<'a> Row<'a> {
    pub fn of(tested: &'a Tested) -> Self {
        let mut sum = Day::default();
        tested.days.values().for_each(|day| sum.add(day));
        Self { tested, sum }
    }
}

/// The instances that tests are in.
pub fn instances(tests: &[Tested]) -> BTreeSet<&str> {
    tests.iter().map(|it| it.test.instance.as_str()).collect()
}

fn contains(label: &str, words: &[&str]) -> bool {
    if words.is_empty() {
        return true;
    }
    let label = label.to_lowercase();
    words.iter().all(|word| label.contains(word))
}

pub fn unknown(field: &str, value: &str, known: &str) -> WebError {
    let message = format!("{field} {:?} is not known", short(value, 60));
    WebError::invalid(message, format!("There are {known}."))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kiln_ci::model::TestKey;

    use super::*;

    fn tested(label: &str, failed: u64, flaky: u64, took: u64) -> Tested {
        let day = Day { passed: 10, failed, flaky, first: 10, took, ..Day::default() };
        let test =
            TestKey { instance: "main".into(), label: label.into(), configuration: String::new() };
        Tested { test, days: BTreeMap::from([(3, day), (4, day)]) }
    }

    #[test]
    fn tests_are_found_by_parts_of_their_names_and_sorted() {
        let all = [
            tested("//a:Alpha", 0, 0, 50),
            tested("//a:beta", 3, 0, 10),
            tested("//b:x", 2, 1, 90),
        ];
        let shown = |filter: &Filter| -> Vec<String> {
            filter.rows(&all).iter().map(|row| row.tested.test.label.clone()).collect()
        };
        let filter = |q: &str, outcome: &str, sort: &str| Filter {
            q: q.into(),
            outcome: outcome.into(),
            sort: sort.into(),
            ..Filter::default()
        };
        assert_eq!(shown(&filter("A: al", "", "")), ["//a:Alpha"]);
        assert_eq!(shown(&filter("", "failing", "failures")), ["//a:beta", "//b:x"]);
        assert_eq!(shown(&filter("", "flaky", "")), ["//b:x"]);
        assert_eq!(shown(&filter("", "passing", "")), ["//a:Alpha"]);
        assert_eq!(shown(&filter("", "", "slowest"))[0], "//b:x");
        let none = Filter { instance: "x".into(), ..Filter::default() };
        assert!(shown(&none).is_empty());
        assert!(filter("", "red", "").check().is_err());
        let odd = Filter { days: Some(5), ..Filter::default() };
        assert!(odd.check().is_err() && odd.days() == DAYS);
        let linked = Filter { instance: "i/\"".into(), ..filter("a&b", "flaky", "") };
        let link = linked.link("/tests", 2);
        assert_eq!(link, "/tests?page=2&q=a%26b&instance=i%2F%22&outcome=flaky");
    }
}
