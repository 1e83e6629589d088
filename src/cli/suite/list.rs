//! `kiln tests list`.

use std::collections::HashMap;

use clap::Args;

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{Look, Table, look};
use kiln_web::format::{count, counted, duration, encode, percent, short};
use kiln_web::json::{Test, TestCounts, TestName, Tests};

/// Longest label printed, in characters.
const MAX_LABEL: usize = 120;

/// The tests that ran here or were reported, with what they came to
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests list
  kiln tests list --outcome failing --days 7
  kiln tests list --sort flakes --limit 10 app
  kiln tests list --instance main --json")]
pub struct List {
    /// Parts of the label
    query: Vec<String>,
    /// Tests of one instance alone
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Tests of this outcome alone
    #[arg(long, value_parser = ["failing", "flaky", "timed_out", "passing"])]
    outcome: Option<String>,
    /// What comes first; without it they are in the order of their names
    #[arg(long, value_parser = ["failures", "flakes", "slowest", "longest", "runs"])]
    sort: Option<String>,
    /// Of so many days, today included
    #[arg(long, default_value = "14", value_parser = ["1", "7", "14", "30", "90"])]
    days: String,
    /// Tests to list
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl List {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let api = Api::new(target)?;
        let given = [
            ("q", Some(self.query.join(" ")).filter(|it| !it.is_empty())),
            ("instance", self.instance),
            ("outcome", self.outcome),
            ("sort", self.sort),
        ];
        let mut path = format!("/tests?days={}&limit={}", self.days, self.limit);
        for (name, value) in given {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(&value, false)));
            }
        }
        api::print(api.get(&path).await?, self.json, list)?;
        Ok(Exit::Done)
    }
}

fn list(tests: &Tests) -> String {
    if tests.tests.is_empty() {
        return format!("no test is like that in {}\n", counted(tests.days, "day"));
    }
    let mut head = vec!["test", "runs", "failed", "flaky", "flake rate", "mean", "longest"];
    let apart = Apart::of(&tests.tests);
    head.extend(apart.heads());
    let mut table = Table::new(&head, &[1, 2, 3, 4, 5, 6]);
    tests.tests.iter().for_each(|test| table.row(row(test).into_iter().chain(apart.cells(test))));
    let shown = tests.tests.len();
    let more = match tests.total.saturating_sub(shown) {
        0 => String::new(),
        more => format!("and {} more: --limit lists more of them\n", count(more as u64)),
    };
    table.text("") + &more
}

/// The parts of a test's name that are printed beside labels, since some labels do not tell tests
/// apart.
struct Apart {
    instance: bool,
    configuration: bool,
}

impl Apart {
    fn of(tests: &[Test]) -> Self {
        let mut first: HashMap<&str, &TestName> = HashMap::new();
        let mut apart = Self { instance: false, configuration: false };
        let instance = tests.first().map(|it| &it.name.instance_name);
        for Test { name, .. } in tests {
            apart.instance |= instance.is_some_and(|it| *it != name.instance_name);
            let known = first.entry(&name.label).or_insert(name);
            apart.configuration |= known.configuration != name.configuration;
        }
        apart
    }

    fn heads(&self) -> Vec<&'static str> {
        let all = [(self.configuration, "configuration"), (self.instance, "instance")];
        all.into_iter().filter(|(is_said, _)| *is_said).map(|(_, head)| head).collect()
    }

    fn cells(&self, test: &Test) -> Vec<String> {
        let TestName { configuration, instance_name, .. } = &test.name;
        let all = [(self.configuration, configuration, 12), (self.instance, instance_name, 40)];
        let said = all.into_iter().filter(|(is_said, ..)| *is_said);
        said.map(|(_, text, most)| short(text, most)).collect()
    }
}

fn row(test: &Test) -> [String; 7] {
    let TestCounts { passed, failed, timed_out, skipped, infrastructure, .. } = test.counts;
    let failures = failed + timed_out;
    let bad = |number: u64| match number {
        0 => "0".to_owned(),
        _ => look(Look::Bad, &count(number)),
    };
    [
        short(&test.name.label, MAX_LABEL),
        count(passed + failures + skipped + infrastructure),
        bad(failures),
        bad(test.counts.flaky),
        rate(&test.counts),
        of_passes(&test.counts, test.counts.mean_ms.unwrap_or(0)),
        of_passes(&test.counts, test.counts.longest_ms),
    ]
}

pub fn rate(counts: &TestCounts) -> String {
    match counts.first_attempts {
        0 => "-".to_owned(),
        first => percent(counts.flaky as f64 / first as f64),
    }
}

/// A time of attempts that passed; a dash where none did.
pub fn of_passes(counts: &TestCounts, time: u64) -> String {
    if counts.passed == 0 { "-".to_owned() } else { millis(time) }
}

pub fn millis(millis: u64) -> String {
    duration(millis.saturating_mul(1_000_000))
}
