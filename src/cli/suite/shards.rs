//! `kiln tests shards`.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{ArgGroup, Args, ValueEnum, ValueHint};
use kiln_ci::durations::{self, Durations, Estimates, FileError};
use kiln_ci::model::CaseName;
use kiln_ci::quarantine::pytest_node;
use kiln_ci::shards::{self, Impossible, Item, Plan};
use serde::Serialize;

use super::files::{open, shown};
use super::known::{self, Known};
use super::plan::Keep;
use crate::cli::error::{CliError, Exit};
use crate::cli::say::say;
use crate::cli::target::Target;
use crate::cli::text;
use crate::cli::text::{Look, Table, look};
use crate::config::parse_time;
use kiln_web::format;

/// Cut tests into shards that take equally long.
///
/// From what tests took before: by the history of the server, or by a file in pytest-split's format, a JSON object
/// from names to seconds. The same input gives the same plan. A shard is never empty: where there are fewer tests
/// than shards, there are as many shards as tests.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("number").required(true).args(["shards", "target_time"]),
    after_help = "\
Examples:
  kiln tests shards --durations .test_durations --shards 8
  kiln tests shards --durations .test_durations --target-time 5m --overhead 30s --json
  kiln tests shards --durations .test_durations --shards 4 --tests list.txt --format bazel
  kiln tests shards --durations .test_durations --shards 40 --keep \"$RUN_ID\"   # see kiln tests next
  kiln tests shards //app:a_test //app:b_test //lib:c_test --shards 2 --format bazel
  kiln tests shards //app:all_test --target-time 5m --format gtest
  words=$(kiln tests shards --durations d.json --shards 4 --format pytest --only 2) &&
    eval \"pytest $words\"

Lines of --format, one a shard, in words of a shell:
  bazel    //a:b //c:d, or --test_filter=... where the tests are cases of one target
  pytest   node ids
  gtest    GTEST_FILTER=Suite.Case:Suite.Other
  junit    --select-method=Class#method ..., for the console launcher
  nextest  -E 'test(=name) + ...', and the binary's id where names are `ID NAME`"
)]
pub struct Shards {
    /// Tests that the server knows: they are cut themselves; with --cases, or a format other than json and bazel,
    /// their cases are
    #[arg(value_name = "LABEL", value_hint = ValueHint::Other, conflicts_with = "durations")]
    labels: Vec<String>,

    /// Cut the cases of LABEL, also with --format json or bazel
    #[arg(long, requires = "labels")]
    cases: bool,

    /// Seconds by test, as pytest-split writes them; given several times, oldest revision first, the median
    /// of a test's last three counts
    #[arg(long, value_name = "FILE", required_unless_present = "labels")]
    durations: Vec<PathBuf>,

    /// Tests to plan, one a line (`-`: standard input), instead of all in --durations or of LABEL: new ones get an
    /// estimate, the others are left out
    #[arg(long, value_name = "FILE")]
    tests: Option<PathBuf>,

    /// Number of shards
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    shards: Option<u32>,

    /// The fewest shards of which each is done in this time
    #[arg(long, value_name = "TIME", value_parser = ValueParser::from(parse_time))]
    target_time: Option<Duration>,

    /// What a shard takes before its first test, for --target-time
    #[arg(
        long,
        value_name = "TIME",
        default_value = "0s",
        value_parser = ValueParser::from(parse_time),
        requires = "target_time"
    )]
    overhead: Duration,

    /// What to print [default: a table]
    #[arg(long, value_enum, hide_default_value = true, default_value_t = Format::Table)]
    format: Format,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,

    /// Only this shard, counted from 1; exit code 1 where there are fewer shards
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    only: Option<u32>,

    #[command(flatten)]
    keep: Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    #[value(hide = true)]
    Table,
    Json,
    Bazel,
    Pytest,
    Gtest,
    Junit,
    Nextest,
}

/// The plan as other programs read it.
#[derive(Serialize)]
struct Json<'a> {
    shards: Vec<JsonShard<'a>>,
    makespan_s: f64,
    lower_bound_s: f64,
}

#[derive(Serialize)]
struct JsonShard<'a> {
    tests: &'a [String],
    expected_s: f64,
}

impl Shards {
    /// `target` is asked for only where the plan is put on a server.
    pub async fn run(
        self,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        let asks = self.keep.is_wanted() || !self.labels.is_empty();
        let target = if asks { Some(target()?) } else { None };
        let (estimates, names) = match &target {
            Some(target) if !self.labels.is_empty() => {
                let known = self.known(target).await?;
                (Estimates::new(vec![known.durations]), known.names)
            }
            _ => self.read()?,
        };
        let tests = match &self.tests {
            Some(path) => listed(path, &estimates, self.source())?,
            None => names,
        };
        let item = |name: String| Item { seconds: estimates.seconds(&name), name };
        let plan = self.plan(tests.into_iter().map(item).collect())?;
        // Without tests to name, many runners would run all of them.
        if let Some(only) = self.only.filter(|&only| only as usize > plan.shards.len()) {
            let message = format!("there is no shard {only}: there are {}", plan.shards.len());
            return Err(CliError::not_found(message).hint("this job has nothing to run"));
        }
        match target.filter(|_| self.keep.is_wanted()) {
            Some(target) => self.keep.put(&plan, &target).await?,
            None => self.print(&plan)?,
        }
        Ok(Exit::Done)
    }

    /// Estimates by the files of durations, and the names of all tests in these.
    fn read(&self) -> Result<(Estimates, Vec<String>), CliError> {
        let files = self.durations.iter();
        let read = files.map(|path| read_durations(path)).collect::<Result<Vec<_>, _>>()?;
        let estimates = Estimates::new(read);
        let names = estimates.known().map(str::to_owned).collect();
        Ok((estimates, names))
    }

    /// What the server knows of the labels, or of their cases.
    async fn known(&self, target: &Target) -> Result<Known, CliError> {
        let format = self.format;
        match self.cases || !matches!(format, Format::Table | Format::Json | Format::Bazel) {
            true => known::of_cases(target, &self.labels, |case| named(format, case)).await,
            false => known::of_tests(target, &self.labels).await,
        }
    }

    /// Where durations come from, for people.
    fn source(&self) -> &'static str {
        match self.durations.len() {
            0 => "history",
            1 => "file",
            _ => "files",
        }
    }

    fn plan(&self, tests: Vec<Item>) -> Result<Plan, CliError> {
        if tests.is_empty() {
            say("warning: there are no tests, so there are no shards");
        }
        let Some(target) = self.target_time else {
            let shards = self.shards.unwrap_or(1) as usize;
            warn_of_useless(&tests, shards);
            return Ok(shards::plan(tests, shards));
        };
        let (target_s, overhead_s) = (target.as_secs_f64(), self.overhead.as_secs_f64());
        shards::count_for(tests, target_s, overhead_s).map_err(|why| {
            let target = format::duration(nanos(target_s));
            let hint = match why {
                Impossible::LongTest { .. } => "cut that test into several, or give it more time",
                Impossible::Overhead(_) => "--target-time has to be longer than --overhead",
            };
            CliError::not_found(format!("no number of shards is done in {target}: {why}"))
                .hint(hint)
        })
    }

    fn print(&self, plan: &Plan) -> Result<(), CliError> {
        let format = match (self.json, self.format) {
            (true, _) | (_, Format::Json) => {
                return text::write_out(json(plan, self.only)?.as_bytes());
            }
            (_, Format::Table) => return text::print(&table(plan, self.only)),
            (_, Format::Bazel) => shards::Format::Bazel,
            (_, Format::Pytest) => shards::Format::Pytest,
            (_, Format::Gtest) => shards::Format::Googletest,
            (_, Format::Junit) => shards::Format::Junit,
            (_, Format::Nextest) => shards::Format::Nextest,
        };
        let mut lines = String::new();
        for (_, shard) in chosen(plan, self.only) {
            let line = shards::arguments(format, &shard.tests).map_err(|error| {
                CliError::usage(error.to_string()).hint("--format json takes every name")
            })?;
            lines.push_str(&line);
            lines.push('\n');
        }
        text::write_out(lines.as_bytes())
    }
}

/// The name of a case in the words of a runner.
fn named(format: Format, case: &CaseName) -> String {
    let CaseName { class, name } = case;
    match format {
        Format::Pytest => pytest_node(case),
        _ if class.is_empty() => name.clone(),
        Format::Junit => format!("{class}#{name}"),
        Format::Nextest => format!("{class} {name}"),
        Format::Gtest => format!("{class}.{name}"),
        // Classes of Java are in packages, test suites of googletest are in none.
        Format::Table | Format::Json | Format::Bazel => match class.contains('.') {
            true => format!("{class}#{name}"),
            false => format!("{class}.{name}"),
        },
    }
}

/// Shards with their numbers, all or one of them.
fn chosen(plan: &Plan, only: Option<u32>) -> impl Iterator<Item = (usize, &shards::Shard)> {
    let numbered = (1..).zip(&plan.shards);
    numbered.filter(move |(number, _)| only.is_none_or(|only| *number == only as usize))
}

fn read_durations(path: &Path) -> Result<Durations, CliError> {
    durations::read(open(path)?).map_err(|error| {
        let hint = match &error {
            FileError::Io(_) | FileError::TooLong => "give the file of durations",
            FileError::Empty => "an object without tests is {}",
            FileError::Json(_) => "the format is pytest-split's: {\"name\": seconds, …}",
        };
        CliError::usage(format!("{}: {error}", shown(path))).hint(hint)
    })
}

/// Bytes of a list of tests.
const MAX_LIST: u64 = 1 << 30;

/// The tests of a list, each once, and a word on how they differ from those that are known.
fn listed(path: &Path, estimates: &Estimates, source: &str) -> Result<Vec<String>, CliError> {
    let failed = |why: String| CliError::usage(format!("cannot read {}: {why}", shown(path)));
    let mut list = String::new();
    let read = open(path)?.take(MAX_LIST + 1).read_to_string(&mut list);
    read.map_err(|error| failed(error.to_string()))?;
    if list.len() as u64 > MAX_LIST {
        return Err(failed(format!("it has more than {MAX_LIST} bytes")));
    }
    let mut seen = HashSet::new();
    let names = list.lines().map(str::trim).filter(|name| !name.is_empty());
    let tests: Vec<_> = names.filter(|name| seen.insert(*name)).map(str::to_owned).collect();
    let new = tests.iter().filter(|name| !estimates.is_known(name)).count();
    let gone = estimates.known().len() - (tests.len() - new);
    if new > 0 || gone > 0 {
        let new = format::counted(new as u64, "new test");
        say(&format!("{new} estimated; of the {source}, {gone} not in the list"));
    }
    Ok(tests)
}

fn warn_of_useless(tests: &[Item], shards: usize) {
    let useful = shards::useful_shards(tests);
    if tests.is_empty() || shards <= useful {
        return;
    }
    let longest = tests.iter().max_by(|one, other| {
        one.seconds.total_cmp(&other.seconds).then_with(|| other.name.cmp(&one.name))
    });
    if shards > tests.len() {
        let tests = format::counted(tests.len() as u64, "test");
        say(&format!("warning: there are no more shards than tests: {tests}"));
    } else if let Some(Item { name, seconds }) = longest.filter(|longest| longest.seconds > 0.0) {
        let seconds = format::duration(nanos(*seconds));
        say(&format!(
            "warning: more than {useful} shards are no faster: {name:?} alone takes {seconds}"
        ));
    }
}

/// Seconds with as many places as clocks are worth.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

fn nanos(seconds: f64) -> u64 {
    // Saturates: what is longer than centuries is shown as such.
    (seconds * 1e9) as u64
}

fn json(plan: &Plan, only: Option<u32>) -> Result<String, CliError> {
    let shards = chosen(plan, only)
        .map(|(_, shard)| JsonShard { tests: &shard.tests, expected_s: rounded(shard.expected_s) });
    let json = Json {
        shards: shards.collect(),
        makespan_s: rounded(plan.makespan_s),
        lower_bound_s: rounded(plan.lower_bound_s),
    };
    let json =
        serde_json::to_string(&json).map_err(|error| CliError::machine(error.to_string()))?;
    Ok(json + "\n")
}

fn table(plan: &Plan, only: Option<u32>) -> String {
    let mut table = Table::new(&["shard", "tests", "expected"], &[0, 1, 2]);
    for (number, shard) in chosen(plan, only) {
        table.row([
            number.to_string(),
            shard.tests.len().to_string(),
            format::duration(nanos(shard.expected_s)),
        ]);
    }
    let (makespan, bound) = (plan.makespan_s, plan.lower_bound_s);
    let over = if bound > 0.0 { (makespan / bound - 1.0) * 100.0 } else { 0.0 };
    let sum = format!(
        "longest {}, {over:.1} % over the lower bound of {}",
        format::duration(nanos(makespan)),
        format::duration(nanos(bound))
    );
    format!("{}{}\n", table.text(""), look(Look::Bold, &sum))
}
