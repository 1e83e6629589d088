//! `kiln tests show`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueHint};

use super::list::{millis, of_passes, rate};
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{Look, Table, look, one_line};
use kiln_web::format::{abbreviated, ago, count, encode, now, short};
use kiln_web::json::{TestAttempt, TestFailure, TestName, TestShown};

/// Groups of failures that are printed.
const MAX_FAILURES: usize = 10;
/// Other tests of the same label that are printed.
const MAX_OTHERS: usize = 10;

/// One test: how long it takes, how it fails, and the newest attempts at it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests show //app:login_test
  kiln tests show //app:login_test --attempts 200
  kiln tests show --instance main --configuration 5f3c //app:login_test --json

Each flag of Bazel that changes makes another configuration, and so another test. Without --configuration it is the
one that ran last.")]
pub struct Show {
    /// Its label, or its id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    test: String,
    /// In this configuration: the beginning of its id
    #[arg(long, value_name = "ID", value_hint = ValueHint::Other)]
    configuration: Option<String>,
    /// Attempts to list
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    attempts: u16,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Show {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let api = Api::new(target)?;
        let mut path = format!("/tests/{}?limit={}", segment(&self.test), self.attempts);
        let instance = target.names_instance.then_some(&target.instance);
        for (name, value) in
            [("instance", instance), ("configuration", self.configuration.as_ref())]
        {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(value, false)));
            }
        }
        api::print(api.get(&path).await?, self.json, |shown| show(api.base(), shown))?;
        Ok(Exit::Done)
    }
}

/// A test in an address. Its first byte is always written as a number: `kpi` and the like are other things there.
pub fn segment(test: &str) -> String {
    match test.split_at_checked(1) {
        Some((first, rest)) => {
            first.bytes().map(|it| format!("%{it:02X}")).collect::<String>() + &encode(rest, false)
        }
        None => encode(test, false),
    }
}

fn show(base: &str, shown: &TestShown) -> String {
    let (name, counts) = (&shown.test.name, &shown.test.counts);
    let mut text = format!(
        "{}\n  {base}{}\n",
        look(Look::Bold, &one_line(&short(&name.label, 400))),
        name.page
    );
    for (what, value) in [("instance", &name.instance_name), ("configuration", &name.configuration)]
    {
        if !value.is_empty() {
            text += &format!("  {what} {}\n", one_line(&short(value, 80)));
        }
    }
    text += &format!(
        "  {} passed, {} failed, {} timed out; flake rate {}; of what passed mean {}, longest {}\n",
        count(counts.passed),
        count(counts.failed),
        count(counts.timed_out),
        rate(counts),
        of_passes(counts, counts.mean_ms.unwrap_or(0)),
        of_passes(counts, counts.longest_ms),
    );
    text += &others(&shown.others);
    text += &failures(&shown.failures);
    text += &attempts("newest attempts", &shown.attempts);
    text + &attempts("parts of these, each run by itself", &shown.parts)
}

/// Lines about other tests that have this label; empty where there are none.
fn others(others: &[TestName]) -> String {
    if others.is_empty() {
        return String::new();
    }
    let mut text =
        "  the same label in other configurations (--configuration, --instance):\n".to_owned();
    for it in others.iter().take(MAX_OTHERS) {
        let instance = match it.instance_name.as_str() {
            "" => String::new(),
            name => format!("  instance {}", short(name, 60)),
        };
        let configuration = match it.configuration.as_str() {
            "" => "(none)".to_owned(),
            id => short(id, 16),
        };
        text += &format!("    {}\n", one_line(&format!("{configuration}{instance}")));
    }
    text
}

fn failures(failures: &[TestFailure]) -> String {
    if failures.is_empty() {
        return String::new();
    }
    let mut text = format!("  {}\n", look(Look::Bold, "failures that look alike"));
    for failure in failures.iter().take(MAX_FAILURES) {
        let said = failure.excerpt.lines().next().unwrap_or_default();
        let said = if said.is_empty() { "(nothing was said)" } else { said };
        text += &format!("    {:>4} x  {}\n", count(failure.attempts), short(said, 160));
        if !failure.cases.is_empty() {
            text += &format!("            {}\n", one_line(&short(&failure.cases.join(", "), 160)));
        }
    }
    text
}

fn attempts(title: &str, newest_first: &[TestAttempt]) -> String {
    if newest_first.is_empty() {
        return String::new();
    }
    let head = ["outcome", "took", "shard", "try", "build", "commit", "where", "began"];
    let mut table = Table::new(&head, &[1, 2, 3]);
    let now = now();
    for it in newest_first {
        let outcome = match &*it.outcome {
            "passed" => look(Look::Good, "passed"),
            other => look(Look::Bad, &other.replace('_', " ")),
        };
        table.row([
            outcome,
            it.duration_ms.map_or_else(|| "-".to_owned(), millis),
            if it.shards > 1 {
                format!("{}/{}", it.shard, it.shards)
            } else {
                it.shard.to_string()
            },
            it.attempt.to_string(),
            abbreviated(&it.invocation_id),
            it.commit.as_deref().map(abbreviated).unwrap_or_default(),
            short(if it.worker.is_empty() { &it.strategy } else { &it.worker }, 40),
            ago(it.started_at, now),
        ]);
    }
    format!("  {}\n{}", look(Look::Bold, title), table.text("    "))
}
